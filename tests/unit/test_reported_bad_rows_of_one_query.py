"""What a single query could not decode or compute is told, though its dataflow is gone when it has answered."""

from pathlib import Path

import pytest

import millrace
from millrace.running import run_file


def test_a_query_leaves_its_dead_letters(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\nx,3\n4,0\n")
    with millrace.connect() as db:
        db.execute(f"CREATE SOURCE s (a INT, b INT) FROM FILE (path = '{tmp_path}/in.csv') FORMAT CSV")
        assert db.query("SELECT a / b AS q FROM s").tuples() == [(0,)]
        told = [(row["code"], row["payload"] is not None) for row in db.dead_letters()]
        assert len(told) == 2 and told[0] == ("MR2102", True)
        progress = db.progress()
        assert (progress.rows_in, progress.dead_rows) == (3, 2)


def test_run_of_a_select_reports_its_bad_rows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("a\n1\nx\n")
    text = f"CREATE SOURCE s (a INT) FROM FILE (path = '{tmp_path}/in.csv') FORMAT CSV; SELECT a FROM s"
    assert run_file(text, {}, {}, quiet=False) == 0
    told = capfd.readouterr().err
    assert "2 rows in" in told and "1 did not decode" in told and "'x' is no INT" in told
