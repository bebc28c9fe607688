"""Expressions compiled to closures over Arrow arrays: planned once, then only run. Sends no row anywhere.

A row that has no value (overflow, division by zero, a failed cast) makes evaluation raise `RowError`, which marks
the rows at fault; the caller takes them out and evaluates the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

import pyarrow as pa

from millrace.errors import Bug
from millrace.operators.expressions.branches import conjunction, first_true
from millrace.operators.expressions.frame import Evaluator, Frame
from millrace.operators.expressions.tree import Call, Case, Cast, Column, Expression, Literal
from millrace.operators.functions import casts, registry
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import broadcast
from millrace.operators.functions.row_error import Body, RowError, isolate

Clock = Callable[[], int]
"""Processing time in µs since the epoch."""

CLOCK_FUNCTIONS = ("current_timestamp", "localtimestamp", "current_date", "current_time", "proctime")
VOLATILE_FUNCTIONS = frozenset(("random", "rand_integer", "uuid"))
"""Those that give another value at every call, where others that are not deterministic give one a batch."""
_LIGHT = frozenset(
    ("+", "-", "*", "/", "%", "=", "<>", "<", "<=", ">", ">=", "and", "or", "not", "xor",
     "is null", "is not null", "is true", "is false")
)  # fmt: skip


def compile_expression(
    expression: Expression, schema: pa.Schema, clock: Clock | None = None
) -> Callable[[pa.RecordBatch], pa.Array]:
    """A function from a batch of `schema` to the expression's value for each row; it raises RowError."""
    program = Program([expression], schema, clock)
    evaluator = program.evaluators[0]

    def evaluate(batch: pa.RecordBatch) -> pa.Array:
        frame = program.frame(batch)
        return broadcast(evaluator(frame), frame.rows)

    return evaluate


def compile_expressions(
    expressions: Sequence[Expression], schema: pa.Schema, clock: Clock | None = None
) -> Callable[[pa.RecordBatch], list[pa.Array]]:
    """Like `compile_expression` for several at once, whose common parts are computed once."""
    program = Program(expressions, schema, clock)

    def evaluate(batch: pa.RecordBatch) -> list[pa.Array]:
        frame = program.frame(batch)
        return [broadcast(evaluator(frame), frame.rows) for evaluator in program.evaluators]

    return evaluate


def children(expression: Expression) -> tuple[Expression, ...]:
    """The expressions right below this one."""
    match expression:
        case Column() | Literal():
            return ()
        case Call():
            return expression.arguments
        case Cast():
            return (expression.argument,)
        case Case():
            return (*expression.conditions, *expression.values, expression.default)


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything below it."""
    yield expression
    for child in children(expression):
        yield from walk(child)


def columns_of(expression: Expression) -> set[int]:
    """Indices of the input columns that the expression reads."""
    return {node.index for node in walk(expression) if isinstance(node, Column)}


def is_deterministic(expression: Expression) -> bool:
    """Whether the same row always gives the same value."""
    for node in walk(expression):
        if isinstance(node, Call):
            function = registry.find(node.function)
            if function is not None and not function.deterministic:
                return False
    return True


def _is_volatile(expression: Expression) -> bool:
    return any(isinstance(node, Call) and node.function in VOLATILE_FUNCTIONS for node in walk(expression))


def _key(expression: Expression) -> Hashable:
    try:
        hash(expression)
    except TypeError:
        return repr(expression)
    return expression


def _is_heavy(expression: Expression) -> bool:
    """Whether it costs enough that rows which do not need it should not pay for it."""
    return any(_costs(node) for node in walk(expression))


def _costs(node: Expression) -> bool:
    """Whether this one step works on texts or nested values, or is a user's function."""
    if isinstance(node, Cast):
        return _is_bulky(node.type) or _is_bulky(node.argument.type)
    if not isinstance(node, Call) or node.function in _LIGHT:
        return False
    function = registry.find(node.function)
    read = (argument.type for argument in node.arguments if not isinstance(argument, Literal))
    return (
        _is_bulky(node.type) or any(map(_is_bulky, read)) or (function is not None and function.user_defined)
    )


def _is_bulky(type: pa.DataType) -> bool:
    return sql.is_string(type) or sql.is_bytes(type) or bool(pa.types.is_nested(type))


def _rewrite(call: Call) -> Expression:
    """Functions that choose between their arguments, as the CASE that says the same."""
    arguments = call.arguments
    null = Literal(None, call.type)
    match call.function:
        case "if":
            return Case(
                (arguments[0],), (arguments[1],), arguments[2] if len(arguments) > 2 else null, call.type
            )
        case "coalesce" if len(arguments) == 1:
            return arguments[0]
        case "coalesce" if not all(isinstance(argument, Column | Literal) for argument in arguments[1:]):
            tests = tuple(Call("is not null", (argument,), sql.BOOLEAN) for argument in arguments[:-1])
            return Case(tests, arguments[:-1], arguments[-1], call.type)
        case "nullif":
            test = Call("=", arguments, sql.BOOLEAN)
            return Case((test,), (null,), arguments[0], call.type)
    return call


class Program:
    """Expressions over one schema, compiled together: a subexpression that occurs twice is computed once a frame."""

    def __init__(
        self, expressions: Sequence[Expression], schema: pa.Schema, clock: Clock | None = None
    ) -> None:
        self._schema = schema
        self._clock = clock
        self._uses: Counter[Hashable] = Counter()
        self._shared: dict[Hashable, Evaluator] = {}
        self._slots = 0
        for expression in expressions:
            self._count(expression)
        self.evaluators = [self._compile(expression) for expression in expressions]

    def frame(self, batch: pa.RecordBatch) -> Frame:
        """A fresh frame over the rows of `batch`."""
        now = self._clock() if self._clock is not None else 0
        return Frame(batch.columns, batch.num_rows, self._slots, now)

    def _count(self, expression: Expression) -> None:
        if isinstance(expression, Column | Literal):
            return
        key = _key(expression)
        self._uses[key] += 0 if _is_volatile(expression) else 1
        if self._uses[key] <= 1:
            for child in children(expression):
                self._count(child)

    def _compile(self, expression: Expression) -> Evaluator:
        if isinstance(expression, Column):
            return self._column(expression)
        if isinstance(expression, Literal):
            return _constant(_scalar(expression))
        key = _key(expression)
        known = self._shared.get(key)
        if known is not None:
            return known
        evaluator = self._operation(expression)
        if self._uses[key] > 1 and not isinstance(evaluator, _Constant):
            evaluator = self._share(evaluator)
            self._shared[key] = evaluator
        return evaluator

    def _share(self, inner: Evaluator) -> Evaluator:
        slot = self._slots
        self._slots += 1

        def shared(frame: Frame) -> pa.Array | pa.Scalar:
            value = frame.computed(slot)
            if value is None:
                value = frame.cache[slot] = inner(frame)
            return value

        return shared

    def _column(self, column: Column) -> Evaluator:
        index = column.index
        if not 0 <= index < len(self._schema):
            raise Bug(f"column {index} ({column.name}) is not in the input", code="MR9004")
        return lambda frame: frame.column(index)

    def _operation(self, expression: Call | Cast | Case) -> Evaluator:
        match expression:
            case Call(function="and" | "or") if len(expression.arguments) > 1:
                evaluators = [self._compile(argument) for argument in expression.arguments]
                heavy = [_is_heavy(argument) for argument in expression.arguments]
                return conjunction(evaluators, heavy, stop_at=expression.function == "or")
            case Call():
                return self._call(expression)
            case Cast():
                body = casts.build_cast(expression.argument.type, expression.type, safe=expression.safe)
                name = f"CAST AS {sql.sql_name(expression.type)}"
                return _apply(name, body, [self._compile(expression.argument)], True, expression.type)
            case Case():
                values = (*expression.values, expression.default)
                return first_true(
                    [self._compile(condition) for condition in expression.conditions],
                    [self._compile(value) for value in values],
                    expression.type,
                    lazy=any(_is_heavy(node) for node in values),
                )

    def _call(self, call: Call) -> Evaluator:
        chosen = _rewrite(call)
        if chosen is not call:
            self._count(chosen)
            return self._compile(chosen)
        if call.function in CLOCK_FUNCTIONS:
            return _clock_reader(call.type)
        function = registry.find(call.function)
        if function is None:
            raise Bug(f"function {call.function} is in the plan and not in the library", code="MR9002",
                      hint="register the function before the plan is built")  # fmt: skip
        arguments = [self._compile(argument) for argument in call.arguments]
        literals = tuple(e.value if isinstance(e, _Constant) else None for e in arguments)
        types = tuple(argument.type for argument in call.arguments)
        body = function.build(types, call.type, literals)
        return _apply(function.name, body, arguments, function.deterministic, call.type)


class _Constant:
    """The evaluator of a value that does not depend on the row."""

    __slots__ = ("value",)

    def __init__(self, value: pa.Scalar) -> None:
        self.value = value

    def __call__(self, frame: Frame) -> pa.Scalar:
        return self.value


def _constant(value: pa.Scalar) -> Evaluator:
    return _Constant(value)


def _scalar(literal: Literal) -> pa.Scalar:
    try:
        return pa.scalar(literal.value, literal.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise Bug(
            f"literal {literal.value!r} is no {sql.sql_name(literal.type)}: {error}", code="MR9003"
        ) from error


def _apply(name: str, body: Body, arguments: list[Evaluator], fold: bool, type: pa.DataType) -> Evaluator:
    """The evaluator of `body` over `arguments`; folded to a constant where all of them are."""

    def call(frame: Frame) -> pa.Array | pa.Scalar:
        values = [argument(frame) for argument in arguments]
        try:
            return body(values, frame.rows)
        except (ValueError, ArithmeticError) as error:
            raise isolate(body, values, frame.rows, error, name) from error

    def call_one(frame: Frame) -> pa.Array | pa.Scalar:
        value = argument(frame)
        try:
            return body((value,), frame.rows)
        except (ValueError, ArithmeticError) as error:
            raise isolate(body, (value,), frame.rows, error, name) from error

    if fold and arguments and all(isinstance(argument, _Constant) for argument in arguments):
        try:
            result = call(Frame((), 1, 0))
        except RowError:
            return call
        return _Constant(result if isinstance(result, pa.Scalar) else result[0])
    if len(arguments) == 1:
        argument = arguments[0]
        return call_one
    return call


def _clock_reader(type: pa.DataType) -> Evaluator:
    zoned = pa.timestamp("us", "UTC")
    cast = casts.build_cast(zoned, type)

    def read(frame: Frame) -> pa.Array | pa.Scalar:
        return broadcast(cast([pa.scalar(frame.now, pa.int64()).cast(zoned)], 1), 1)[0]

    return read
