"""Annotations above statements: metrics count rows, defaults are taken, slips are refused at their place."""

import math
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

import millrace
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.errors import MillraceError, Position
from millrace.exposition import Exposition
from millrace.operators.batch import Batch
from millrace.operators.expressions.tree import Column
from millrace.operators.metric_tap import OTHER, SERIES_MAX, MetricTap, TapKind, TappedMetric
from millrace.operators.reading import Reading
from millrace.operators.spec import decode, encode
from millrace.submitting import defaults_of, job_spec

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.float64())])
K, V = Column(0, pa.string(), "k"), Column(1, pa.float64(), "v")
SOURCE = "CREATE SOURCE s (k VARCHAR, v BIGINT, p DECIMAL(10,2)) WITH ('connector' = 'push');\n"


@pytest.fixture
def db() -> Iterator[millrace.Database]:
    with millrace.connect() as database:
        database.execute(SOURCE)
        yield database


def samples(db: millrace.Database) -> dict[tuple[str, ...], float]:
    rows = db.custom_metrics().rows()
    return {(str(r["sample"]), *(f"{k}={v}" for k, v in r["labels"])): float(str(r["value"])) for r in rows}


def test_metrics_count_what_a_query_gives(db: millrace.Database) -> None:
    db.execute(
        """
        -- @metric: trades_total
        -- @metric_labels: k
        -- @metric_condition: v > 1
        -- @metric: price
        -- @metric_type: histogram
        -- @metric_field: p
        -- @metric_buckets: 1, 10, 100
        -- @metric: latest
        -- @metric_type: gauge
        -- @metric_field: v * 2
        -- @metric: volume
        -- @metric_field: v
        CREATE STREAM t AS SELECT k, v, p FROM s;
        """
    )
    db.push("s", [{"k": "a", "v": 1, "p": "1.00"}, {"k": "a", "v": 2, "p": "5"}])
    db.push("s", [{"k": "b", "v": 3, "p": "1000"}, {"k": None, "v": 4, "p": None}])
    assert samples(db) == {
        ("trades_total", "k=a"): 1,
        ("trades_total", "k=b"): 1,
        ("trades_total", "k="): 1,
        ("price_bucket", "le=1.0"): 1,
        ("price_bucket", "le=10.0"): 2,
        ("price_bucket", "le=100.0"): 2,
        ("price_bucket", "le=+Inf"): 3,
        ("price_sum",): 1006,
        ("price_count",): 3,
        ("latest",): 8,
        ("volume_total",): 10,
    }


def test_a_stream_with_metrics_is_counted_once_whoever_reads_it(db: millrace.Database) -> None:
    db.execute("-- @metric: n\nCREATE STREAM t AS SELECT k, v FROM s")
    with db.subscribe("t", "rows") as one, db.subscribe("t", "rows") as other:
        db.push("s", [{"k": "a", "v": 1, "p": None}])
        assert next(iter(one))["v"] == 1 and next(iter(other))["v"] == 1
    assert samples(db) == {("n_total",): 1}
    db.execute("DROP STREAM t")
    assert samples(db) == {}


def test_changes_are_counted_when_they_insert(db: millrace.Database) -> None:
    db.execute("-- @metric: n\nCREATE TABLE t AS SELECT k, count(*) AS c FROM s GROUP BY k")
    for _ in range(3):
        db.push("s", [{"k": "a", "v": 1, "p": None}])
    assert samples(db) == {("n_total",): 3}
    assert db.query("SELECT c FROM t").tuples() == [(3,)]


@pytest.mark.parametrize(
    ("lines", "code", "column"),
    [
        ("-- @metric: y\nSELECT k FROM s", "MR1084", 4),
        ("-- @metric: y\nCREATE SOURCE x (k INT) WITH ('connector' = 'push')", "MR1084", 4),
        ("-- @metrc: y\nSELECT k FROM s", "MR1080", 4),
        ("-- @metric_typ counter\nSELECT k FROM s", "MR1080", 4),
        ("-- @metric: 9y\nCREATE STREAM z AS SELECT k FROM s", "MR1081", 4),
        ("--   @metric_type: gauge\nCREATE STREAM z AS SELECT k FROM s", "MR1083", 6),
        ("-- @metric: y\n-- @metric_type: rate\nCREATE STREAM z AS SELECT k FROM s", "MR1081", 4),
        ("-- @metric: y\n-- @metric_type: gauge\nCREATE STREAM z AS SELECT k FROM s", "MR1083", 4),
        ("-- @metric: y\n-- @metric_field: k\nCREATE STREAM z AS SELECT k FROM s", "MR1085", 4),
        ("-- @metric: y\n-- @metric_field: nope\nCREATE STREAM z AS SELECT k FROM s", "MR1101", 4),
        (
            "-- @metric: y\n-- @metric_condition: count(*) > 1\nCREATE STREAM z AS SELECT k FROM s",
            "MR1121",
            4,
        ),
        ("-- @metric: y\n-- @metric_condition: v >\nCREATE STREAM z AS SELECT v FROM s", "MR1010", 4),
        ("-- @metric: y\n-- @metric_buckets: 1, 2\nCREATE STREAM z AS SELECT k FROM s", "MR1083", 4),
        ("-- @metric: y\n-- @metric_labels: job\nCREATE STREAM z AS SELECT k AS job FROM s", "MR1081", 4),
        ("-- @metric: y\n-- @metric: y\nCREATE STREAM z AS SELECT k FROM s", "MR1083", 4),
        ("-- @job_mode: simple\nSELECT k FROM s", "MR1928", 4),
        ("-- @enable_dlq: true\nSELECT k FROM s", "MR1928", 4),
        ("-- @partitioning_strategy: sticky\nSELECT k FROM s", "MR1928", 4),
        ("-- @num_partitions: none\nSELECT k FROM s", "MR1081", 4),
        ("-- @batch_size: 0\nSELECT k FROM s", "MR1081", 4),
        ("-- @job_name: a b\nSELECT k FROM s", "MR1081", 4),
    ],
)
def test_slips_are_refused_where_they_stand(
    db: millrace.Database, lines: str, code: str, column: int
) -> None:
    with pytest.raises(MillraceError) as caught:
        db.execute(lines)
    assert caught.value.code == code
    position = caught.value.position
    assert isinstance(position, Position) and position.column == column
    assert "z" not in db.names()


@pytest.mark.parametrize("prose", ["@author: me", "@metrics of it", "@todo", "@sla_tier: gold", "@v1.2: x"])
def test_prose_is_left_alone(db: millrace.Database, prose: str) -> None:
    db.execute(f"-- {prose}\nCREATE STREAM z AS SELECT k FROM s")


def test_two_queries_may_share_a_metric_of_one_shape(db: millrace.Database) -> None:
    for name in ("x", "y"):
        db.execute(f"-- @metric: n\nCREATE TABLE {name} AS SELECT k, v AS {name}v FROM s")
    db.push("s", [{"k": "a", "v": 1, "p": None}])
    assert samples(db) == {("n_total",): 2}
    with pytest.raises(MillraceError, match="MR1083"):
        db.execute("-- @metric: n\n-- @metric_labels: k\nCREATE TABLE z AS SELECT k FROM s")


def test_prometheus_reads_them(db: millrace.Database) -> None:
    db.execute(
        "-- @metric: n\n-- @metric_labels: k\n-- @metric_help: rows\nCREATE TABLE t AS SELECT k FROM s"
    )
    db.push("s", [{"k": 'a"\n', "v": 1, "p": None}])
    with Exposition(db, 0) as served:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        with pytest.raises(MillraceError, match="MR1555"), Exposition(db, served.port):
            pass
    assert '# HELP n_total rows\n# TYPE n_total counter\nn_total{k="a\\"\\n"} 1.0\n' in text
    assert 'millrace_node_rows_in_total{node="s"} 1.0' in text
    assert "millrace_rows_in_total 1.0" in text


SCRIPT = """
-- @job_name: fraud
-- @num_partitions: 3
-- @batch_size: 1_000
-- @partitioning_strategy: hash
CREATE SOURCE s (k BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
-- @metric: seen
CREATE STREAM t AS SELECT k FROM s;
CREATE SINK o FROM (SELECT k FROM s) INTO BLACKHOLE ();
"""


def test_defaults_of_a_job() -> None:
    wanted = defaults_of(SCRIPT, {})
    assert (wanted.job_name, wanted.partitions, wanted.settings) == ("fraud", 3, {"batch.max_rows": "1000"})
    spec = job_spec(
        SCRIPT, job="j", partitions=1, checkpoint_interval=1, variables={}, settings=wanted.settings
    )
    assert spec.batch_rows == 1000
    assert [type(n.spec).__name__ for n in spec.plan.nodes].count("MetricTap") == 1
    with pytest.raises(MillraceError, match="MR1082"):
        defaults_of(SCRIPT.replace("-- @metric: seen", "-- @job_name: other"), {})


def test_run_takes_the_batch_size(tmp_path: Path) -> None:
    from millrace.running import _opening

    assert _opening("-- @batch_size: 7\nCREATE SOURCE s (k INT) WITH ('connector' = 'push')", {}) == {
        "batch.max_rows": "7"
    }


def tap(metric: TappedMetric) -> MetricTap:
    found = decode(encode(MetricTap(SCHEMA, (metric,))))
    assert isinstance(found, MetricTap)
    return found


def run(metric: TappedMetric, batches: list[Batch]) -> list[Reading]:
    context = VertexContext("t", 1, wall_clock_us, VertexMetrics(), False)
    operator = tap(metric).build(context)
    for batch in batches:
        assert list(operator.process(0, batch)) == ([batch] if batch.num_rows else [])
    return operator.readings()


rows = st.lists(
    st.tuples(
        st.sampled_from([None, "", "a", "é"]),
        st.one_of(st.none(), st.floats(-5, 5), st.just(float("nan"))),
        st.sampled_from([-1, 1, 2]),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(rows, st.integers(1, 7), st.booleans())
def test_what_taps_count_is_what_a_loop_counts(
    rows: list[tuple[str | None, float | None, int]], size: int, labelled: bool
) -> None:
    def batch(part: list[tuple[str | None, float | None, int]]) -> Batch:
        data = pa.record_batch([[r[0] for r in part], [r[1] for r in part]], schema=SCHEMA)
        return Batch(data, np.array([r[2] for r in part], np.int64))

    batches = [batch(rows[at : at + size]) for at in range(0, len(rows), size)]
    labels = (("k", K),) if labelled else ()
    bounds = (-1.0, 0.0, 2.5)
    good = [
        (k or "" if labelled else "", v, w)
        for k, v, w in rows
        if w > 0 and v is not None and not math.isnan(v)
    ]

    def got(kind: TapKind, buckets: tuple[float, ...] = ()) -> dict[tuple[str, ...], float]:
        found = run(TappedMetric("m", kind, "", None, V, labels, buckets), batches)
        return {(r.name, *(v for _, v in r.labels)): r.value for r in found if r.value}

    wanted: dict[tuple[str, ...], float] = {}
    latest: dict[tuple[str, ...], float] = {}
    counts: dict[tuple[str, ...], float] = {}
    for k, v, w in good:
        key = (k,) if labelled else ()
        latest["m", *key] = v
        if v > 0:
            wanted["m_total", *key] = wanted.get(("m_total", *key), 0) + v * w
        counts["m_count", *key] = counts.get(("m_count", *key), 0) + w
        for bound in bounds:
            if v <= bound:
                place = ("m_bucket", *key, repr(bound))
                counts[place] = counts.get(place, 0) + w
    assert got(TapKind.COUNTER) == pytest.approx(wanted)
    assert got(TapKind.GAUGE) == pytest.approx({k: v for k, v in latest.items() if v})
    histogram = got(TapKind.HISTOGRAM, bounds)
    assert {k: v for k, v in histogram.items() if k[0] != "m_sum" and k[-1] != "+Inf"} == counts


def test_labels_without_bound_end_in_one_series() -> None:
    keys = [str(i) for i in range(SERIES_MAX + 50)]
    batch = Batch(pa.record_batch([keys, [1.0] * len(keys)], schema=SCHEMA))
    found = run(TappedMetric("m", TapKind.COUNTER, "", labels=(("k", K),)), [batch])
    assert len(found) == SERIES_MAX + 1
    assert {r.value for r in found if r.labels == (("k", OTHER),)} == {50}
