"""Kafka to Kafka over three nodes, while the metadata actor and raylets are killed and frozen: nothing lost or doubled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e import broker as kafka

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(290)
def test_exact_through_the_loss_of_metadata_and_of_nodes(tmp_path: Path) -> None:
    kafka.require()
    deeds = "metadata,raylet,zombie node"
    options = [
        "--seed",
        "5",
        "--events",
        "20000",
        "--minutes",
        "0.5",
        "--deeds",
        deeds,
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(  # a cluster of its own: a process joins one only
        [sys.executable, "-m", "tests.chaos", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(f"| {deed} |" in report for deed in deeds.split(","))
    assert "**Clean**" in report and (tmp_path / "out" / "timeline.svg").exists()
