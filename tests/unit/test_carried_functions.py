"""Functions of users go to another process with their job, with what they need and nobody has there."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from millrace.cluster.job import JobSpec, encode_job
from millrace.errors import Invalid
from millrace.submitting import job_spec

SRC = str(Path(__file__).parents[2] / "src")
FROM_TEXT = """
    CREATE FUNCTION twice (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS $$
    import pyarrow.compute as pc
    FACTOR = 2
    def twice(a):
        return pc.multiply(a, FACTOR)
    $$;
    CREATE AGGREGATE FUNCTION span (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS $$
    class Span:
        def __init__(self):
            self.values = []
        def accumulate(self, a):
            self.values += a.to_pylist()
        def result(self):
            return max(self.values) - min(self.values)
    $$;
    CREATE FUNCTION unused (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS $$
    def unused(a):
        return a
    $$;
"""
QUERY = """
    CREATE SOURCE s (id BIGINT) WITH ('connector' = 'datagen', 'rows' = '100', 'fields.id.kind' = 'sequence');
    CREATE SINK o FROM (SELECT id % 2 AS k, span({call}) AS n FROM s GROUP BY id % 2 EMIT FINAL)
        INTO FILE (path = '{out}', format = 'json');
"""
ELSEWHERE = """
import sys
from millrace.cluster.dataflow import Dataflow
from millrace.cluster.functions import install
from millrace.cluster.job import decode_job

job = decode_job(open(sys.argv[1], 'rb').read(), 'job')
install(job.functions)
dataflow = Dataflow(stop_at_bad_rows=True)
dataflow.extend(job.plan)
while not dataflow.ended:
    dataflow.poll()
    dataflow.capture(changes=False)
dataflow.publish(1)
"""


def job_of(sql: str) -> JobSpec:
    return job_spec(sql, job="j", partitions=1, checkpoint_interval=1, variables={}, settings={})


def run_elsewhere(job: JobSpec, tmp_path: Path) -> list[str]:
    """Run the job in a process that has seen nothing of this one; the rows it wrote."""
    (tmp_path / "job").write_bytes(encode_job(job))
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "job")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100,
        env={"PYTHONPATH": SRC},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(line for path in (tmp_path / "out").glob("*.json") for line in path.read_text().split())


def test_functions_of_the_script_and_their_module(tmp_path: Path) -> None:
    job = job_of(FROM_TEXT + QUERY.format(call="twice(id)", out=tmp_path / "out"))
    assert [f.name for f in job.functions] == ["span", "twice"]
    assert run_elsewhere(job, tmp_path) == ['{"k":0,"n":196}', '{"k":1,"n":196}']


def test_functions_of_modules_that_only_we_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "carried_helper.py").write_text("def three():\n    return 3\n")
    (folder / "carried_main.py").write_text(
        "import pyarrow.compute as pc\nfrom carried_helper import three\ndef thrice(a):\n    return pc.multiply(a, three())\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    sql = (
        FROM_TEXT
        + "CREATE FUNCTION thrice (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS 'carried_main:thrice';"
    )
    job = job_of(sql + QUERY.format(call="thrice(id)", out=tmp_path / "out"))
    assert run_elsewhere(job, tmp_path) == ['{"k":0,"n":294}', '{"k":1,"n":294}']


def test_what_can_not_be_pickled_is_refused() -> None:
    module = type(sys)("millrace_functions.locked")
    module.LOCK = threading.Lock()  # type: ignore[attr-defined]
    exec("def locked(a):\n    with LOCK:\n        return a\n", module.__dict__)  # noqa: S102
    sys.modules[module.__name__] = module
    try:
        sql = "CREATE FUNCTION locked (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS 'millrace_functions.locked:locked';"
        with pytest.raises(Invalid, match="MR1391"):
            job_of(FROM_TEXT + sql + QUERY.format(call="locked(id)", out="/tmp/never"))
    finally:
        del sys.modules[module.__name__]


def test_a_job_without_functions_carries_none() -> None:
    assert job_of(QUERY.replace("span({call})", "sum(id)").format(out="/tmp/never")).functions == ()
