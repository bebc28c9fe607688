"""Regular joins one by one: what comes out, what is kept, what is given back."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pytest

from millrace.errors import Bug
from millrace.operators.batch import Batch
from millrace.operators.expressions.tree import Call, Column, Literal
from millrace.operators.joins.regular import PAIRS_MAX, RegularJoinOperator
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin, SideInput
from millrace.operators.sink import Changelog
from millrace.operators.spec import decode, encode

INT = pa.int64()
LEFT = pa.schema([("k", INT), ("a", pa.string())])
RIGHT = pa.schema([("k", INT), ("b", pa.float64())])
RETRACT = SideInput(Changelog.RETRACT)


class Surroundings:
    vnodes = 16

    def __init__(self) -> None:
        self.time = 0
        self.dead: list[tuple[int, str]] = []

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        self.dead.append((batch.num_rows, code))


def spec(kind: JoinKind = JoinKind.INNER, **changes: object) -> RegularJoin:
    outputs = (0, 1, 3) if kind.pairs else (0, 1)
    given: dict[str, object] = {
        "left": LEFT, "right": RIGHT, "kind": kind, "left_keys": (0,), "right_keys": (0,), "null_equal": (False,),
        "condition": None, "outputs": outputs, "names": ("k", "a", "b")[: len(outputs)],
    }  # fmt: skip
    return RegularJoin(**{**given, **changes})  # type: ignore[arg-type]


def build(made: RegularJoin, context: Surroundings | None = None) -> RegularJoinOperator:
    operator = made.build(context or Surroundings())
    assert isinstance(operator, RegularJoinOperator)
    return operator


def left(rows: list[tuple[int | None, str]], weights: list[int] | None = None) -> Batch:
    data = pa.RecordBatch.from_pydict({"k": [r[0] for r in rows], "a": [r[1] for r in rows]}, LEFT)
    return Batch(data, None if weights is None else np.array(weights, np.int64))


def right(rows: list[tuple[int | None, float]], weights: list[int] | None = None) -> Batch:
    data = pa.RecordBatch.from_pydict({"k": [r[0] for r in rows], "b": [r[1] for r in rows]}, RIGHT)
    return Batch(data, None if weights is None else np.array(weights, np.int64))


def shown(batches: Iterable[Batch]) -> list[tuple[object, ...]]:
    found = []
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        rows = zip(*(c.to_pylist() for c in batch.data.columns), strict=True)
        found += [(*row, weight) for row, weight in zip(rows, weights, strict=True)]
    return sorted(found, key=repr)


def test_spec_survives_encoding() -> None:
    made = spec(JoinKind.FULL, left_input=RETRACT, ttl=5)
    assert decode(encode(made)) == made


def test_unmatched_row_is_taken_back_when_its_match_comes_and_again_sent_when_it_goes() -> None:
    join = build(spec(JoinKind.LEFT, right_input=RETRACT))
    assert shown(join.process(0, left([(1, "x"), (None, "n")]))) == [(1, "x", None, 1), (None, "n", None, 1)]
    assert shown(join.process(1, right([(1, 2.0)], [1]))) == [(1, "x", 2.0, 1), (1, "x", None, -1)]
    assert shown(join.process(1, right([(1, 3.0)], [1]))) == [(1, "x", 3.0, 1)]
    assert shown(join.process(1, right([(1, 2.0), (1, 3.0)], [-1, -1]))) == [
        (1, "x", 2.0, -1),
        (1, "x", 3.0, -1),
        (1, "x", None, 1),
    ]


def test_change_that_cancels_inside_a_batch_is_not_sent() -> None:
    join = build(spec(JoinKind.INNER, right_input=RETRACT))
    join.process(0, left([(1, "x")]))
    assert join.process(1, right([(1, 2.0), (1, 2.0)], [1, -1])) == []
    assert join.state_rows == 1


def test_nulls_are_equal_where_asked() -> None:
    join = build(spec(null_equal=(True,)))
    join.process(0, left([(None, "x")]))
    assert shown(join.process(1, right([(None, 2.0)]))) == [(None, "x", 2.0, 1)]


def test_what_was_not_inserted_is_not_taken_back() -> None:
    join = build(spec(right_input=RETRACT))
    with pytest.raises(Bug):
        join.process(1, right([(1, 2.0)], [-1]))


def test_pair_without_a_value_goes_to_the_dead_letters() -> None:
    context = Surroundings()
    ratio = Call("/", (Literal(1, INT), Column(0, INT, "k")), INT)
    condition = Call(">", (ratio, Column(2, INT, "k")), pa.bool_())
    join = build(spec(left_keys=(), right_keys=(), null_equal=(), condition=condition), context)
    join.process(0, left([(0, "x"), (1, "y")]))
    assert shown(join.process(1, right([(0, 2.0)]))) == [(1, "y", 2.0, 1)]
    assert [rows for rows, _ in context.dead] == [1]


def test_semi_join_keeps_one_row_of_a_key_on_the_right() -> None:
    join = build(spec(JoinKind.SEMI))
    join.process(1, right([(1, float(i)) for i in range(100)]))
    assert join.state_rows == 1
    assert shown(join.process(0, left([(1, "x"), (2, "y")]))) == [(1, "x", 1)]


def test_many_matches_come_in_batches_and_what_is_taken_back_comes_first() -> None:
    join = build(spec(JoinKind.LEFT, left_input=RETRACT, right_input=SideInput(Changelog.RETRACT, (0,))))
    rows = 3 * PAIRS_MAX
    join.process(0, left([(1, str(i)) for i in range(rows)], [1] * rows))
    batches = list(join.process(1, right([(1, 1.0)], [1])))
    assert max(b.num_rows for b in batches) <= PAIRS_MAX
    weights = np.concatenate([b.weights if b.weights is not None else np.ones(b.num_rows) for b in batches])
    assert (np.diff(weights) >= 0).all()
    assert len(weights) == 2 * rows


def test_idle_keys_are_forgotten_on_both_sides() -> None:
    context = Surroundings()
    join = build(spec(JoinKind.LEFT, ttl=1_000), context)
    join.process(0, left([(1, "x"), (2, "y")]))
    join.process(1, right([(1, 1.0)]))
    context.time = 900
    join.process(0, left([(2, "z")]))
    join.on_time(1_500)
    assert join.state_rows == 2
    assert shown(join.process(1, right([(1, 2.0), (2, 3.0)]))) == [
        (2, "y", 3.0, 1),
        (2, "y", None, -1),
        (2, "z", 3.0, 1),
        (2, "z", None, -1),
    ]


def test_memory_comes_back_when_rows_are_taken_back() -> None:
    join = build(spec(left_input=RETRACT, right_input=RETRACT))
    empty = join.state_bytes
    rows: list[tuple[int | None, str]] = [(i, f"row {i}") for i in range(50_000)]
    join.process(0, left(rows, [1] * len(rows)))
    full = join.state_bytes
    join.process(0, left(rows, [-1] * len(rows)))
    assert join.state_rows == 0
    assert join.state_bytes < empty + (full - empty) / 4


def test_state_is_little_more_than_its_rows() -> None:
    join = build(spec())
    rows = 200_000
    keys = np.random.default_rng(1).permutation(rows)
    data = pa.RecordBatch.from_arrays(
        [pa.array(keys), pa.array([f"value {i}" for i in range(rows)])], schema=LEFT
    )
    for start in range(0, rows, 50_000):
        join.process(0, Batch(data.slice(start, 50_000)))
    assert join.state_bytes <= 1.5 * data.nbytes + 64 * rows


@pytest.mark.parametrize("kind", [JoinKind.INNER, JoinKind.LEFT, JoinKind.FULL], ids=lambda kind: kind.value)
def test_many_matches_come_by_and_by_and_what_is_taken_back_comes_first(kind: JoinKind) -> None:
    join = build(spec(kind, left_input=RETRACT, right_input=RETRACT))
    count = 600
    list(join.process(0, left([(1, str(i)) for i in range(count)], [1] * count)))
    list(join.process(1, right([(1, float(i)) for i in range(count // 2)], [1] * (count // 2))))
    weights = [1] * (count // 2) + [-1] * (count // 2)
    rows = [(1, float(i + count)) for i in range(count // 2)] + [(1, float(i)) for i in range(count // 2)]
    out = join.process(1, right(rows, weights))
    assert isinstance(out, Iterator)
    batches = list(out)
    assert len(batches) > 1 and all(batch.num_rows <= PAIRS_MAX for batch in batches)
    signs = np.concatenate([batch.weights for batch in batches if batch.weights is not None])
    assert len(signs) == count * count and signs.sum() == 0
    assert (np.diff(signs) >= 0).all(), "a row was added before one was taken back"
    assert join.metrics.rows_out == sum(batch.num_rows for batch in batches) + count * count // 2 + (
        2 * count if kind.keeps(0) else 0
    )


def test_first_row_of_a_hot_key_takes_back_what_stood_alone_before_the_pairs() -> None:
    join = build(spec(JoinKind.LEFT, right_input=RETRACT))
    count = PAIRS_MAX + 10
    for first in range(0, count, 8192):
        list(join.process(0, left([(1, "x")] * min(8192, count - first))))
    batches = list(join.process(1, right([(1, 2.0)], [1])))
    weights = np.concatenate(
        [np.ones(b.num_rows, np.int64) if b.weights is None else b.weights for b in batches]
    )
    assert weights.tolist() == [-1] * count + [1] * count


@pytest.mark.parametrize("rows", [100_000, 280_000, 540_000, 1_000_000])
def test_state_is_at_most_one_and_a_half_times_the_rows_and_64_bytes_a_row(rows: int) -> None:
    schema = pa.schema([("k", INT), ("v", INT)])
    made = spec(left=schema, right=schema, outputs=(0, 1, 3), names=("k", "v", "w"))
    join = build(made)
    arrow = 0
    for first in range(0, rows, 10_000):
        keys = np.arange(first, first + 10_000) * 7919
        data = pa.RecordBatch.from_arrays([pa.array(keys), pa.array(keys)], schema=schema)
        arrow += data.nbytes
        list(join.process(0, Batch(data)))
        # While the table of keys is carried over into a larger one, both are there.
        assert join.state_bytes <= 1.5 * arrow + 80 * (first + 10_000) + 40_000
    assert join.state_rows == rows
    assert join.state_bytes <= 1.5 * arrow + 64 * rows
