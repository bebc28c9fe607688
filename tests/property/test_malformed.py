"""Malformed input and malformed SQL end in coded errors or dead letters, and every record is accounted for."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.cluster.dataflow import Dataflow
from millrace.errors import Bug, MillraceError
from millrace.planner.session import Planner

CSV = b"k,v,ts\n" + b"".join(b"key%d,%d,2026-01-01 00:00:%02d\n" % (i % 3, i, i * 2 % 60) for i in range(30))
JSON = b"".join(
    b'{"k": "key%d", "v": %d, "ts": "2026-01-01T00:00:%02d"}\n' % (i % 3, i, i * 2 % 60) for i in range(30)
)
SCRIPT = """
CREATE SOURCE numbers (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
FROM FILE (path = '{path}') FORMAT {format};
CREATE SINK counted FROM (
  SELECT k, window_start, count(*) AS n FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '10' SECOND))
  GROUP BY k, window_start, window_end
) INTO BLACKHOLE ();
CREATE SINK computed FROM (SELECT k, 100 / (v - 7) AS q FROM numbers) INTO BLACKHOLE ();
"""
SQL = SCRIPT.format(path="/nowhere.csv", format="CSV")
FUZZ = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))

edits = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["flip", "cut", "insert", "drop", "swap"]),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=6,
)


def mutated(content: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    for where, how, what in changes:
        at = int(where * len(content))
        match how:
            case "flip":
                content = content[:at] + what + content[at + len(what) :]
            case "cut":
                content = content[: max(at, 10)]
            case "insert":
                content = content[:at] + what + content[at:]
            case "drop":
                content = content[:at] + content[at + len(what) :]
            case "swap":
                content = content[at:] + content[:at]
    return content


def run(path: Path, format: str) -> None:
    """All records of the source are sent on or dead; each row sent is counted in a window, late or dead."""
    plan, _ = Planner().compile(SCRIPT.format(path=path, format=format))
    dataflow = Dataflow()
    dataflow.extend(plan)
    try:
        for _ in range(10_000):
            if dataflow.ended:
                break
            dataflow.poll()
        assert dataflow.ended, "the source did not end"
        (source,) = dataflow.sources
        assert source.metrics.rows_in == source.metrics.rows_out + source.metrics.dead_rows
        for vertex in dataflow.vertices:
            if vertex.node.inputs == (source.position,):
                assert vertex.metrics.rows_in == source.metrics.rows_out
    finally:
        dataflow.close()


@FUZZ
@given(changes=edits, format=st.sampled_from(["CSV", "JSON"]))
def test_malformed_files_lose_nothing_silently(changes: list[tuple[float, str, bytes]], format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.txt"
        path.write_bytes(mutated(CSV if format == "CSV" else JSON, changes))
        try:
            run(path, format)
        except MillraceError as error:
            assert not isinstance(error, Bug), error
            assert error.code.startswith("MR")


@FUZZ
@given(changes=edits)
def test_malformed_sql_is_a_coded_error_with_a_place(changes: list[tuple[float, str, bytes]]) -> None:
    text = mutated(SQL.encode(), changes).decode("utf-8", "replace")
    for error in Planner().validate(text):
        assert not isinstance(error, Bug), error
        assert error.code.startswith("MR") and error.message and str(error)
