"""A database with a place for checkpoints outlives its process: closed, abandoned and killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import millrace
from millrace.database import Database
from millrace.errors import Corrupt, Fenced, Invalid, MillraceError

SOURCE = Path(__file__).parents[2] / "src"
TICKS = "CREATE SOURCE ticks (k INT, v INT) WITH ('connector' = 'push')"
TOTALS = "CREATE TABLE totals AS SELECT k, count(*) AS n, sum(v) AS v FROM ticks GROUP BY k"


def opened(folder: Path, **settings: str) -> Database:
    return millrace.connect(checkpoint_store=f"file://{folder}", **{"checkpoint_interval": "1h", **settings})


def totals(db: Database) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for row in db.query("SELECT k, n, v FROM totals").rows())


def shown(folder: Path) -> list[dict[str, int]]:
    files = [
        f
        for f in folder.rglob("*.json")
        if f.is_file() and not any(p.startswith((".", "_")) for p in f.parts)
    ]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_what_was_declared_and_pushed_is_there_again(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        db.execute(f"{TICKS}; {TOTALS}")
        db.push("ticks", [{"k": 1, "v": 10}, {"k": 2, "v": 20}])
        first = db.checkpoint()
        db.push("ticks", {"k": 1, "v": 5})
        assert db.checkpoint() != first
        assert db.checkpoint() == db.checkpoint()
    with opened(tmp_path) as db:
        assert totals(db) == [(1, 2, 15), (2, 1, 20)]
        db.execute("CREATE TABLE big AS SELECT k FROM totals WHERE v > 14")
        db.push("ticks", {"k": 3, "v": 30})
    with opened(tmp_path) as db:
        assert totals(db) == [(1, 2, 15), (2, 1, 20), (3, 1, 30)]
        assert sorted(r["k"] for r in db.query("SELECT k FROM big").rows()) == [1, 2, 3]
        db.execute("DROP TABLE big")
    with opened(tmp_path) as db:
        assert "big" not in db.names()
        assert len(db.execute("SHOW CHECKPOINT STATUS")) > 0


def test_own_tables_and_ended_sources_come_back(tmp_path: Path) -> None:
    sums = """CREATE SOURCE e (ts TIMESTAMP, v INT, WATERMARK FOR ts) WITH ('connector' = 'push');
        CREATE TABLE w AS SELECT window_start AS s, sum(v) AS v FROM TUMBLE(e, ts, INTERVAL '1' MINUTE)
        GROUP BY window_start, window_end"""
    with opened(tmp_path) as db:
        db.execute("CREATE TABLE d (id INT, name VARCHAR, PRIMARY KEY (id))")
        db.execute("INSERT INTO d VALUES (1, 'a'), (2, 'b')")
        db.execute(sums)
        db.push("e", {"ts": "2024-01-01 00:00:05", "v": 3})
        db.end("e")
        db.execute("INSERT INTO d VALUES (2, 'c'); CHECKPOINT; INSERT INTO d VALUES (3, 'x')")
    with opened(tmp_path) as db:
        assert db.query("SELECT id, name FROM d ORDER BY id").rows() == [
            {"id": i, "name": n} for i, n in ((1, "a"), (2, "c"), (3, "x"))
        ]
        assert db.query("SELECT v FROM w").rows() == [{"v": 3}]
        with pytest.raises(Invalid, match="MR1521"):
            db.push("e", {"ts": "2024-01-01 00:00:06", "v": 1})


def test_going_back_to_an_older_checkpoint_replays_what_was_logged(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        db.execute(f"{TICKS}; {TOTALS}")
        numbers = []
        for v in range(3):
            db.push("ticks", {"k": 0, "v": v})
            numbers.append(db.checkpoint())
    for number in numbers:
        with millrace.connect(checkpoint_store=f"file://{tmp_path}", restore_from=numbers[0]) as db:
            assert totals(db) == [(0, 3, 3)], number
            break
    with pytest.raises(Invalid, match="MR1562"):
        millrace.connect(checkpoint_store=f"file://{tmp_path}", restore_from="77.1")
    with pytest.raises(Invalid, match="MR1568"):
        millrace.connect(checkpoint_store=f"file://{tmp_path}", restore_from="seven")


def test_damaged_state_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        db.execute(f"{TICKS}; {TOTALS}")
        db.push("ticks", [{"k": k, "v": 1} for k in range(100)])
    found = max((tmp_path / "database" / "data").rglob("*-whole"), key=lambda p: p.stat().st_size)
    whole = found.read_bytes()
    found.write_bytes(
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    )
    with pytest.raises(Corrupt, match=found.name):
        opened(tmp_path)
    found.write_bytes(whole)
    with opened(tmp_path) as db:
        assert len(totals(db)) == 100


def test_two_processes_do_not_share_a_database(tmp_path: Path) -> None:
    with opened(tmp_path) as db:
        db.execute(f"{TICKS}; {TOTALS}")
        with pytest.raises(Invalid, match="MR1563"):
            opened(tmp_path)
        db.push("ticks", {"k": 1, "v": 1})
        assert totals(db) == [(1, 1, 1)]


def test_who_was_taken_over_can_decide_nothing_more(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    db = millrace.connect(checkpoint_store=store, checkpoint_interval="1h", state_dir=f"{tmp_path}/a")
    db.execute(f"{TICKS}; {TOTALS}")
    db.push("ticks", {"k": 1, "v": 1})
    other = millrace.connect(checkpoint_store=store, checkpoint_interval="1h", state_dir=f"{tmp_path}/b")
    with pytest.raises(Fenced, match="MR4001"):
        db.checkpoint()
    with pytest.raises(Fenced, match="MR4001"):
        db.query("SELECT * FROM totals")
    db.close()
    assert totals(other) == []
    other.close()


@pytest.mark.parametrize(
    ("code", "settings", "sql"),
    [
        ("MR1383", {"guarantee": "exactly_once"}, "CREATE SOURCE s (a INT) WITH ('connector' = 'push', 'wal' = 'false'); CREATE TABLE t AS SELECT * FROM s"),
        ("MR1384", {"guarantee": "exactly_once"}, f"{TICKS}; CREATE SINK o FROM ticks INTO CONSOLE ()"),
        ("MR1388", {}, f"{TICKS}; CREATE SINK o FROM ticks INTO FILE (path = '/tmp/never.json', format = 'json')"),
        ("MR1542", {}, "SET checkpoint.store = 'file:///tmp/other'"),
        ("MR1934", {}, "RESTORE FROM CHECKPOINT 3"),
    ],
)  # fmt: skip
def test_what_breaks_the_guarantee_is_refused(
    tmp_path: Path, code: str, settings: dict[str, str], sql: str
) -> None:
    with opened(tmp_path, **settings) as db, pytest.raises(MillraceError, match=code):
        db.execute(sql)


def test_a_log_needs_a_place() -> None:
    with millrace.connect() as db, pytest.raises(Invalid, match="MR1561"):
        db.execute("CREATE SOURCE s (a INT) WITH ('connector' = 'push', 'wal' = 'true')")
    with pytest.raises(Invalid, match="MR1560"):
        millrace.connect(guarantee="exactly_once")
    with millrace.connect(checkpoint_store="memory://logless") as db:
        db.execute(f"{TICKS}; {TOTALS}")
        with pytest.raises(Invalid, match="MR1561"):
            db.push("ticks", {"k": 1, "v": 1})


PROGRAM = """
import sys, time, millrace
folder, rows = sys.argv[1], int(sys.argv[2])
db = millrace.connect(checkpoint_store=f"file://{folder}/store", checkpoint_interval="20ms", guarantee="exactly_once")
if not db.names():
    db.execute(f'''CREATE SOURCE ticks (k INT, v INT) WITH ('connector' = 'push');
        CREATE SINK even FROM (SELECT k, v FROM ticks WHERE v % 2 = 0) INTO FILE (path = '{folder}/even', format = 'json')''')
if "totals" not in db.names():
    db.execute("CREATE TABLE totals AS SELECT k, count(*) AS n, sum(v) AS v FROM ticks GROUP BY k")
done = db.query("SELECT coalesce(sum(n), 0) AS n FROM totals").rows()[0]["n"]
for v in range(done, rows):
    db.push("ticks", {"k": v % 7, "v": v})
    print(v, flush=True)
    time.sleep(0.0005)
db.close()
"""


def test_every_acknowledged_row_counts_once_through_kill_9(tmp_path: Path) -> None:
    rows = 4_000
    rng = random.Random(5)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for _ in range(4):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(rows)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            last = process.stdout.readline()
            deadline = time.monotonic() + rng.uniform(0.05, 0.6)
            while last and time.monotonic() < deadline:
                last = process.stdout.readline() or last
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        acknowledged = int(rest[-1] if rest else last) + 1
        with millrace.connect(checkpoint_store=f"file://{tmp_path}/store", checkpoint_interval="1h") as db:
            kept = totals(db)
        count = sum(int(str(row[1])) for row in kept)
        assert count >= acknowledged
        expected = [(k, len(range(k, count, 7)), sum(range(k, count, 7))) for k in range(7)]
        assert kept == [row for row in expected if row[1]]
        found = sorted(row["v"] for row in shown(tmp_path / "even"))
        assert found == list(range(0, count, 2))


def test_a_file_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "job.sql"
    file.write_text(f"""
        SET guarantee = 'exactly_once';
        CREATE SOURCE n (v BIGINT) WITH ('connector' = 'datagen', 'rows' = '20000', 'rate' = '6000',
            'fields.v.kind' = 'sequence');
        CREATE SINK o FROM n INTO FILE (path = '{tmp_path}/out', format = 'json');
    """)
    command = [sys.executable, "-c", "from millrace.cli import main; main()", "run", str(file), "-q",
               "--store", f"file://{tmp_path}/store", "--set", "checkpoint.interval=50ms"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for _ in range(2):
        with subprocess.Popen(command, env=environment) as process:
            time.sleep(1.5)
            process.send_signal(signal.SIGKILL)
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    assert done.returncode == 0
    found = sorted(row["v"] for row in shown(tmp_path / "out"))
    assert len(found) == 20_000 and len(set(found)) == 20_000
    file.write_text(file.read_text() + "\n-- changed")
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "MR1569" in refused.stderr
