"""TEMPORAL PROBE JOIN is DuckDB's as-of join at every offset: cut at random, out of order, restored, corrected."""

import random

import pyarrow as pa
import pytest
from tests.property.same_answer import check, ours, theirs

from millrace.errors import Invalid
from millrace.planner.session import Planner

TIME = pa.timestamp("ms")
ROWS, BOUND_MS = 120, 2_000
WATERMARKS = dict.fromkeys("tq", "(WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)")
DECLARED = "".join(
    f"CREATE SOURCE {name} (k VARCHAR, ts TIMESTAMP(3), {value} BIGINT, WATERMARK FOR ts) WITH ('connector' = 'push');"
    for name, value in (("t", "v"), ("q", "bid"))
)
OFFSETS = [
    ("LIST (0s, 1s, 5s)", [0, 1000, 5000]),
    ("LIST (-5s, 300ms, 0s, 300ms)", [-5000, 0, 300]),
    ("RANGE FROM -2s TO 2s STEP 1s", [-2000, -1000, 0, 1000, 2000]),
    ("LIST (INTERVAL '-1' SECOND, INTERVAL '-3' SECOND)", [-1000, -3000]),
]


def _table(value: str, rng: random.Random, kind: pa.DataType = TIME) -> pa.Table:
    times = sorted(rng.sample(range(60_000), ROWS))
    rows = [(rng.choice([*"abc", None]), ts, at) for at, ts in enumerate(times)]
    rows.sort(key=lambda row: row[1] + rng.randrange(BOUND_MS))
    keys, stamps, numbers = zip(*rows, strict=True)
    ts = pa.array(stamps, pa.int64()).cast(kind)
    return pa.table({"k": pa.array(keys, pa.string()), "ts": ts, value: pa.array(numbers, pa.int64())})


def _tables(seed: int) -> dict[str, pa.Table]:
    rng = random.Random(seed)
    return {"t": _table("v", rng), "q": _table("bid", rng)}


def _batch(offsets: list[int], columns: str) -> str:
    each = f"SELECT t.*, o, t.ts + o * INTERVAL 1 MILLISECOND AS p FROM t, (SELECT unnest({offsets}) AS o)"
    return f"SELECT {columns} FROM ({each}) AS l ASOF LEFT JOIN q ON l.k = q.k AND l.p >= q.ts"


@pytest.mark.parametrize(("said", "offsets"), OFFSETS)
@pytest.mark.parametrize("emit", ["", " EMIT CHANGES"])
def test_each_offset_is_an_asof_join(said: str, offsets: list[int], emit: str) -> None:
    for seed, on in enumerate(("ON (k)", "ON t.k = q.k TIMESTAMPS (t.ts, q.ts)")):
        sql = f"SELECT v, p.offset_ms AS o, probe_ts AS p, bid FROM t TEMPORAL PROBE JOIN q {on} {said} AS p{emit}"
        check(sql, _tables(seed), (seed,), _batch(offsets, "v, o, p, bid"), watermarks=WATERMARKS)


@pytest.mark.parametrize(("said", "offsets"), OFFSETS)
def test_windows_behind_it_lose_no_row(said: str, offsets: list[int]) -> None:
    probed = f"SELECT ts, o.offset_ms, bid FROM t TEMPORAL PROBE JOIN (SELECT k, ts AS at, bid FROM q) AS r ON (k) {said} AS o"
    sql = f"SELECT window_start, offset_ms, count(*) AS n, sum(bid) AS s FROM ({probed}) GROUP BY offset_ms, TUMBLE(ts, INTERVAL '5' SECOND)"
    inner = _batch(offsets, "l.ts AS ts, o, bid")
    oracle = f"SELECT time_bucket(INTERVAL '5 seconds', ts) AS w, o, count(*), sum(bid)::BIGINT FROM ({inner}) GROUP BY 1, 2"
    tables = _tables(3)
    assert ours(sql, tables, random.Random(1), watermarks=WATERMARKS) == theirs(oracle, tables)


def test_times_in_milliseconds() -> None:
    rng = random.Random(9)
    tables = {"t": _table("v", rng, pa.int64()), "q": _table("bid", rng, pa.int64())}
    each = "SELECT t.*, o, t.ts + o AS p FROM t, (SELECT unnest([-1000, 2000]) AS o)"
    oracle = f"SELECT v, o, p, bid FROM ({each}) AS l ASOF LEFT JOIN q ON l.k = q.k AND l.p >= q.ts"
    sql = "SELECT v, offset_ms, probe_ts, bid FROM t TEMPORAL PROBE JOIN q ON (k) LIST (-1s, 2s)"
    check(sql, tables, (0,), oracle, watermarks=WATERMARKS)


def test_explain_says_which_times_are_asked_for() -> None:
    shown = Planner().explain(
        DECLARED + "SELECT v, bid FROM t TEMPORAL PROBE JOIN q ON (k) LIST (-1s, 2s) AS p"
    )
    assert "(from ts -1 s to ts +2 s)" in shown and "event time" not in shown.split("AsofJoin")[0]


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("ON (k) LIST (1s) AS t", "MR1113"),
        ("ON (k) RANGE FROM 2s TO 1s STEP 1s", "MR1055"),
        ("ON (k) RANGE FROM 0s TO 2s STEP 0s", "MR1032"),
        ("ON (k) RANGE FROM 0s TO 2h STEP 1s", "MR1055"),
        ("ON (k) LIST (100us)", "MR1055"),
        ("ON (k)", "MR1010"),
        ("ON (k) TIMESTAMPS (v, ts) LIST (1s)", "MR1142"),
        ("ON (k) TIMESTAMPS (ts) LIST (1s)", "MR1044"),
        ("ON t.k = q.k AND v < bid LIST (1s)", "MR1943"),
    ],
)
def test_what_is_refused(tail: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        Planner().compile(DECLARED + f"SELECT v, bid FROM t TEMPORAL PROBE JOIN q {tail}")
    assert caught.value.code == code, caught.value
