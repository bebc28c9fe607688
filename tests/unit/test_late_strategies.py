"""What becomes of late rows: dropped, kept, counted in the next open window, or corrected into their own."""

import datetime
import random
from collections import Counter

import pytest

import millrace
from millrace.errors import MillraceError

SOURCE = """CREATE SOURCE s (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'push')"""
START = datetime.datetime(2026, 1, 1)
TUMBLE = "SELECT k, window_start, sum(v) AS n FROM s GROUP BY k, TUMBLE(ts, INTERVAL '10' SECOND)"


def at(ms: int) -> datetime.datetime:
    return START + datetime.timedelta(milliseconds=ms)


def rows_of(seed: int) -> list[tuple[str, int, int]]:
    rng = random.Random(seed)
    now, rows = 0, []
    for _ in range(120):
        now += rng.randrange(0, 3_000)
        rows.append(
            (rng.choice("ab"), rng.randrange(10), max(0, now - rng.choice((0, 0, 500, 15_000, 40_000))))
        )
    return rows


def expected(
    rows: list[tuple[str, int, int]], size: int, slide: int
) -> Counter[tuple[str, datetime.datetime]]:
    """Sums by key and window; a row whose windows are all over counts at the watermark. Times are ms."""
    found: Counter[tuple[str, datetime.datetime]] = Counter()
    most = None
    for k, v, ts in rows:
        mark = None if most is None else most - 1_000 - 0.001
        last_end = ts // slide * slide + size
        if mark is not None and last_end <= mark:
            ts = int(mark // 1)
        first = ts // slide * slide
        for start in range(first, ts - size, -slide):
            if mark is None or start + size > mark:
                found[k, at(start)] += v
        most = ts if most is None else max(most, ts)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("size", "slide"), [(10_000, 10_000), (10_000, 5_000)])
def test_late_rows_count_in_the_next_open_window(seed: int, size: int, slide: int) -> None:
    rows, rng = rows_of(seed), random.Random(seed)
    window = f"HOP(ts, INTERVAL '{slide // 1000}' SECOND, INTERVAL '{size // 1000}' SECOND)"
    with millrace.connect() as db:
        db.execute(SOURCE)
        db.execute(
            "CREATE TABLE t WITH ('late.data.strategy' = 'include_in_next') AS "
            f"SELECT k, window_start, sum(v) AS n FROM s GROUP BY k, {window}"
        )
        start = 0
        while start < len(rows):
            end = start + rng.choice((1, 3, 20))
            db.push("s", [{"k": k, "v": v, "ts": at(ts)} for k, v, ts in rows[start:end]])
            start = end
        db.end("s")
        found = {(k, w): n for k, w, n in db.query("SELECT * FROM t").tuples()}
        assert found == dict(expected(rows, size, slide))
        assert db.progress().late_rows == 0
    if size == slide:
        assert sum(found.values()) == sum(v for _, v, _ in rows)  # type: ignore[misc]


def test_late_rows_correct_the_window_they_belong_to() -> None:
    with millrace.connect() as db:
        db.execute(SOURCE)
        db.execute(
            f"CREATE TABLE t WITH ('late.data.strategy' = 'update_previous', 'allowed.lateness' = '1m') AS {TUMBLE}"
        )
        for ms, v in ((1_000, 1), (30_000, 2), (2_000, 5), (200_000, 0), (3_000, 9)):
            db.push("s", {"k": "a", "v": v, "ts": at(ms)})
        rows = {row["window_start"]: row["n"] for row in db.query("SELECT * FROM t")}
        assert rows[at(0)] == 6 and rows[at(30_000)] == 2
        assert db.progress().late_rows == 1


@pytest.mark.parametrize(
    ("options", "query", "code"),
    [
        ("'late.data.strategy' = 'include_in_next'", "SELECT k FROM s", "MR1324"),
        ("'late.data.strategy' = 'update_previous', 'allowed.lateness' = '1h'", "SELECT k FROM s", "MR1324"),
        ("'late.data.strategy' = 'update_previous'", TUMBLE, "MR1349"),
        ("'late.data.strategy' = 'update_previous', 'allowed.lateness' = 'soon'", TUMBLE, "MR1030"),
        ("'allowed.lateness' = '1h'", TUMBLE, "MR1349"),
        ("'late.data.strategy' = 'nonsense'", TUMBLE, "MR1349"),
        (
            "'late.data.strategy' = 'include_in_next'",
            "SELECT k, sum(v) AS n FROM s GROUP BY k, SESSION(ts, INTERVAL '5' SECOND)",
            "MR1954",
        ),
        (
            "'late.data.strategy' = 'include_in_next'",
            "SELECT k, sum(v) AS n FROM s GROUP BY k, TUMBLE(PROCTIME(), INTERVAL '5' SECOND)",
            "MR1324",
        ),
    ],
)
def test_a_strategy_that_can_not_be_followed_is_refused(options: str, query: str, code: str) -> None:
    with millrace.connect() as db:
        db.execute(SOURCE)
        with pytest.raises(MillraceError) as caught:
            db.execute(f"CREATE TABLE t WITH ({options}) AS {query}")
        assert caught.value.code == code
        assert caught.value.position is not None
