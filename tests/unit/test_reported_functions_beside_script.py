"""A Python module that lies beside a SQL file is importable by it, wherever the command is run from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize("command", ["run", "validate", "explain"])
def test_a_function_is_found_in_the_folder_of_the_script(command: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "pricing.py").write_text(
        "import pyarrow.compute as pc\n\n\ndef twice(a):\n    return pc.multiply(a, 2)\n"
    )
    (folder / "in.csv").write_text("v\n21\n")
    (folder / "app.sql").write_text(f"""
        CREATE FUNCTION twice(v BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS 'pricing:twice';
        CREATE SOURCE s (v BIGINT) FROM FILE (path = '{folder}/in.csv') FORMAT CSV;
        SELECT twice(v) AS w FROM s;
    """)
    done = subprocess.run(
        [sys.executable, "-c", "from millrace.cli import main; main()", command, str(folder / "app.sql")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"},
        cwd=elsewhere,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if command == "run":
        assert "42" in done.stdout
