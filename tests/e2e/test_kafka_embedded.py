"""A SQL file from Kafka to Kafka in one process, exactly once through SIGKILL: the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.chaos.verdict import Verdict, check_copies, check_totals, check_windows
from tests.chaos.workload import Feeder, Topics, aggregating, copying, windows_of
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import messages

SOURCE = Path(__file__).parents[2] / "src"
EVENTS = 40_000
PARTITIONS = 3


@pytest.mark.timeout(240)
def test_a_file_is_exact_through_kill_9(broker: Broker, tmp_path: Path) -> None:
    topics = Topics.make(broker, PARTITIONS)
    assert Feeder(broker, topics.events, PARTITIONS, EVENTS, 0).start().done.wait(60)
    running = []
    for name, sql in (("sums", aggregating(broker, topics)), ("copies", copying(broker, topics))):
        file = tmp_path / f"{name}.sql"
        file.write_text("SET guarantee = 'exactly_once'; SET batch.max_rows = 256;\n" + sql)
        running.append(
            [sys.executable, "-c", "from millrace.cli import main; main()", "run", "-q", str(file),
             "--store", f"file://{tmp_path}/store", "--set", "checkpoint.interval=200ms"]
        )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    wanted = {topics.windows: len(windows_of(EVENTS)), topics.copies: EVENTS}
    deadline = time.monotonic() + 150
    for kill in (True, True, False):
        processes = [subprocess.Popen(command, env=environment) for command in running]
        before = sum(len(messages(broker, topic)) for topic in wanted)
        try:
            while any(len(messages(broker, topic)) < rows for topic, rows in wanted.items()):
                assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
                if kill and sum(len(messages(broker, topic)) for topic in wanted) > before + 2_000:
                    break
                time.sleep(0.1)
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
            assert {process.wait(60) for process in processes} <= {-signal.SIGKILL, 130}
    verdict = Verdict(EVENTS)
    check_windows(broker, topics.windows, verdict)
    check_totals(broker, topics.totals, verdict)
    check_copies(broker, topics.copies, verdict)
    assert verdict.clean, verdict.faults
