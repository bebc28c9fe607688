"""Functions of dates, times, timestamps and intervals against DuckDB, or PostgreSQL's or Flink's documented answer."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.function_oracle import Constant as C
from tests.unit.function_oracle import check, evaluate

from millrace.errors import Invalid
from millrace.operators.functions.row_error import RowError

TIMES = pa.array(
    [dt.datetime(2024, 2, 29, 13, 5, 59, 123456), dt.datetime(1969, 12, 31, 23, 59, 59, 999999), None, dt.datetime(1970, 1, 1),
     dt.datetime(2000, 1, 1, 0, 0, 1), dt.datetime(2021, 1, 3, 12), dt.datetime(1582, 10, 15, 1, 2, 3), dt.datetime(9999, 12, 31, 23, 59, 59),
     dt.datetime(2020, 12, 31, 6, 30)], pa.timestamp("us"))  # fmt: skip
MILLIS = TIMES.cast(pa.timestamp("ms"), safe=False)
DATES = pa.array([dt.date(2024, 2, 29), dt.date(1969, 12, 31), None, dt.date(1, 1, 1), dt.date(2000, 1, 31)])
OTHER = pa.array([dt.date(2024, 1, 31), dt.date(1970, 1, 1), dt.date(2000, 1, 1), dt.date(1, 12, 31), None])
CLOCK = pa.array([dt.time(1, 2, 3, 456789), None, dt.time(23, 59, 59)], pa.time64("us"))
STEPS = pa.array([90_061_500_000, -1, None, 0, 86_400_000_000], pa.duration("us"))
MONTHS = pa.array([(14, 3, 4_000_000_000), None, (-1, 0, 0)], pa.month_day_nano_interval())
LATER = pa.array([dt.datetime(2024, 3, 1), dt.datetime(1970, 1, 1), dt.datetime(2000, 1, 1), dt.datetime(1969, 12, 30, 23, 59),
                  dt.datetime(2001, 1, 1), dt.datetime(2021, 3, 2, 12), dt.datetime(1582, 11, 15), dt.datetime(2000, 1, 1), None],
                 pa.timestamp("us"))  # fmt: skip
FIELDS = ["year", "quarter", "month", "week", "day", "dow", "isodow", "doy", "isoyear", "decade", "century", "millennium", "hour", "minute",
          "second", "millisecond", "microsecond"]  # fmt: skip
TRUNCATIONS = ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year", "decade", "century",
               "millennium"]  # fmt: skip

CASES: list[tuple[str, list[Any], str | list[Any]]] = [
    *[("extract", [C(f), TIMES], f"extract({f} FROM a)") for f in FIELDS],
    *[("date_part", [C(f), DATES[:3]], f"extract({f} FROM a)") for f in FIELDS[:12]],
    *[(f, [MILLIS], f"extract({f} FROM a)") for f in FIELDS],
    *[("extract", [C(f), CLOCK], f"extract({f} FROM a)") for f in ("hour", "minute", "second", "microsecond")],
    ("extract", [C("epoch"), STEPS], [90061, 0, None, 0, 86400]),
    ("extract", [C("hour"), STEPS], [1, 0, None, 0, 0]),
    ("extract", [C("day"), STEPS], [1, 0, None, 0, 1]),
    ("extract", [C("month"), MONTHS], [2, None, -1]),
    ("extract", [C("year"), MONTHS], [1, None, 0]),
    ("epoch", [TIMES], "epoch(a)"),
    ("epoch_ms", [TIMES[2:]], "epoch_ms(a)"),
    ("epoch_ms", [TIMES[:2]], [1709211959123, -1]),
    ("epoch_us", [TIMES], "epoch_us(a)"),
    ("epoch_ns", [TIMES[:6]], "epoch_ns(a)"),
    ("epoch_ms", [[0, 1_700_000_000_123, None, -1]], "epoch_ms(a)"),
    ("dayofweek", [DATES], [5, 4, None, 2, 2]),
    ("weekday", [DATES], "dayofweek(a)"),
    ("dayofyear", [DATES], "dayofyear(a)"),
    ("dayofmonth", [DATES], "day(a)"),
    ("dayname", [DATES], "dayname(a)"),
    ("monthname", [DATES], "monthname(a)"),
    ("last_day", [DATES], "last_day(a)"),
    *[("date_trunc", [C(u), TIMES], f"date_trunc('{u}', a)") for u in TRUNCATIONS[:-2]],
    ("date_trunc", [C("century"), TIMES[:2]], [dt.datetime(2001, 1, 1), dt.datetime(1901, 1, 1)]),
    ("date_trunc", [C("millennium"), TIMES[:2]], [dt.datetime(2001, 1, 1), dt.datetime(1001, 1, 1)]),
    ("date_trunc", [C("hour"), MILLIS], "date_trunc('hour', a)"),
    ("date_trunc", [C("month"), DATES], "date_trunc('month', a)::TIMESTAMP"),
    ("date_floor", [TIMES, C("day")], "date_trunc('day', a)"),
    ("date_ceil", [C("hour"), TIMES[:2]], [dt.datetime(2024, 2, 29, 14), dt.datetime(1970, 1, 1)]),
    ("date_ceil", [C("month"), TIMES[:4]], [dt.datetime(2024, 3, 1), dt.datetime(1970, 1, 1), None, dt.datetime(1970, 1, 1)]),
    ("date_bin", [C(900_000_000, pa.duration("us")), TIMES[:5]], "time_bucket(INTERVAL 15 MINUTE, a)"),
    ("date_bin", [C(900_000_000, pa.duration("us")), TIMES[:5], C(dt.datetime(2020, 1, 1, 0, 1), pa.timestamp("us"))],
     "time_bucket(INTERVAL 15 MINUTE, a, TIMESTAMP '2020-01-01 00:01:00')"),
    ("timestampadd", [C("day"), [1, -1, None, 31], TIMES[:4]], [dt.datetime(2024, 3, 1, 13, 5, 59, 123456), dt.datetime(1969, 12, 30, 23, 59, 59, 999999), None, dt.datetime(1970, 2, 1)]),
    ("timestampadd", [C("month"), C(12), TIMES[:4]], "a + INTERVAL 12 MONTH"),
    ("timestampadd", [C("millisecond"), C(5), MILLIS], "a + INTERVAL 5 MILLISECOND"),
    ("add_months", [DATES, C(1)], "a + INTERVAL 1 MONTH"),
    ("date_add", [DATES, C(2)], "a + 2"),
    ("date_sub", [DATES[:3], C(2)], "a - 2"),
    *[("timestampdiff", [C(u), TIMES, LATER], f"date_sub('{u}', a, b)") for u in TRUNCATIONS[:10]],
    *[("date_diff", [C(u), TIMES, LATER], f"date_diff('{u}', a, b)") for u in TRUNCATIONS[:-2] if u != "week"],
    ("date_diff", [C("week"), TIMES[4:6], LATER[4:6]], [53, 9]),
    ("date_diff", [C("century"), TIMES[4:6], LATER[4:6]], [1, 0]),
    ("datediff", [C("month"), TIMES, LATER], "date_diff('month', a, b)"),
    ("datediff", [DATES, OTHER], [29, -1, None, -364, None]),
    ("age", [LATER[:2], pa.array([dt.datetime(2023, 1, 15, 12), dt.datetime(1969, 12, 31)], pa.timestamp("us"))],
     [pa.MonthDayNano([13, 14, 12 * 3600 * 10**9]), pa.MonthDayNano([0, 1, 0])]),
    ("+", [TIMES[:6], C(90_000_000, pa.duration("us"))], "a + INTERVAL 90 SECOND"),
    ("+", [C(90_000_000, pa.duration("us")), TIMES[:6]], "a + INTERVAL 90 SECOND"),
    ("-", [TIMES, C(1, pa.duration("us"))], "a - INTERVAL 1 MICROSECOND"),
    ("-", [MILLIS, C(1_000, pa.duration("us"))], "a - INTERVAL 1 MILLISECOND"),
    ("-", [TIMES, C((1, 0, 0), pa.month_day_nano_interval())], "a - INTERVAL 1 MONTH"),
    ("+", [DATES, C((13, 2, 0), pa.month_day_nano_interval())], "a + INTERVAL 13 MONTH + INTERVAL 2 DAY"),
    ("+", [DATES, C(3_600_000_000, pa.duration("us"))], "a + INTERVAL 1 HOUR"),
    ("+", [DATES, C("1 day 2 hours")], "a + INTERVAL 26 HOUR"),
    ("+", [DATES, C(3)], "a + 3"),
    ("-", [DATES, OTHER], "a - b"),
    ("-", [DATES, C("2024-02-01")], "a - DATE '2024-02-01'"),
    ("-", [TIMES[:4], LATER[:4]], [dt.timedelta(days=-1, seconds=47159, microseconds=123456), dt.timedelta(microseconds=-1), None, dt.timedelta(days=1, seconds=60)]),
    ("+", [CLOCK, C(3_600_000_000, pa.duration("us"))], [dt.time(2, 2, 3, 456789), None, dt.time(0, 59, 59)]),
    ("+", [STEPS, STEPS], [dt.timedelta(microseconds=180_123_000_000), dt.timedelta(microseconds=-2), None, dt.timedelta(0), dt.timedelta(days=2)]),
    ("*", [STEPS, C(2)], [dt.timedelta(microseconds=180_123_000_000), dt.timedelta(microseconds=-2), None, dt.timedelta(0), dt.timedelta(days=2)]),
    ("*", [C(1.5), STEPS[2:]], [None, dt.timedelta(0), dt.timedelta(days=1.5)]),
    ("/", [STEPS[2:], C(2)], [None, dt.timedelta(0), dt.timedelta(days=0.5)]),
    ("-", [STEPS], [dt.timedelta(microseconds=-90_061_500_000), dt.timedelta(microseconds=1), None, dt.timedelta(0), dt.timedelta(days=-1)]),
    ("<", [STEPS, C("1 hour")], [False, True, None, True, False]),
    (">=", [TIMES, C("2000-01-01 00:00:01")], "a >= TIMESTAMP '2000-01-01 00:00:01'"),
    ("=", [DATES, C("1969-12-31")], "a = DATE '1969-12-31'"),
    ("<", [TIMES[:5], DATES], "a < b"),
    ("greatest", [TIMES, LATER], "greatest(a, b)"),
    ("make_date", [[2024, 1, None], [2, 12, 1], [29, 31, 1]], "make_date(a, b, c)"),
    ("make_time", [[1, None], [2, 3], [3.5, 4.0]], "make_time(a, b, c)"),
    ("make_timestamp", [[2024], [2], [29], [1], [2], [3.25]], "make_timestamp(a, b, c, d, e, f)"),
    ("make_timestamp", [[0, 1_000_001, None]], "make_timestamp(a)"),
    ("to_seconds", [[1, None]], [dt.timedelta(seconds=1), None]),
    ("to_days", [[1.5, None]], [dt.timedelta(days=1.5), None]),
    ("to_microseconds", [[1, None]], [dt.timedelta(microseconds=1), None]),
    ("to_milliseconds", [[1]], [dt.timedelta(milliseconds=1)]),
    ("to_minutes", [[1]], [dt.timedelta(minutes=1)]),
    ("to_hours", [[1]], [dt.timedelta(hours=1)]),
    ("to_weeks", [[-1]], [dt.timedelta(weeks=-1)]),
    ("to_months", [[14, None]], [pa.MonthDayNano([14, 0, 0]), None]),
    ("to_years", [[2]], [pa.MonthDayNano([24, 0, 0])]),
    ("date", [TIMES], "a::DATE"),
    ("strftime", [TIMES, C("%Y-%m-%d %H:%M:%S.%f %j %a %A %b %B %p %I %y %u %w %%")],
     "strftime(a, '%Y-%m-%d %H:%M:%S.%f %j %a %A %b %B %p %I %y %u %w %%')"),
    ("strftime", [C("%d/%m/%Y"), DATES[:3]], "strftime(a, '%d/%m/%Y')"),
    ("date_format", [TIMES, C("yyyy-MM-dd HH:mm:ss")], "strftime(a, '%Y-%m-%d %H:%M:%S')"),
    ("date_format", [MILLIS[:6], C("yyyyMMdd'T'HHmmss.SSS")], "strftime(a, '%Y%m%dT%H%M%S.%g')"),
    ("date_format", [TIMES, C("yyyy-MM-dd")], "strftime(a, '%Y-%m-%d')"),
    ("date_format", [TIMES[:2], ["HH:mm", "%Y"]], ["13:05", "1969"]),
    ("to_char", [TIMES[:3], C('YYYY-MM-DD HH24:MI:SS.MS "at" HH12 AM Mon Day Q')],
     ["2024-02-29 13:05:59.123 at 01 PM Feb Thursday 1", "1969-12-31 23:59:59.999 at 11 PM Dec Wednesday 4", None]),
    ("strptime", [["2024-02-29 13:05:59", None, "1969-12-31 00:00:01"], C("%Y-%m-%d %H:%M:%S")], "strptime(a, '%Y-%m-%d %H:%M:%S')"),
    ("strptime", [["29 Feb 24 01:05 PM"], C("%d %b %y %I:%M %p")], [dt.datetime(2024, 2, 29, 13, 5)]),
    ("to_timestamp", [["2024-02-29 13:05:59.25", "2024-02-29", None]], [dt.datetime(2024, 2, 29, 13, 5, 59, 250000), dt.datetime(2024, 2, 29), None]),
    ("to_timestamp", [["29.02.2024 13h"], C("dd.MM.yyyy HH'h'")], [dt.datetime(2024, 2, 29, 13)]),
    ("to_timestamp", [["05 Dec 2000"], C("DD Mon YYYY")], [dt.datetime(2000, 12, 5)]),
    ("to_timestamp", [[0, 1.5, None]], "to_timestamp(a)"),
    ("to_timestamp_ltz", [[1500, None], C(3)], [dt.datetime(1970, 1, 1, 0, 0, 1, 500000, dt.UTC), None]),
    ("to_date", [["2024-02-29", None]], [dt.date(2024, 2, 29), None]),
    ("to_date", [["29/02/2024"], C("dd/MM/yyyy")], [dt.date(2024, 2, 29)]),
    ("from_unixtime", [[0, 1_700_000_000, None]], ["1970-01-01 00:00:00", "2023-11-14 22:13:20", None]),
    ("from_unixtime", [[44], C("mm:ss")], ["00:44"]),
    ("unix_timestamp", [["1970-01-01 00:00:44"]], [44]),
    ("unix_timestamp", [["01.01.1970 00:44"], C("dd.MM.yyyy mm:ss")], [44]),
    ("at time zone", [TIMES[:2], C("Europe/Vienna")], "a AT TIME ZONE 'Europe/Vienna'"),
    ("timezone", [C("America/New_York"), TIMES[:4].cast(pa.timestamp("us", "UTC"))], "a AT TIME ZONE 'America/New_York'"),
    ("convert_tz", [["1970-01-01 00:00:00", None], C("UTC"), C("America/Los_Angeles")], ["1969-12-31 16:00:00", None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "expected"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_function_gives_the_reference_answer(
    name: str, arguments: list[Any], expected: str | list[Any]
) -> None:
    check(name, arguments, expected)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("make_date", [[2024, 2023], [2, 2], [29, 29]]),
        ("to_timestamp", [["2024-01-01", "soon"]]),
        ("strptime", [["2024", "x"], C("%Y")]),
        ("to_date", [["01/01/2024", "2024-01-01"], C("dd/MM/yyyy")]),
        ("timestampadd", [C("day"), [1, 2**60], TIMES[3:5]]),
        ("convert_tz", [["2024-01-01 00:00:00"] * 2, ["UTC", "Nowhere/At_All"], C("UTC")]),
    ],
)
def test_bad_value_is_the_error_of_its_row(name: str, arguments: list[Any]) -> None:
    with pytest.raises(RowError) as caught:
        evaluate(name, arguments)
    assert caught.value.rows.tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("extract", [C("fortnight"), TIMES], "MR1215"),
        ("date_trunc", [C("parsec"), TIMES], "MR1215"),
        ("date_format", [TIMES, C("yyyy bbbb")], "MR1216"),
        ("strftime", [TIMES, C("%Q")], "MR1216"),
        ("at time zone", [TIMES, C("Nowhere/At_All")], "MR1215"),
    ],
)
def test_bad_constant_is_refused(name: str, arguments: list[Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        evaluate(name, arguments)
    assert caught.value.code == code
