"""The console shows appended rows as lines and a changelog as a table; blackhole and subscription take all rows."""

from __future__ import annotations

import datetime
import io
import sys
import threading
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.errors import Invalid, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.blackhole import BlackholeSink
from millrace.operators.connectors.console import ConsoleSpec, LineSink, TableSink, shown
from millrace.operators.connectors.result_table import KEYS_KEPT, ResultTable
from millrace.operators.connectors.screen import Screen
from millrace.operators.connectors.subscription import BatchQueue, Full, SubscriptionSpec, forget, queue
from millrace.operators.sink import Changelog
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("name", pa.string()), ("n", pa.int64())])


class Surroundings:
    vnodes = 256

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def batch(rows: list[tuple[str | None, int]], weights: list[int] | None = None) -> Batch:
    data = pa.RecordBatch.from_pylist([{"name": a, "n": n} for a, n in rows], schema=SCHEMA)
    return Batch(data, None if weights is None else np.array(weights, np.int64))


def test_appended_rows_are_lines_under_one_heading() -> None:
    out = io.StringIO()
    sink = LineSink(ConsoleSpec(SCHEMA, label="bars"), out)
    sink.write(batch([]))
    sink.write(batch([("ann", 1), (None, 200)]))
    sink.write(batch([("a\nb", 3)]))
    sink.close()
    assert out.getvalue().splitlines() == [
        "bars",
        "name | n",
        "-----+----",
        "ann  |   1",
        "NULL | 200",
        "a\\nb |   3",
    ]


def test_changelog_without_terminal_is_marked_lines() -> None:
    out = io.StringIO()
    sink = LineSink(ConsoleSpec(SCHEMA, Changelog.RETRACT, ("name",)), out)
    sink.write(batch([("a", 1)]))
    sink.write(batch([("a", 1), ("a", 2)], [-1, 1]))
    assert out.getvalue().splitlines()[2:] == ["+ a    | 1", "- a    | 1", "+ a    | 2"]


def test_changelog_on_a_terminal_is_a_table_that_ends_with_what_holds() -> None:
    out, surroundings = Terminal(), Surroundings()
    sink = TableSink(ConsoleSpec(SCHEMA, Changelog.UPSERT, ("name",), "counts", rows=2), surroundings, out)
    sink.write(batch([("[a]", 1), ("b", 1), ("c", 1)]))
    surroundings.time = 50_000
    sink.write(batch([("[a]", 7), ("b", 1)], [1, -1]))
    sink.publish(1, b"")
    sink.close()
    last = out.getvalue().rsplit("counts", 1)[1]
    assert "[a]" in last and "7" in last and "c" in last and "b" not in last.replace("\x1b[", "")


def test_tables_on_one_screen_stay_in_their_places() -> None:
    out = Terminal()
    shared = Screen(out)
    one, other = object(), object()
    shared.draw(one, "a1\n")
    shared.draw(other, "b1\nb2\n")
    shared.draw(one, "a2\n")
    assert out.getvalue().endswith("\r\x1b[3A\x1b[Ja2\nb1\nb2\n")
    shared.release(one)
    shared.draw(other, "b3\n")
    shared.release(other)
    assert out.getvalue().endswith("\x1b[Ja2\nb3\n")
    shared.draw(object(), "c\n")
    assert out.getvalue().endswith("b3\n\r\x1b[Kc\n")


def test_table_is_drawn_at_most_ten_times_a_second() -> None:
    out, surroundings = Terminal(), Surroundings()
    sink = TableSink(ConsoleSpec(SCHEMA, Changelog.UPSERT, ("name",), "counts"), surroundings, out)
    for i in range(100):
        surroundings.time = i * 1_000
        sink.write(batch([("a", i)]))
    sink.close()
    assert out.getvalue().count("counts") <= 4


def test_build_chooses_by_terminal_and_changelog(monkeypatch: pytest.MonkeyPatch) -> None:
    upsert = ConsoleSpec(SCHEMA, Changelog.UPSERT, ("name",))
    assert isinstance(upsert.build(Surroundings(), 0), LineSink)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(upsert.build(Surroundings(), 0), TableSink)
    assert isinstance(ConsoleSpec(SCHEMA).build(Surroundings(), 0), LineSink)


def test_values_as_people_read_them() -> None:
    assert shown(datetime.datetime(2024, 1, 2, 3, 4)) == "2024-01-02 03:04:00"
    assert shown({"a": [1, None], "b": True}) == "{a: [1, NULL], b: true}"
    assert shown(0.1 + 0.2) == "0.3" and shown(b"\x01") == "01"


changes = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from([1, 1, -1])))


@given(changes, st.integers(1, 5))
def test_retract_table_is_the_multiset_of_rows(given_changes: list[tuple[str, int, int]], size: int) -> None:
    table, model = ResultTable([0], upsert=False), Counter[tuple[str, str]]()
    rows = []
    for name, n, weight in given_changes:
        row = (name, str(n))
        if weight < 0 and not model[row]:
            continue
        model[row] += weight
        rows.append((row, weight))
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        table.apply([row for row, _ in part], [weight for _, weight in part])
    assert Counter(table.latest(1000)) == +model and table.count == model.total()


@given(changes, st.integers(1, 5))
def test_upsert_table_is_the_last_row_of_each_key(
    given_changes: list[tuple[str, int, int]], size: int
) -> None:
    table, model = ResultTable([0], upsert=True), dict[str, int]()
    for at in range(0, len(given_changes), size):
        part = given_changes[at : at + size]
        table.apply([(name, str(n)) for name, n, _ in part], [weight for _, _, weight in part])
    for name, n, weight in given_changes:
        model.pop(name, None)
        if weight > 0:
            model[name] = n
    assert dict(table.latest(1000)) == {name: str(n) for name, n in model.items()}


def test_rows_keep_their_place_and_the_latest_are_shown() -> None:
    table = ResultTable([0], upsert=False)
    table.apply([("a", "1"), ("b", "1"), ("c", "1")], [1, 1, 1])
    table.apply([("a", "1"), ("a", "2")], [-1, 1])
    assert table.latest(3) == [("a", "2"), ("b", "1"), ("c", "1")]
    assert table.latest(2) == [("a", "2"), ("c", "1")]
    table.apply([(str(i), "x") for i in range(KEYS_KEPT + 5)], [1] * (KEYS_KEPT + 5))
    assert table.count == KEYS_KEPT


def test_blackhole_counts() -> None:
    spec = registry.sink_spec("blackhole", {}, SCHEMA, Changelog.RETRACT, ())
    sink = spec.build(Surroundings(), 0)
    assert isinstance(sink, BlackholeSink)
    sink.write(batch([("a", 1), ("b", 2)]))
    sink.write(batch([("a", 1)], [-1]))
    assert (sink.rows, sink.batches) == (3, 2) and decode(encode(spec)) == spec


def test_console_options() -> None:
    spec = registry.sink_spec(
        "print",
        {"print-identifier": "x", "rows": "5", "stream": "stderr"},
        SCHEMA,
        Changelog.UPSERT,
        ("name",),
    )
    assert spec == ConsoleSpec(SCHEMA, Changelog.UPSERT, ("name",), "x", 5, "stderr")
    assert decode(encode(spec)) == spec
    with pytest.raises(Invalid, match="MR1460"):
        registry.sink_spec("console", {"rows": "0"}, SCHEMA, Changelog.APPEND, ())


def test_subscription_hands_batches_to_its_reader() -> None:
    spec = registry.sink_spec("subscription", {"name": "s1"}, SCHEMA, Changelog.APPEND, ())
    assert isinstance(spec, SubscriptionSpec) and decode(encode(spec)) == spec
    sink = spec.build(Surroundings(), 0)
    reader = queue("s1")
    sink.write(batch([("a", 1)]))
    sink.write(batch([("b", 2)]))
    assert reader.rows == 2
    sink.close()
    seen = []
    while (got := reader.get()) is not None:
        seen += got.data["n"].to_pylist()
    assert seen == [1, 2] and reader.ended and reader.rows == 0
    forget("s1")
    assert queue("s1") is not reader
    forget("s1")


def test_full_queue_makes_the_writer_wait() -> None:
    waiting = BatchQueue("q", max_rows=2)
    writer = threading.Thread(
        target=lambda: [waiting.put(batch([("a", i)])) for i in range(50)] and waiting.end()
    )
    writer.start()
    seen = []
    while (got := waiting.get()) is not None:
        assert waiting.rows <= 2
        seen += got.data["n"].to_pylist()
    writer.join(10)
    assert seen == list(range(50)) and not writer.is_alive()


def test_full_queue_refuses_and_tells_the_reader_after_what_waits() -> None:
    full = BatchQueue("q", max_rows=2, full=Full.REFUSE)
    assert full.put(batch([("a", 1), ("b", 2), ("c", 3)]))
    assert not full.put(batch([("d", 4)]))
    assert not full.put(batch([("e", 5)]))
    got = full.get()
    assert got is not None and got.num_rows == 3
    with pytest.raises(Unavailable, match="MR1510"):
        full.get()


def test_reader_that_closes_lets_the_writer_go_on() -> None:
    closed = BatchQueue("q", max_rows=1)
    assert closed.put(batch([("a", 1)]))
    writer = threading.Thread(target=lambda: closed.put(batch([("b", 2)])))
    writer.start()
    closed.close()
    writer.join(10)
    assert not writer.is_alive() and closed.ended and closed.get() is None
    assert BatchQueue("q").get(timeout=0.0) is None
