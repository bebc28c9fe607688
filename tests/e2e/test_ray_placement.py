"""Partitions run on the nodes that a job asks for: on three raylets of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(280)
def test_spread_packed_and_where_a_resource_is() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.three_nodes"],
        capture_output=True,
        text=True,
        timeout=270,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    nodes = json.loads(done.stdout.splitlines()[-1])
    assert len(set(nodes["spread"])) == 2
    assert len(set(nodes["pack"])) == 1
    assert nodes["resources"] == ["two", "two"]
