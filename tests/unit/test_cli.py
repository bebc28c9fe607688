"""The command line: exit codes, output on the right stream, and errors that show their place."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


def millrace(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", "from millrace.cli import main; main()", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("k,v\na,1\nb,2\na,oops\na,3\n")
    file = tmp_path / "app.sql"
    file.write_text("""
        CREATE SOURCE numbers (k STRING, v BIGINT) FROM FILE (path = '${DIR}/in.csv') FORMAT CSV;
        CREATE SINK kept FROM (SELECT k, v FROM numbers WHERE v > ${LEAST:-0})
        INTO FILE (path = '${DIR}/out.jsonl') FORMAT JSON;
    """)
    return file


def test_run_writes_the_sink_and_reports_bad_rows(script: Path) -> None:
    done = millrace("run", str(script), "--set", f"DIR={script.parent}", "--set", "LEAST=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "4 rows in" in done.stderr and "2 rows out" in done.stderr and "oops" in done.stderr
    lines = (script.parent / "out.jsonl").read_text().splitlines()
    assert [line.replace(" ", "") for line in lines] == ['{"k":"b","v":2}', '{"k":"a","v":3}']


def test_run_told_to_stop_at_bad_rows_exits_3(script: Path) -> None:
    done = millrace("run", str(script), "--set", f"DIR={script.parent}", "--set", "bad_rows=fail")
    assert done.returncode == 3
    assert "oops" in done.stderr and "MR2" in done.stderr and "Traceback" not in done.stderr


def test_select_prints_its_rows(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k,v\na,1\n")
    done = millrace("run", "-", "--quiet", text=f"SELECT k, v + 1 AS w FROM 'file://{tmp_path}/in.csv'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split() == ["a", "2"]


def test_validate_finds_every_error(tmp_path: Path) -> None:
    file = tmp_path / "wrong.sql"
    file.write_text(
        "CREATE SOURCE s (a BIGINT) WITH ('connector' = 'push');\n"
        "SELECT b FROM s;\n"
        "SELEC a FROM s;\n"
        "SELECT upper(a, a, a) FROM s;\n"
    )
    done = millrace("validate", str(file))
    assert done.returncode == 2
    for place in (":2:8: ", ":3:1: ", ":4:8: "):
        assert f"{file}{place}error" in done.stderr, done.stderr
    assert "3 errors" in done.stderr and "Traceback" not in done.stderr


def test_missing_variable_and_missing_file_are_coded_errors(script: Path) -> None:
    for arguments in (
        ["run", str(script)],
        ["run", str(script.parent / "none.sql")],
        ["run", str(script), "--set", "x"],
    ):
        done = millrace(*arguments)
        assert done.returncode == 2 and "[MR" in done.stderr and "Traceback" not in done.stderr


def test_explain_shows_a_tree_and_json(script: Path) -> None:
    variable = f"DIR={script.parent}"
    tree = millrace("explain", str(script), "--set", variable)
    assert tree.returncode == 0 and "numbers" in tree.stdout and "append" in tree.stdout
    assert json.loads(millrace("explain", str(script), "--set", variable, "--json").stdout)


def test_functions_lists_and_searches() -> None:
    done = millrace("functions", "split")
    assert done.returncode == 0 and "split_part" in done.stdout


def test_shell_runs_what_it_is_piped() -> None:
    done = millrace("sql", text="CREATE SOURCE s (a BIGINT) WITH ('connector' = 'push'); DESCRIBE s;")
    assert done.returncode == 0 and "int64" in done.stdout


def test_interrupt_publishes_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "endless.sql"
    file.write_text(f"""
        CREATE SOURCE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rate' = '1000', 'fields.n.kind' = 'sequence');
        CREATE SINK kept FROM ticks INTO FILE (path = '{tmp_path}/out') FORMAT JSON;
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", "from millrace.cli import main; main()", "run", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    lines = [line for part in sorted((tmp_path / "out").iterdir()) for line in part.read_text().splitlines()]
    assert lines and f"{len(lines):,} rows out" in errors
