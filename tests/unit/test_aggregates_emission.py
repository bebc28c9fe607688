"""When groups are told: changes, upserts, intervals, every record, at the end, by window end; and by functions of users."""

import datetime
import pickle

import numpy as np
import pyarrow as pa
import pytest
from tests.aggregates_oracle import Recorder, Store, built, call, fold, upserts

from millrace.errors import Invalid
from millrace.operators.aggregates import (
    CHANGES,
    EVERY_RECORD,
    FINAL,
    ON_CLOSE,
    AggregateCall,
    Emission,
    EmissionKind,
    GroupAggregate,
    Hop,
    Tumble,
    WindowAggregate,
    WindowAssign,
    aggregate_functions,
    register_aggregate,
    resolve_aggregate,
)
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.sink import Changelog

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64()), ("e", pa.timestamp("ms"))])
UPSERT = Emission(EmissionKind.CHANGES, upsert=True)
EVERY_SECOND = Emission(EmissionKind.INTERVAL, 1_000_000)


def rows(
    *cells: tuple[object, ...], weights: list[int] | None = None, marks: list[int] | None = None
) -> Batch:
    columns = [
        pa.array(column, field.type) for column, field in zip(zip(*cells, strict=True), SCHEMA, strict=False)
    ]
    schema = pa.schema(list(SCHEMA)[: len(columns)])
    return Batch(
        pa.RecordBatch.from_arrays(columns, schema=schema),
        None if weights is None else np.array(weights),
        None if marks is None else np.array(marks),
    )


def spec(emission: Emission, keys: tuple[int, ...] = (0,), **options: object) -> GroupAggregate:
    schema = options.pop("input", pa.schema(list(SCHEMA)[:2]))
    assert isinstance(schema, pa.Schema)
    calls = (call(schema, "count"), call(schema, "sum", "v"))
    names = (*(schema.field(k).name for k in keys), "n", "s")
    return GroupAggregate(schema, keys, calls, names, emission, **options)  # type: ignore[arg-type]


def sent(batches: list[Batch]) -> list[tuple[object, ...]]:
    """(weight, values…) in order."""
    out = []
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        out += [(w, *row.values()) for w, row in zip(weights, batch.data.to_pylist(), strict=True)]
    return out


def test_changes_take_the_old_row_back_and_leave_unchanged_groups_out() -> None:
    operator = built(spec(CHANGES), Recorder())
    assert sent(operator.process(0, rows(("a", 1), ("b", 2), ("a", 3)))) == [(1, "a", 2, 4), (1, "b", 1, 2)]
    assert sent(operator.process(0, rows(("b", 5)))) == [(-1, "b", 1, 2), (1, "b", 2, 7)]
    assert operator.on_watermark(END_OF_TIME) == []


def test_a_group_whose_values_do_not_change_is_not_told() -> None:
    schema = pa.schema(list(SCHEMA)[:2])
    operator = built(
        GroupAggregate(schema, (0,), (call(schema, "max", "v"),), ("k", "m"), CHANGES), Recorder()
    )
    assert sent(operator.process(0, rows(("a", 3), ("n", None)))) == [(1, "a", 3), (1, "n", None)]
    assert operator.process(0, rows(("a", 2), ("n", None))) == []


def test_distinct_is_a_group_without_calls() -> None:
    schema = pa.schema(list(SCHEMA)[:1])
    operator = built(GroupAggregate(schema, (0,), (), ("k",), CHANGES, retracting_input=True), Recorder())
    first = operator.process(0, rows(("a",), ("a",), (None,)))
    assert sent(first) == [(1, "a"), (1, None)]
    assert sent(operator.process(0, rows(("a",), ("a",), weights=[-1, -1]))) == [(-1, "a")]


def test_upsert_leaves_old_rows_out_but_removes_what_is_gone() -> None:
    operator = built(spec(UPSERT, retracting_input=True), Recorder())
    assert sent(operator.process(0, rows(("a", 1), ("b", 2)))) == [(1, "a", 1, 1), (1, "b", 1, 2)]
    assert sent(operator.process(0, rows(("a", 2)))) == [(1, "a", 2, 3)]
    gone = sent(operator.process(0, rows(("b", 2), weights=[-1])))
    assert [(w, k) for w, k, *_ in gone] == [(-1, "b")]
    assert operator.capture(changes=False)["groups"].rows.num_rows == 1


def test_a_group_comes_and_goes_within_a_batch() -> None:
    operator = built(spec(CHANGES, retracting_input=True), Recorder())
    assert operator.process(0, rows(("a", 1), ("a", 1), weights=[1, -1])) == []
    assert operator.capture(changes=False)["groups"].rows.num_rows == 0


def test_every_record_tells_the_running_value_in_order() -> None:
    operator = built(spec(EVERY_RECORD), Recorder())
    out = operator.process(0, rows(("a", 1), ("b", 2), ("a", 3), ("a", None)))
    assert sent(out) == [(1, "a", 1, 1), (1, "b", 1, 2), (1, "a", 2, 4), (1, "a", 3, 4)]


def test_an_interval_tells_each_changed_group_once() -> None:
    operator = built(spec(EVERY_SECOND, retracting_input=True), Recorder())
    assert operator.on_time(0) == []
    assert operator.process(0, rows(("a", 1), ("b", 1))) == []
    assert operator.process(0, rows(("a", 1), ("c", 1))) == []
    assert operator.process(0, rows(("c", 1), weights=[-1])) == []
    assert sent(operator.on_time(1_000_000)) == [(1, "a", 2, 2), (1, "b", 1, 1)]
    assert operator.process(0, rows(("b", 1), weights=[-1])) == []
    assert operator.process(0, rows(("a", 0), ("a", 0), weights=[1, -1])) == []
    assert sent(operator.on_time(1_500_000)) == []
    assert sent(operator.on_time(2_000_000)) == [(-1, "b", 1, 1)]
    assert operator.capture(changes=False)["groups"].rows.num_rows == 1


def test_an_interval_goes_on_after_restore() -> None:
    operator = built(spec(EVERY_SECOND), Recorder())
    operator.on_time(0)
    operator.process(0, rows(("a", 1)))
    operator.on_time(1_000_000)
    operator.process(0, rows(("a", 2), ("b", 1)))
    store = Store()
    store.apply(operator, changes=True)
    again = store.load(built(spec(EVERY_SECOND), Recorder()))
    again.process(0, rows(("a", 3)))
    told = sent(again.on_watermark(END_OF_TIME))
    assert sorted(map(str, told)) == sorted(map(str, [(-1, "a", 1, 1), (1, "a", 3, 6), (1, "b", 1, 1)]))


@pytest.mark.parametrize("emission", [CHANGES, FINAL, EVERY_SECOND, UPSERT])
def test_a_global_aggregate_has_a_row_without_any_input(emission: Emission) -> None:
    operator = built(spec(emission, keys=()), Recorder())
    assert sent(operator.on_watermark(END_OF_TIME)) == [(1, 0, None)]
    operator = built(spec(emission, keys=()), Recorder())
    out = operator.process(0, rows(("a", 1), ("b", 2))) + operator.on_watermark(END_OF_TIME)
    assert fold(out) == {(2, 3): 1}
    operator = built(spec(CHANGES, keys=(), retracting_input=True), Recorder())
    out = operator.process(0, rows(("a", 1))) + operator.process(0, rows(("a", 1), weights=[-1]))
    assert fold(out) == {(0, None): 1}


def test_groups_of_a_window_close_with_it() -> None:
    keys = (0, 2)
    operator = built(spec(ON_CLOSE, keys=keys, input=SCHEMA, window_end=1), context := Recorder())
    early, late = datetime.datetime(1970, 1, 1, 0, 0, 1), datetime.datetime(1970, 1, 1, 0, 0, 2)
    operator.process(0, rows(("a", 1, early), ("a", 2, late), ("b", 4, early)))
    assert operator.on_watermark(999_999) == []
    assert sent(operator.on_watermark(1_000_000)) == [(1, "a", early, 1, 1), (1, "b", early, 1, 4)]
    assert operator.process(0, rows(("a", 9, early), ("a", 3, late), marks=[0, 0])) == []
    assert context.late_rows == 1
    assert sent(operator.on_watermark(END_OF_TIME)) == [(1, "a", late, 2, 5)]


def test_expired_groups_of_a_changelog_are_forgotten() -> None:
    operator = built(
        spec(CHANGES, keys=(0, 2), input=SCHEMA, window_end=1, retracting_input=True), Recorder()
    )
    end = datetime.datetime(1970, 1, 1, 0, 0, 1)
    operator.process(0, rows(("a", 1, end), ("b", 1, end)))
    operator.process(0, rows(("b", 1, end), weights=[-1]))
    assert operator.on_watermark(1_000_000) == []
    assert operator.capture(changes=False)["groups"].rows.num_rows == 0


def test_windows_of_processing_time_close_by_the_clock() -> None:
    schema = pa.schema(list(SCHEMA)[:2])
    window = WindowAggregate(
        schema, None, Tumble(1_000_000), (0,), (call(schema, "count"),), ("k", "s", "e", "n"), ON_CLOSE
    )
    context = Recorder()
    operator = built(window, context)
    context.time = 1_500_000
    operator.process(0, rows(("a", 1), ("a", 2)))
    assert operator.on_watermark(10**9) == [] and operator.on_time(1_999_999) == []
    (batch,) = operator.on_time(2_000_000)
    assert batch.data.schema == window.output_schema
    assert [r["n"] for r in batch.data.to_pylist()] == [2]


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.timestamp("ns")]
)
def test_bounds_have_the_type_of_the_time_column(kind: pa.DataType) -> None:
    schema = pa.schema([("t", kind)])
    unit = {pa.int64(): 1000, pa.timestamp("s"): 1}.get(
        kind, 10**6 if kind == pa.timestamp("us", "UTC") else 10**9
    )
    data = pa.RecordBatch.from_arrays([pa.array([-1 * unit, 59 * unit, 60 * unit]).cast(kind)], schema=schema)
    calls = (call(schema, "count"),)
    for window in (Tumble(60_000_000), Hop(60_000_000, 20_000_000)):
        operator = built(WindowAggregate(schema, 0, window, (), calls, ("s", "e", "n"), ON_CLOSE), Recorder())
        operator.process(0, Batch(data))
        out = operator.on_watermark(END_OF_TIME)
        bounds = [
            (row[0], row[1])
            for b in out
            for row in zip(*(c.cast(pa.int64()).to_pylist() for c in b.data.columns[:2]), strict=True)
        ]
        assert {end - start for start, end in bounds} == {60 * unit}
        assert out[0].data.schema.field(0).type == kind
    (assigned,) = built(WindowAssign(schema, 0, Tumble(60_000_000)), Recorder()).process(0, Batch(data))
    last = assigned.data.column(3).cast(pa.int64()).to_pylist()
    assert all(
        -unit < value - end < 0 or unit == 1
        for value, end in zip(last, [0, 60 * unit, 120 * unit], strict=True)
    )


def test_a_row_without_time_is_a_dead_letter() -> None:
    schema = pa.schema([("t", pa.timestamp("ms"))])
    context = Recorder()
    operator = built(
        WindowAggregate(
            schema, 0, Tumble(1000), (), (call(schema, "count"),), ("n",), ON_CLOSE, (False, False)
        ),
        context,
    )
    operator.process(
        0, Batch(pa.RecordBatch.from_arrays([pa.array([None, 1], schema.field(0).type)], schema=schema))
    )
    assert [(b.num_rows, code) for b, code in context.dead] == [(1, "MR2021")]
    assert sent(operator.on_watermark(END_OF_TIME)) == [(1, 1)]


def test_memory_of_closed_windows_is_given_back() -> None:
    schema = pa.schema([("t", pa.int64()), ("k", pa.int64())])
    calls = (call(schema, "count"), call(schema, "count", "k", distinct=True))
    for window in (Tumble(1_000_000), Hop(2_000_000, 1_000_000)):
        operator = built(
            WindowAggregate(schema, 0, window, (1,), calls, ("k", "s", "e", "n", "d"), ON_CLOSE), Recorder()
        )
        out = 0
        for second in range(20):
            size = 40_000 if second == 5 else 500
            keys = np.arange(size) + second * 10**6
            data = pa.RecordBatch.from_arrays(
                [pa.array(np.full(size, second * 1000)), pa.array(keys)], schema=schema
            )
            operator.process(0, Batch(data))
            out += sum(b.num_rows for b in operator.on_watermark(second * 1_000_000))
        state = vars(operator)["_state"]
        groups = vars(state).get("_groups") or vars(state)["_panes"]
        assert groups.set.capacity <= 8192 and len(groups.marks) <= 8192
        assert groups.index.high <= 2000


def test_results_of_many_groups_outlive_their_state() -> None:
    schema = pa.schema([("t", pa.int64()), ("k", pa.int64())])
    calls = tuple(
        call(schema, f, *a) for f, *a in (("count",), ("sum", "k"), ("max", "k"), ("regr_count", "k", "k"))
    )
    operator = built(
        WindowAggregate(schema, 0, Tumble(1000), (1,), calls, tuple("kcsmr"), ON_CLOSE, (False, False)),
        Recorder(),
    )
    keys = np.arange(10_000)
    data = pa.RecordBatch.from_arrays([pa.array(np.zeros(10_000, np.int64)), pa.array(keys)], schema=schema)
    operator.process(0, Batch(data))
    (first,) = operator.on_watermark(1000)
    later = data.set_column(0, "t", pa.array(np.ones(10_000, np.int64)))
    operator.process(0, Batch(later))
    assert all(np.array_equal(first.data.column(c), np.ones(10_000)) for c in (1, 4))
    assert all(np.array_equal(first.data.column(c), keys) for c in (2, 3))


class Longest:
    """The longest text; a user's aggregate."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def accumulate(self, texts: pa.Array) -> None:
        self.texts += [t for t in texts.to_pylist() if t is not None]

    def retract(self, texts: pa.Array) -> None:
        for text in texts.to_pylist():
            self.texts.remove(text)

    def merge(self, other: "Longest") -> None:
        self.texts += other.texts

    def result(self) -> str | None:
        return max(self.texts, key=len, default=None)


def test_functions_of_users_accumulate_retract_merge_and_restore() -> None:
    register_aggregate("longest", Longest, (pa.string(),), pa.string())
    assert pickle.loads(pickle.dumps(Longest())).result() is None
    assert resolve_aggregate("LONGEST", [pa.string()]).retractable
    longest = AggregateCall("longest", (0,), pa.string())
    schema = pa.schema(list(SCHEMA)[:2])
    group = GroupAggregate(schema, (1,), (longest,), ("v", "l"), CHANGES, retracting_input=True)
    operator = built(group, Recorder())
    assert sent(operator.process(0, rows(("a", 1), ("abc", 1), ("bb", 2)))) == [(1, 1, "abc"), (1, 2, "bb")]
    store = Store()
    store.apply(operator, changes=True)
    operator = store.load(built(group, Recorder()))
    assert sent(operator.process(0, rows(("abc", 1), weights=[-1]))) == [(-1, 1, "abc"), (1, 1, "a")]
    timed = WindowAggregate(SCHEMA, 2, Hop(2000, 1000), (), (longest,), ("s", "e", "l"), ON_CLOSE)
    windows = built(timed, Recorder())
    at = datetime.datetime(1970, 1, 1)
    windows.process(0, rows(("a", 1, at), ("ccc", 1, at + datetime.timedelta(milliseconds=1))))
    assert [row[3] for row in sent(windows.on_watermark(END_OF_TIME))] == ["a", "ccc", "ccc"]


def test_names_are_resolved_with_suggestions() -> None:
    assert resolve_aggregate("Mean", [pa.int32()]).name == "avg"
    assert resolve_aggregate("sum", [pa.int8()]).parameters == (pa.int64(),)
    assert resolve_aggregate("listagg", [pa.string(), pa.string()]).constants == ("separator",)
    with pytest.raises(Invalid, match="MR1210") as missing:
        resolve_aggregate("cuont", [])
    assert missing.value.hint is not None and "count" in missing.value.hint
    with pytest.raises(Invalid, match="MR1211"):
        resolve_aggregate("sum", [pa.string()])
    with pytest.raises(Invalid, match="MR1212"):
        register_aggregate("sum", Longest, (pa.string(),), pa.string())
    names = {d.name for d in aggregate_functions()}
    assert {"count", "regr_slope", "percentile_cont", "approx_count_distinct"} <= names


def test_specs_say_what_readers_get() -> None:
    assert spec(CHANGES).changelog is Changelog.RETRACT and spec(UPSERT).changelog is Changelog.UPSERT
    assert spec(FINAL).changelog is Changelog.APPEND
    assert spec(CHANGES).details() == {"keys": "k", "calls": "count(*), sum(v)", "emit": "changes"}
    with pytest.raises(Invalid, match="MR1310"):
        Hop(1000, 2000)
    assert upserts([], 1) == {}
