"""MATCH_RECOGNIZE in SQL: what matches, what is told of it, what is refused, and what is kept."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import millrace
from millrace.errors import BadData, MillraceError
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.planner.session import Planner

SOURCE = """CREATE SOURCE s (k STRING, v BIGINT, x DOUBLE, d DECIMAL(10, 2), w DECIMAL(30, 2), ts TIMESTAMP(3), WATERMARK FOR ts)
WITH ('connector' = 'push');"""
START = datetime.datetime(2024, 1, 1)


def rows_of(values: list[Any], column: str = "v", key: str = "a") -> list[dict[str, Any]]:
    return [
        {"k": key, column: value, "ts": START + datetime.timedelta(seconds=at)}
        for at, value in enumerate(values)
    ]


def matched(clauses: str, rows: list[dict[str, Any]], source: str = SOURCE) -> list[tuple[Any, ...]]:
    with millrace.connect() as db:
        db.execute(f"{source} CREATE TABLE m AS SELECT * FROM s MATCH_RECOGNIZE ({clauses})")
        db.push("s", rows)
        db.end("s")
        db.wait()
        return sorted(db.query("SELECT * FROM m").tuples(), key=str)


def spec_of(clauses: str) -> MatchRecognize:
    plan, _ = Planner().compile(f"{SOURCE} SELECT * FROM s MATCH_RECOGNIZE ({clauses})")
    (spec,) = (node.spec for node in plan.nodes if isinstance(node.spec, MatchRecognize))
    return spec


V_SHAPE = """PARTITION BY k ORDER BY ts MEASURES A.v AS top, LAST(B.v) AS bottom, LAST(C.v) AS up, count(*) AS n
ONE ROW PER MATCH AFTER MATCH SKIP {skip} PATTERN (A B+ C+) DEFINE B AS B.v < PREV(B.v), C AS C.v > PREV(C.v)"""


def test_v_shape_and_where_the_search_goes_on() -> None:
    rows = rows_of([10, 9, 8, 9, 12, 8, 7, 10, 3])
    assert matched(V_SHAPE.format(skip="PAST LAST ROW"), rows) == [("a", 10, 8, 12, 5), ("a", 8, 7, 10, 3)]
    assert matched(V_SHAPE.format(skip="TO LAST C"), rows) == [("a", 10, 8, 12, 5), ("a", 12, 7, 10, 4)]
    assert matched(V_SHAPE.format(skip="TO FIRST B"), rows) == [
        ("a", 10, 8, 12, 5),
        ("a", 12, 7, 10, 4),
        ("a", 8, 7, 10, 3),
        ("a", 9, 8, 12, 4),
    ]
    assert matched(V_SHAPE.format(skip="TO NEXT ROW"), rows) == matched(
        V_SHAPE.format(skip="TO FIRST B"), rows
    )


def test_keys_are_matched_apart() -> None:
    rows = [row for pair in zip(rows_of([3, 1, 2]), rows_of([3, 1, 5], key="ß"), strict=True) for row in pair]
    assert matched(V_SHAPE.format(skip="PAST LAST ROW"), rows) == [("a", 3, 1, 2, 3), ("ß", 3, 1, 5, 3)]


def test_all_rows_running_final_and_hidden() -> None:
    clauses = """PARTITION BY k ORDER BY ts MEASURES CLASSIFIER() AS c, MATCH_NUMBER() AS n, sum(B.v) AS s, FINAL sum(B.v) AS f,
        FINAL LAST(v) AS e, FIRST(v) AS b, FINAL CLASSIFIER() AS l
        ALL ROWS PER MATCH SHOW EMPTY MATCHES PATTERN (A {- B -} B C) DEFINE C AS C.v > 5"""
    time = [START + datetime.timedelta(seconds=at) for at in range(8)]
    assert [row[:9] for row in matched(clauses, rows_of([1, 2, 3, 9, 4, 4, 4, 8]))] == [
        ("a", time[0], "A", 1, None, 5, 9, 1, "C"),
        ("a", time[2], "B", 1, 5, 5, 9, 1, "C"),
        ("a", time[3], "C", 1, 5, 5, 9, 1, "C"),
        ("a", time[4], "A", 2, None, 8, 8, 4, "C"),
        ("a", time[6], "B", 2, 8, 8, 8, 4, "C"),
        ("a", time[7], "C", 2, 8, 8, 8, 4, "C"),
    ]


def test_greedy_and_reluctant_and_alternatives() -> None:
    def told(pattern: str) -> list[tuple[Any, ...]]:
        clauses = f"ORDER BY ts MEASURES count(A.*) AS a, count(B.*) AS b PATTERN ({pattern}) DEFINE A AS v < 5, B AS v > 2"
        return matched(clauses, rows_of([1, 3, 4, 9, 1]))

    assert told("A+ B") == [(3, 1)]
    assert told("A+? B") == [(1, 1), (1, 1)]
    assert told("A{2} B") == [(2, 1)]
    assert told("(A | B){4}") == [(3, 1)]
    assert told("(B | A) B??") == [(0, 1), (0, 1), (0, 1), (1, 0), (1, 0)]


def test_a_match_ends_where_within_ends() -> None:
    clauses = "ORDER BY ts MEASURES first(v) AS f, last(v) AS l PATTERN (A B* C) {within} DEFINE B AS B.v > A.v - 5, C AS C.v < A.v - 5"
    rows = rows_of([10, 9, 8, 7, 1, 10, 2])
    assert matched(clauses.format(within=""), rows) == [(10, 1), (10, 2)]
    assert matched(clauses.format(within="WITHIN INTERVAL '4' SECOND"), rows) == [(10, 2), (9, 1)]


def test_times_decimals_floats_and_strings_of_other_rows() -> None:
    rows = [
        {
            "k": f"n{at}",
            "v": v,
            "x": v / 2,
            "d": Decimal(v) / 4,
            "w": Decimal(10**20 + v),
            "ts": START + datetime.timedelta(seconds=v * v),
        }
        for at, v in enumerate([1, 2, 3, 5, 4, 7])
    ]
    rows.sort(key=lambda row: row["ts"])

    def told(condition: str) -> list[tuple[Any, ...]]:
        return matched(
            f"ORDER BY ts MEASURES A.k || '-' || last(B.k) AS s PATTERN (A B+) DEFINE B AS {condition}", rows
        )

    assert told("B.ts - PREV(B.ts) < INTERVAL '8' SECOND") == [("n0-n4",)]
    assert told("B.ts < A.ts + INTERVAL '10' SECOND") == [("n0-n2",), ("n4-n3",)]
    assert told("B.d < A.d + 0.75 AND B.d > A.d") == [("n0-n2",), ("n4-n3",)]
    assert told("B.x <= A.x * 1.5 + 0.5") == [("n0-n1",), ("n2-n3",)]
    assert told("B.w < A.w * 1.0 + 2") == [("n0-n1",), ("n2-n4",)]
    assert told("B.v < avg(B.v) + 0.6 AND upper(B.k) <> 'N4'") == [("n0-n2",), ("n4-n3",)]
    assert told("CASE WHEN count(B.k) = 1 THEN B.v ELSE -B.v END BETWEEN 0 AND 4") == [("n0-n1",), ("n2-n4",)]
    assert told("coalesce(LAST(B.v, 1), A.v) = B.v - 1 AND B.v IN (A.v + 1, A.v + 2, 9)") == [
        ("n0-n2",),
        ("n4-n3",),
    ]
    assert told("(A.v + B.v) / 2 = 2 OR abs(A.v - B.v) % 3 = 2") == [("n1-n4",), ("n3-n5",)]


def test_further_order_columns_decide_among_equal_times() -> None:
    rows = [{"k": "a", "v": v, "ts": START} for v in (2, 3, 1)] + [
        {"k": "a", "v": 0, "ts": START + datetime.timedelta(seconds=1)}
    ]
    clauses = (
        "ORDER BY ts{more} MEASURES first(v) AS f, last(v) AS l PATTERN (A B*) DEFINE B AS B.v > PREV(B.v)"
    )
    assert matched(clauses.format(more=", v"), rows) == [(0, 0), (1, 3)]
    assert matched(clauses.format(more=", v DESC"), rows) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert matched(clauses.format(more=""), rows) == [(0, 0), (1, 1), (2, 3)]


def test_subsets_stand_for_their_variables() -> None:
    clauses = """ORDER BY ts MEASURES sum(U.v) AS s, first(U.v) AS f, last(W.v) AS l AFTER MATCH SKIP TO LAST U
        PATTERN (A B C) SUBSET U = (B, C), W = (A, B) DEFINE C AS C.v > first(W.v)"""
    assert matched(clauses, rows_of([1, 2, 3, 4])) == [(5, 2, 2)]


def test_measures_of_any_aggregate_and_next() -> None:
    clauses = """ORDER BY ts MEASURES stddev_pop(v) AS s, count(DISTINCT A.v) AS d, max(k) AS k, array_agg(A.v) AS l,
        NEXT(LAST(A.v), 2) AS n PATTERN (A{3}) DEFINE A AS v < 9"""
    assert matched(clauses, rows_of([1, 1, 4, 9, 7])) == [(2**0.5, 2, "a", [1, 1, 4], 7)]


def test_rows_that_are_null_or_late_or_do_not_compute() -> None:
    clauses = "ORDER BY ts MEASURES A.v AS a, B.v AS b PATTERN (A B) DEFINE B AS A.v / B.v > 1"
    rows = [*rows_of([8, 0, 4, 1]), {"k": "a", "v": 1, "ts": None}]
    with millrace.connect() as db:
        db.execute(f"{SOURCE} CREATE TABLE m AS SELECT * FROM s MATCH_RECOGNIZE ({clauses})")
        db.push("s", rows)
        db.push("s", rows_of([5]))
        db.end("s")
        db.wait()
        assert db.query("SELECT * FROM m").tuples() == [(4, 1)]
        codes = sorted(str(row["code"]) for row in db.dead_letters().rows())
        assert codes == ["MR1520", "MR2022"]
        (late,) = (r["late_rows"] for r in db.metrics().rows() if r["operator"] == "MatchRecognize")
        assert late == 1
    with pytest.raises(BadData, match="divides by zero"):
        matched(clauses, rows_of([8, 0]), SOURCE.replace("'push'", "'push', 'bad_rows' = 'fail'"))


def test_explain_and_time_go_on() -> None:
    text = Planner().explain(
        f"""{SOURCE} SELECT window_start, count(*) AS n FROM (SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts
        MEASURES MATCH_ROWTIME() AS t, PREV(A.v) AS p, MATCH_NUMBER() AS m PATTERN (A B) WITHIN INTERVAL '5' SECOND
        DEFINE B AS v > 2)) GROUP BY TUMBLE(t, INTERVAL '1' MINUTE)"""
    )
    for part in (
        "partition: k",
        "pattern: A B",
        "within: 5 s",
        "after match: skip past last row",
        "event time t",
        "append-only",
        "the last 1 row of each key, the number of matches of each key, kept for ever",
        "exchange: by k",
    ):
        assert part in " ".join(text.replace("│", " ").split()), text


def test_only_what_is_read_is_decoded_and_kept() -> None:
    spec = spec_of("PARTITION BY k ORDER BY ts MEASURES A.v AS a PATTERN (A B) DEFINE B AS x > 2")
    assert spec.input.names == ["k", "v", "x", "ts"]
    whole = spec_of("PARTITION BY k ORDER BY ts PATTERN (A B) DEFINE B AS x > 2")
    assert whole.input.names == ["k", "x", "ts"]
    shown = spec_of("PARTITION BY k ORDER BY ts ALL ROWS PER MATCH PATTERN (A B) DEFINE B AS x > 2")
    assert shown.output_schema.names == ["k", "ts", "v", "x", "d", "w"]


@pytest.mark.parametrize(
    ("clauses", "code"),
    [
        ("ORDER BY ts PATTERN (A*) DEFINE A AS v > 1", "MR1356"),
        ("ORDER BY ts AFTER MATCH SKIP TO LAST B PATTERN (A B?) DEFINE A AS v > 1", "MR1351"),
        ("ORDER BY ts AFTER MATCH SKIP TO FIRST A PATTERN (A B) DEFINE A AS v > 1", "MR1352"),
        ("ORDER BY ts AFTER MATCH SKIP TO LAST A PATTERN (A+ B) DEFINE A AS v > 1", "MR1352"),
        ("ORDER BY v PATTERN (A) DEFINE A AS v > 1", "MR1354"),
        ("ORDER BY ts DESC PATTERN (A) DEFINE A AS v > 1", "MR1354"),
        ("PATTERN (A) DEFINE A AS v > 1", "MR1354"),
        ("PARTITION BY v + 1 ORDER BY ts PATTERN (A) DEFINE A AS v > 1", "MR1159"),
        ("ORDER BY ts PATTERN (A B) DEFINE C AS v > 1", "MR1160"),
        ("ORDER BY ts MEASURES count(Z.*) AS n PATTERN (A) DEFINE A AS v > 1", "MR1160"),
        ("ORDER BY ts AFTER MATCH SKIP TO LAST Z PATTERN (A) DEFINE A AS v > 1", "MR1160"),
        ("ORDER BY ts PATTERN (A) SUBSET U = (Z) DEFINE A AS v > 1", "MR1160"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS v > 1, a AS v > 2", "MR1161"),
        ("ORDER BY ts PATTERN (A) SUBSET A = (A) DEFINE A AS v > 1", "MR1161"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS PREV(PREV(v)) > 1", "MR1162"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS PREV(v, k) > 1", "MR1162"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS MATCH_NUMBER() > 1", "MR1162"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS FINAL LAST(v) > 1", "MR1162"),
        ("ORDER BY ts PATTERN (A B) DEFINE B AS LAST(A.v + B.v) > 1", "MR1163"),
        ("ORDER BY ts MEASURES A.v AS x, A.v AS X PATTERN (A) DEFINE A AS v > 1", "MR1144"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS nothing > 1", "MR1101"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS v", "MR1110"),
        ("ORDER BY ts MEASURES NULL AS n PATTERN (A) DEFINE A AS v > 1", "MR1110"),
        ("ORDER BY ts MEASURES sum(v) OVER () AS n PATTERN (A) DEFINE A AS v > 1", "MR1157"),
        ("ORDER BY ts PATTERN (A{2000} B{2000}) DEFINE A AS v > 1", "MR1902"),
        ("ORDER BY ts PATTERN (A) DEFINE A AS " + " + ".join(["count(v)"] * 32) + " > 1", "MR1902"),
        ("ORDER BY ts PATTERN (A B) DEFINE B AS A.k = B.k", "MR1904"),
        ("ORDER BY ts PATTERN (A B) DEFINE B AS A.w + B.w > 1", "MR1904"),
        ("ORDER BY ts PATTERN (A B) DEFINE B AS stddev_pop(A.v) > 1", "MR1904"),
        ("ORDER BY ts MEASURES CLASSIFIER(A) AS c PATTERN (A) DEFINE A AS v > 1", "MR1938"),
        ("ORDER BY ts MEASURES string_agg(k, ',') AS c PATTERN (A) DEFINE A AS v > 1", "MR1938"),
    ],
)
def test_refused_with_a_place(clauses: str, code: str) -> None:
    with pytest.raises(MillraceError) as caught:
        spec_of(clauses)
    assert caught.value.code == code, caught.value
    assert caught.value.position is not None


def test_a_changelog_is_refused() -> None:
    with pytest.raises(MillraceError) as caught:
        Planner().compile(
            f"{SOURCE} CREATE TABLE c AS SELECT k, max(ts) AS ts FROM s GROUP BY k;"
            "SELECT * FROM c MATCH_RECOGNIZE (ORDER BY ts PATTERN (A) DEFINE A AS k > 'a')"
        )
    assert caught.value.code == "MR1353"


class World:
    vnodes = 8

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def batch(spec: MatchRecognize, keys: list[str], values: list[int], ticks: list[int]) -> Batch:
    columns = {
        "k": pa.array(keys),
        "v": pa.array(values, pa.int64()),
        "ts": pa.array(ticks, pa.timestamp("ms")),
    }
    return Batch(pa.RecordBatch.from_arrays([columns[n] for n in spec.input.names], schema=spec.input))


def test_state_is_given_back() -> None:
    spec = spec_of(
        "PARTITION BY k ORDER BY ts MEASURES sum(B.v) AS s PATTERN (A B* C) WITHIN INTERVAL '1' MINUTE"
        " DEFINE A AS v = 0, C AS v < 0"
    )
    operator = spec.build(World())
    extra = operator.metrics.extra  # type: ignore[attr-defined]
    rows, keys = 50_000, 5_000
    ids = list(range(rows))
    operator.process(0, batch(spec, [str(i % keys) for i in ids], [i // keys for i in ids], ids))
    operator.on_watermark(51_000_000)
    assert extra["state_rows"] == rows
    held = extra["state_bytes"]
    operator.on_watermark(59_000_000)
    assert extra["state_rows"] == rows
    operator.on_watermark(200_000_000)
    assert extra["state_rows"] == 0
    assert extra["state_bytes"] * 10 < held
    assert operator.capture(changes=False)["rows"].rows.num_rows == 0


def test_long_matches_and_many_of_them() -> None:
    spec = spec_of(
        "PARTITION BY k ORDER BY ts MEASURES count(*) AS n, sum(A.v) AS s AFTER MATCH SKIP TO NEXT ROW PATTERN (A+ B) DEFINE B AS v < 0"
    )
    operator = spec.build(World())
    rows = 700
    operator.process(0, batch(spec, ["a"] * rows, [1] * (rows - 1) + [-1], list(range(rows))))
    (out,) = operator.on_watermark(END_OF_TIME)
    assert out.data.column("n").to_pylist() == list(range(rows, 1, -1))
    assert out.data.column("s").to_pylist() == list(range(rows - 1, 0, -1))


def test_a_pattern_of_rows_alone_is_searched_in_linear_time() -> None:
    spec = spec_of(
        "PARTITION BY k ORDER BY ts MEASURES count(*) AS n PATTERN (A+ B+ C) DEFINE A AS v > 0, B AS v > 1, C AS v < 0"
    )
    operator = spec.build(World())
    rows = 20_000
    operator.process(0, batch(spec, ["a"] * rows, [2] * rows, list(range(rows))))
    assert operator.on_watermark(END_OF_TIME) == []
