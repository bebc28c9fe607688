"""Split watermarks agree with a plain-Python model however rows are cut; the tracker never falls or stalls."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Invalid
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.operators.source import EventTime
from millrace.operators.watermarks import SplitWatermark, WatermarkTracker

MS = pa.timestamp("ms")
NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}


def model(
    values: list[int | None], unit: str, lag: int, limit: int | None, current: int = START_OF_TIME
) -> tuple[list[int], list[bool], int]:
    """(watermark before each row, whether the row is behind, watermark after all), all in µs."""
    marks, behind = [], []
    for value in values:
        marks.append(current)
        time = None if value is None else value * NANOSECONDS[unit] // 1000
        if time is None or time >= END_OF_TIME or (limit is not None and time > limit):
            behind.append(False)
            continue
        behind.append(time <= current)
        current = max(current, time - lag - 1)
    return marks, behind, current


def cut(values: list[int | None], cuts: list[int]) -> list[list[int | None]]:
    ends = sorted({min(c, len(values)) for c in cuts} | {0, len(values)})
    return [values[a:b] for a, b in itertools.pairwise(ends)]


times = st.one_of(
    st.none(), st.integers(0, 60), st.integers(0, 60), st.integers(-(2**63), 2**63 - 1), st.integers(90, 200)
)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(times, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    lag=st.sampled_from([0, 1, 3, 2_500, 4_000_000]),
    guarded=st.booleans(),
    typed=st.booleans(),
)
def test_lateness_is_that_of_the_model_whatever_the_cuts(
    values: list[int | None], cuts: list[int], unit: str, lag: int, guarded: bool, typed: bool
) -> None:
    type = pa.timestamp(unit) if typed else pa.int64()
    skew = 20 * NANOSECONDS[unit] // 1000
    now = 60 * NANOSECONDS[unit] // 1000
    limit = now + skew if guarded else None
    marks, behind, end = model(values, unit, lag, limit)
    event_time = EventTime(0, lag, None, skew if guarded else None, unit)
    split = SplitWatermark(event_time, type)
    seen: list[bool] = []
    for part in cut(values, cuts):
        restored = SplitWatermark(event_time, type)
        restored.restore(split.capture())
        split = restored
        column = pa.concat_arrays([pa.array([7], type), pa.array(part, type)]).slice(1)
        observed = split.observe(column, now)
        nulls = [v is None for v in part]
        assert (observed.timeless.to_pylist() if observed.timeless else [False] * len(part)) == nulls
        start = len(seen)
        if observed.row_watermarks is None:
            assert not any(behind[start : start + len(part)])
        else:
            assert observed.row_watermarks.tolist() == marks[start : start + len(part)]
        seen += behind[start : start + len(part)]
    assert split.current == end
    assert len(seen) == len(values)


def test_rows_in_order_give_no_row_watermarks() -> None:
    split = SplitWatermark(EventTime(0, 0), MS)
    assert split.current == START_OF_TIME
    assert split.observe(pa.array([1, 1, 2], MS)).row_watermarks is None
    assert split.current == 1_999
    assert split.observe(pa.array([2], MS)).row_watermarks is None
    marks = split.observe(pa.array([1, 3], MS)).row_watermarks
    assert marks is not None and marks.tolist() == [1_999, 1_999]
    assert split.current == 2_999


def test_row_far_in_the_future_does_not_move_the_watermark() -> None:
    split = SplitWatermark(EventTime(0, 0, future_skew=300_000_000), MS)
    now = 1_000_000_000
    split.observe(pa.array([999_000, 2_000_000, 999_500], MS), now)
    assert split.current == 999_499_999
    split.observe(pa.array([1_300_000], MS), now)
    assert split.current == 1_299_999_999


def test_empty_batch_moves_nothing() -> None:
    split = SplitWatermark(EventTime(0), MS)
    assert split.observe(pa.array([], MS)).row_watermarks is None
    assert split.observe(pa.array([None], MS)).row_watermarks is None
    assert split.current == START_OF_TIME


def test_wrong_type_and_unit_are_refused() -> None:
    with pytest.raises(Invalid, match="MR1250"):
        SplitWatermark(EventTime(0), pa.string())
    with pytest.raises(Invalid, match="MR1251"):
        SplitWatermark(EventTime(0, unit="h"), pa.int64())


def test_split_that_joins_late_counts_rows_below_the_promise_as_behind() -> None:
    split = SplitWatermark(EventTime(0, 0), MS)
    split.raise_to(4_999)
    marks = split.observe(pa.array([3, 5, 6], MS)).row_watermarks
    assert marks is not None and marks.tolist() == [4_999, 4_999, 4_999]
    assert split.current == 5_999


def test_tracker_is_the_least_of_splits_that_deliver() -> None:
    tracker = WatermarkTracker(idle_timeout=100)
    tracker.add("a")
    tracker.add("b")
    assert tracker.deliver("a", 50) == START_OF_TIME
    assert tracker.deliver("b", 20) == 20
    assert tracker.deliver("b", 70) == 50
    assert tracker.end("a") == 70
    assert tracker.end("b") == 70
    assert tracker.finish() == END_OF_TIME


def test_idle_split_stops_holding_back_only_after_polls_in_vain() -> None:
    tracker = WatermarkTracker(idle_timeout=100)
    tracker.add("a")
    tracker.add("b")
    tracker.deliver("a", 50)
    assert (
        tracker.silent("b", 1_000) == START_OF_TIME
    )  # the clock of silence starts at the first poll in vain
    assert tracker.silent("b", 1_099) == START_OF_TIME
    assert tracker.silent("b", 1_100) == 50
    assert tracker.is_idle("b")
    assert tracker.deliver("b", 10) == 50
    assert not tracker.is_idle("b")
    assert tracker.deliver("a", 90) == 50
    assert tracker.deliver("b", 80) == 80


def test_split_that_waits_its_turn_is_not_idle() -> None:
    tracker = WatermarkTracker(idle_timeout=1)
    tracker.add("a")
    tracker.add("b")
    tracker.deliver("a", 10**9)
    assert tracker.current == START_OF_TIME


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_when_all_are_silent_the_greatest_holds_in_any_order(order: tuple[str, str]) -> None:
    tracker = WatermarkTracker(idle_timeout=10)
    tracker.add("a")
    tracker.add("b")
    tracker.deliver("a", 100)
    tracker.deliver("b", 50)
    for at, split in enumerate(order):
        tracker.silent(split, at * 1000)
        tracker.silent(split, at * 1000 + 10)
    assert tracker.current == 100


def test_split_restored_at_the_end_of_its_input_does_not_stall() -> None:
    tracker = WatermarkTracker(idle_timeout=10)
    tracker.restore(40)
    tracker.add("a", 40)
    tracker.add("caught-up", 60)
    assert tracker.current == 40
    assert tracker.deliver("a", 55) == 55
    tracker.silent("caught-up", 0)
    assert tracker.silent("caught-up", 10) == 55
    assert tracker.deliver("a", 100) == 100


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_tracker_never_falls_and_never_passes_a_split_that_delivers(data: st.DataObject) -> None:
    tracker = WatermarkTracker(idle_timeout=5)
    alive: dict[str, int] = {}
    active: set[str] = set()
    now, before = 0, START_OF_TIME
    for step in range(data.draw(st.integers(1, 30))):
        now += data.draw(st.integers(0, 4))
        action = data.draw(st.sampled_from(["add", "deliver", "deliver", "silent", "end"]))
        if action == "add" or not alive:
            name = f"s{step}"
            alive[name] = tracker.current
            tracker.add(name, tracker.current)
            active.add(name)
        else:
            name = data.draw(st.sampled_from(sorted(alive)))
            if action == "deliver":
                alive[name] = max(alive[name], tracker.current) + data.draw(st.integers(0, 9))
                tracker.deliver(name, alive[name])
                active.add(name)
            elif action == "silent":
                tracker.silent(name, now)
                if tracker.is_idle(name):
                    active.discard(name)
            else:
                tracker.end(name)
                del alive[name]
                active.discard(name)
        assert tracker.current >= before
        before = tracker.current
        if active:
            assert tracker.current <= min(alive[name] for name in active)


def test_kernel_and_ordered_path_agree_on_a_large_batch() -> None:
    values = np.sort(np.random.default_rng(3).integers(0, 10**6, 10_000))
    ordered, shuffled = SplitWatermark(EventTime(0, 10), MS), SplitWatermark(EventTime(0, 10), MS)
    ordered.observe(pa.array(values, MS))
    shuffled.observe(pa.array(values[::-1].copy(), MS))
    assert ordered.current == shuffled.current == int(values[-1]) * 1000 - 11
