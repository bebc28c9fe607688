"""Conditions across rows as programs of a small stack machine of numbers. Runs none of them.

A word is an int64 (numbers, times, booleans, decimals of up to 18 digits as their unscaled value), a float64, or
the two words of a longer decimal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from millrace.errors import Unsupported
from millrace.operators.expressions.evaluate import columns_of, compile_expressions, is_deterministic
from millrace.operators.expressions.tree import Call, Case, Cast, Column, Expression, Literal
from millrace.operators.functions.row_error import RowError
from millrace.operators.functions.types import sql_name
from millrace.operators.match_recognize.specs import Leaf, MatchFact, Navigation, PatternAggregate

INT, FLOAT, WIDE = 0, 1, 2
DEPTH_MAX = 32
WORDS_MAX = 62
ACCUMULATORS_MAX = 31
"""As many as the marks of a row, which are 64 bits, tell apart."""

# Operations; the second field of an instruction is its operand. Kernels tell the groups apart by the order here.
PUSH, PUSH_NULL, NAV_I, NAV_F, NAV_W, ACC, ACC_AVG = range(7)
"""These push a value."""
NEG_I, NEG_F, ABS_I, ABS_F, TO_FLOAT, SCALE, CHECK = range(7, 14)
"""These change the value on top, if it is one."""
NOT, IS_NULL, IS_TRUE, IS_FALSE = range(14, 18)
"""These ask something of it."""
ADD_I, ADD_F, SUB_I, SUB_F, MUL_I, MUL_F, DIV_I, DIV_F, MOD_I, MOD_F = range(18, 28)
EQ_I, EQ_F, EQ_W, LT_I, LT_F, LT_W, LE_I, LE_F, LE_W = range(28, 37)
"""These make one value of two, and NULL where one of them is."""
AND, OR, COALESCE, SAME_I, SAME_F, SAME_W = range(37, 43)
"""These make one of two, NULLs included."""
SELECT, SWAP = range(43, 45)

# Accumulators: kinds, by what they keep.
COUNT, SUM_I, SUM_F, MIN_I, MAX_I, MIN_F, MAX_F = range(7)

_ARITHMETIC = {
    "+": (ADD_I, ADD_F),
    "-": (SUB_I, SUB_F),
    "*": (MUL_I, MUL_F),
    "/": (DIV_I, DIV_F),
    "%": (MOD_I, MOD_F),
}
_TALLIED = {"count": (COUNT, COUNT), "sum": (SUM_I, SUM_F), "avg": (SUM_I, SUM_F), "min": (MIN_I, MIN_F),
            "max": (MAX_I, MAX_F)}  # fmt: skip
_COMPARED = {"=": (EQ_I, False, False), "<>": (EQ_I, False, True), "<": (LT_I, False, False), "<=": (LE_I, False, False),
             ">": (LT_I, True, False), ">=": (LE_I, True, False),
             "is not distinct from": (SAME_I, False, False), "is distinct from": (SAME_I, False, True)}  # fmt: skip
_HINT = "compare numbers, times and booleans; compute other things of one row only, or in a subquery"


def word_kind(type: pa.DataType) -> int | None:
    """What values of a type are here; None where they are nothing that a program computes with."""
    if pt.is_floating(type) and type.bit_width > 16:
        return FLOAT
    if pt.is_decimal(type):
        return INT if type.precision <= 18 else WIDE if type.bit_width == 128 else None
    if pt.is_boolean(type) or pt.is_date32(type) or pt.is_time(type) or pt.is_timestamp(type):
        return INT
    return INT if pt.is_duration(type) or (pt.is_integer(type) and type != pa.uint64()) else None


@dataclass(slots=True)
class Programs:
    """What kernels need of all conditions. One row an item, but for `codes`, which `begins` cuts by variable.

    navigations: variables' set (-1: every row), first, offset, shift, column of the row's words.
    accumulators: kind, variables' set (-1: every row), column (-1: none).
    """

    codes: list[tuple[int, int]] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    constants: list[int] = field(default_factory=list)
    navigations: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    accumulators: list[tuple[int, int, int]] = field(default_factory=list)
    sets: list[tuple[int, ...]] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    """Places among the spec's expressions whose values stand in the rows' words, in order; wide ones take two."""
    kinds: list[int] = field(default_factory=list)
    row_tests: list[tuple[int, ...]] = field(default_factory=list)
    """For each variable the expressions of the row alone that must be true."""
    labelled: bool = False
    """Whether any condition asks what rows before were matched to."""

    def place(self, value: int, kind: int) -> int:
        """The column of a spec's expression among the words."""
        at = 0
        for known, its in zip(self.columns, self.kinds, strict=True):
            if known == value:
                return at
            at += 2 if its == WIDE else 1
        self.columns.append(value)
        self.kinds.append(kind)
        return at

    @property
    def width(self) -> int:
        """Words of a row."""
        return sum(2 if kind == WIDE else 1 for kind in self.kinds)

    def set_of(self, variables: tuple[int, ...]) -> int:
        """The number of a set of variables; -1 for all."""
        if not variables:
            return -1
        key = tuple(sorted(variables))
        if key not in self.sets:
            self.sets.append(key)
        return self.sets.index(key)


def compile_conditions(
    conditions: Sequence[Expression | None], leaves: Sequence[Leaf], types: Sequence[pa.DataType]
) -> Programs:
    """The programs of all variables' conditions; `types` are those of the expressions that leaves take values of.

    Raises Unsupported MR1904 for what no program computes.
    """
    programs = Programs()
    for condition in conditions:
        programs.begins.append(len(programs.codes))
        tests: list[int] = []
        rest: list[Expression] = []
        for part in [] if condition is None else _conjuncts(condition):
            own = _row_test(part, leaves)
            if own is None:
                rest.append(part)
            else:
                tests.append(own)
        programs.row_tests.append(tuple(tests))
        if rest:
            compiler = _Compiler(programs, leaves, types)
            compiler.value(rest[0])
            for part in rest[1:]:
                compiler.value(part)
                compiler.emit(AND, 0, -1)
    programs.begins.append(len(programs.codes))
    if programs.width > WORDS_MAX or len(programs.accumulators) > ACCUMULATORS_MAX:
        raise Unsupported(
            f"DEFINE compares more than {WORDS_MAX} values of rows, or has more than {ACCUMULATORS_MAX} aggregates",
            code="MR1902",
            hint="compute values of a row in a subquery",
        )
    return programs


def is_current(leaf: Leaf) -> bool:
    """Whether a leaf is a value of the row that is tested."""
    return (
        isinstance(leaf, Navigation)
        and leaf.variables == ()
        and not (leaf.first or leaf.offset or leaf.shift)
    )


def _conjuncts(expression: Expression) -> list[Expression]:
    if isinstance(expression, Call) and expression.function == "and":
        return [part for argument in expression.arguments for part in _conjuncts(argument)]
    return [expression]


def _row_test(part: Expression, leaves: Sequence[Leaf]) -> int | None:
    if not isinstance(part, Column) or not is_current(leaves[part.index]):
        return None
    leaf = leaves[part.index]
    assert isinstance(leaf, Navigation)
    return leaf.value


@dataclass(slots=True)
class _Compiler:
    """Appends the program of one condition."""

    programs: Programs
    leaves: Sequence[Leaf]
    types: Sequence[pa.DataType]
    depth: int = 0

    def emit(self, op: int, operand: int, grows: int) -> None:
        self.programs.codes.append((op, operand))
        self.depth += grows
        if self.depth > DEPTH_MAX:
            raise _refused("a condition this deep", "split it with AND")

    def value(self, e: Expression) -> int:
        """Code that pushes the value; its kind."""
        if not columns_of(e) and is_deterministic(e):
            return self._constant(e)
        match e:
            case Column():
                return self._leaf(self.leaves[e.index], e)
            case Call():
                return self._call(e)
            case Cast():
                return self._cast(e)
            case Case():
                return self._case(e)
            case Literal():
                return self._constant(e)

    def _constant(self, e: Expression) -> int:
        one = pa.RecordBatch.from_struct_array(pa.array([{}], pa.struct([])))
        try:
            (found,) = compile_expressions([e], pa.schema([]))(one)
        except RowError as error:
            raise _refused(f"a constant that has no value ({error.reason})", None) from None
        if not found[0].is_valid:
            self.emit(PUSH_NULL, 0, 1)
            return word_kind(e.type) or INT
        kind = _kind(e.type, "a constant")
        words, _ = words_of(found, kind)
        self.emit(PUSH, len(self.programs.constants), 1)
        self.programs.constants += [int(words[0, 0]), int(words[0, 1]) if kind == WIDE else 0]
        return kind

    def _leaf(self, leaf: Leaf, e: Column) -> int:
        programs = self.programs
        if isinstance(leaf, MatchFact):
            raise _refused(f"{leaf.kind.value.upper()}() in a condition", None)
        if isinstance(leaf, PatternAggregate):
            return self._aggregate(leaf)
        kind = _kind(leaf.type, e.name)
        place = programs.place(leaf.value, kind)
        item = (programs.set_of(leaf.variables), int(leaf.first), leaf.offset, leaf.shift, place)
        programs.labelled |= bool(leaf.variables or leaf.first or leaf.offset)
        if item not in programs.navigations:
            programs.navigations.append(item)
        self.emit((NAV_I, NAV_F, NAV_W)[kind], programs.navigations.index(item), 1)
        return kind

    def _aggregate(self, leaf: PatternAggregate) -> int:
        programs = self.programs
        programs.labelled = True
        held = programs.set_of(leaf.variables)
        column, kind = -1, INT
        if leaf.arguments:
            (argument,) = leaf.arguments
            kind = _kind(self.types[argument], f"an argument of {leaf.function}")
            column = programs.place(argument, kind)
        wanted = _TALLIED.get(leaf.function)
        summed = leaf.function in ("sum", "avg") and pt.is_decimal(self.types[leaf.arguments[0]])
        if wanted is None or leaf.distinct or kind == WIDE or summed:
            what = f"{leaf.function} of {'DISTINCT values' if leaf.distinct else 'decimals' if summed else 'these rows'}"
            raise _refused(what, "count, sum, min, max and avg of integers and floats can stand there")
        at = self._accumulator((wanted[kind == FLOAT], held, column))
        if leaf.function == "avg":
            # The count stands right behind its sum.
            self._accumulator((COUNT, held, column), behind=at)
            self.emit(ACC_AVG, at, 1)
            return FLOAT
        self.emit(ACC, at, 1)
        return INT if leaf.function == "count" else kind

    def _accumulator(self, item: tuple[int, int, int], behind: int | None = None) -> int:
        known = self.programs.accumulators
        if behind is not None:
            if len(known) > behind + 1 and known[behind + 1] == item:
                return behind + 1
            assert len(known) == behind + 1, "an average's sum is its own"
            known.append(item)
            return behind + 1
        known.append(item)
        return len(known) - 1

    def _call(self, e: Call) -> int:
        name, arguments = e.function, list(e.arguments)
        if name in ("and", "or") and len(arguments) >= 2:
            self._same(arguments[0], INT)
            for argument in arguments[1:]:
                self._same(argument, INT)
                self.emit(AND if name == "and" else OR, 0, -1)
            return INT
        if name in _COMPARED and len(arguments) == 2:
            return self._comparison(name, arguments[0], arguments[1])
        if name == "in":
            for at, other in enumerate(arguments[1:]):
                self._comparison("=", arguments[0], other)
                if at:
                    self.emit(OR, 0, -1)
            return INT
        if name in ("not", "is null", "is not null", "is true", "is false") and len(arguments) == 1:
            self.value(arguments[0])
            ops = {"not": NOT, "is true": IS_TRUE, "is false": IS_FALSE}
            self.emit(ops.get(name, IS_NULL), 0, 0)
            if name == "is not null":
                self.emit(NOT, 0, 0)
            return INT
        if name == "abs" or (name == "-" and len(arguments) == 1):
            kind = self._narrow(arguments[0])
            by_kind = (ABS_I, ABS_F) if name == "abs" else (NEG_I, NEG_F)
            self.emit(by_kind[kind], 0, 0)
            return kind
        if name == "coalesce":
            kind = self.value(arguments[0])
            for argument in arguments[1:]:
                self._same(argument, kind)
                self.emit(COALESCE, 0, -1)
            return kind
        if name in _ARITHMETIC and len(arguments) == 2:
            return self._arithmetic(e)
        raise _refused(f"{name} across rows of a match", _HINT)

    def _same(self, e: Expression, kind: int) -> None:
        found = self.value(e)
        if found != kind and not (isinstance(e, Literal) and e.value is None):
            raise _refused(f"{sql_name(e.type)} across rows of a match", _HINT)

    def _narrow(self, e: Expression) -> int:
        kind = self.value(e)
        if kind == WIDE:
            raise _refused(f"arithmetic of {sql_name(e.type)} across rows of a match", "CAST it to DOUBLE")
        return kind

    def _comparison(self, name: str, left: Expression, right: Expression) -> int:
        op, swapped, negated = _COMPARED[name]
        if left.type != right.type and pa.null() not in (left.type, right.type):
            raise _refused(
                f"{sql_name(left.type)} {name} {sql_name(right.type)} across rows of a match", _HINT
            )
        kinds = [self.value(left), self.value(right)]
        kind = kinds[1] if left.type == pa.null() else kinds[0]
        if swapped:
            self.emit(SWAP, 0, 0)
        self.emit(op + kind, 0, -1)
        if negated:
            self.emit(NOT, 0, 0)
        return INT

    def _arithmetic(self, e: Call) -> int:
        left, right = e.arguments
        kinds = (self._narrow(left), self._narrow(right))
        apart = e.type != left.type and e.type != right.type
        times = pt.is_timestamp(left.type) and left.type == right.type and e.function == "-"
        moved = e.function in ("+", "-") and any(
            pt.is_timestamp(t) or pt.is_duration(t) for t in (left.type, right.type)
        )
        if times:
            if left.type.unit not in _UP:
                raise _refused(f"a difference of {sql_name(left.type)}", "CAST it to TIMESTAMP(6)")
            self.emit(SUB_I, 0, -1)
            self.emit(SCALE, _UP[left.type.unit], 0)
            return INT
        if moved and getattr(left.type, "unit", None) == getattr(right.type, "unit", None):
            self.emit(_ARITHMETIC[e.function][0], 0, -1)
            return INT
        decimals = [t for t in (left.type, right.type, e.type) if pt.is_decimal(t)]
        if decimals:
            scales = {getattr(t, "scale", None) for t in (left.type, right.type, e.type)}
            if e.function not in ("+", "-") or len(scales) > 1 or word_kind(e.type) != INT:
                raise _refused(f"decimals with {e.function} across rows of a match", "CAST them to DOUBLE")
            self.emit(_ARITHMETIC[e.function][0], 0, -1)
            return INT
        if apart or kinds[0] != kinds[1] or not (pt.is_integer(e.type) or pt.is_floating(e.type)):
            raise _refused(
                f"{sql_name(left.type)} {e.function} {sql_name(right.type)} across rows of a match", _HINT
            )
        self.emit(_ARITHMETIC[e.function][kinds[0] == FLOAT], 0, -1)
        self._check(e.type)
        return kinds[0]

    def _check(self, type: pa.DataType) -> None:
        """Numbers narrower than a word stay within their type."""
        if pt.is_integer(type) and type.bit_width < 64:
            signed = pt.is_signed_integer(type)
            bits = type.bit_width - signed
            self.emit(CHECK, len(self.programs.constants), 0)
            self.programs.constants += [-(1 << bits) if signed else 0, (1 << bits) - 1]

    def _cast(self, e: Cast) -> int:
        source, target = e.argument.type, e.type
        kind = self.value(e.argument)
        if pt.is_integer(source) and pt.is_integer(target):
            if not e.safe:
                self._check(target)
            elif target.bit_width < source.bit_width:
                raise _refused("TRY_CAST across rows of a match", _HINT)
            return INT
        if kind == INT and target == pa.float64() and (pt.is_integer(source) or pt.is_decimal(source)):
            self.emit(TO_FLOAT, source.scale if pt.is_decimal(source) else 0, 0)
            return FLOAT
        if kind == FLOAT and target == pa.float64():
            return FLOAT
        if pt.is_decimal(target) and word_kind(target) == INT and kind == INT:
            scale = source.scale if pt.is_decimal(source) else 0
            digits = source.precision if pt.is_decimal(source) else len(str(2 ** (source.bit_width - 1)))
            exact = (pt.is_decimal(source) or pt.is_integer(source)) and target.scale >= scale
            if exact and digits - scale <= target.precision - target.scale:
                self.emit(SCALE, 10 ** (target.scale - scale), 0)
                return INT
        if pt.is_timestamp(source) and pt.is_timestamp(target) and target.unit in _FINER.get(source.unit, {}):
            self.emit(SCALE, _FINER[source.unit][target.unit], 0)
            return INT
        raise _refused(f"CAST({sql_name(source)} AS {sql_name(target)}) across rows of a match", _HINT)

    def _case(self, e: Case) -> int:
        """WHEN by WHEN from the last: the default, then value and condition choose between it and themselves."""
        kind = self.value(e.default)
        for condition, value in zip(reversed(e.conditions), reversed(e.values), strict=True):
            found = self.value(value)
            known = e.default.type == pa.null() or (
                isinstance(e.default, Literal) and e.default.value is None
            )
            kind = found if known else kind
            self._same(condition, INT)
            self.emit(SELECT, 0, -2)
        return kind


_UP = {"s": 1_000_000, "ms": 1_000, "us": 1}
_FINER = {"s": {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}, "ms": {"ms": 1, "us": 10**3, "ns": 10**6},
          "us": {"us": 1, "ns": 10**3}, "ns": {"ns": 1}}  # fmt: skip


def words_of(column: pa.Array, kind: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    """Words of a column, one row a row (two words where wide: high, low), and which are not null (None: all)."""
    valid = None if column.null_count == 0 else np.asarray(column.is_valid())
    count = len(column)
    type = column.type
    if kind == WIDE:
        raw = np.frombuffer(column.buffers()[1], np.int64, 2 * (column.offset + count)).reshape(-1, 2)
        return np.ascontiguousarray(raw[column.offset :, ::-1]), valid
    if pt.is_decimal(type):
        width = type.bit_width // 8
        word, words = min(width, 8), max(1, width // 8)
        raw = np.frombuffer(column.buffers()[1], f"i{word}", (column.offset + count) * words)
        return raw[column.offset * words :: words].reshape(-1, 1).astype(np.int64), valid
    if kind == FLOAT:
        numbers = np.asarray(column.fill_null(0.0)).astype(np.float64)
        return numbers.view(np.int64).reshape(-1, 1), valid
    if pt.is_boolean(type):
        column = column.cast(pa.int8())
    elif pt.is_time32(type) or pt.is_date32(type):
        column = column.cast(pa.int32())
    elif not pt.is_integer(type):
        column = column.view(pa.int64())
    if column.null_count:
        column = column.fill_null(0)
    return np.asarray(column).astype(np.int64, copy=False).reshape(-1, 1), valid


def _kind(type: pa.DataType, what: str) -> int:
    kind = word_kind(type)
    if kind is None:
        raise _refused(f"{what}, which is {sql_name(type)}, across rows of a match", _HINT)
    return kind


def _refused(what: str, hint: str | None) -> Unsupported:
    return Unsupported(f"{what} is not computed in DEFINE", code="MR1904", hint=hint)
