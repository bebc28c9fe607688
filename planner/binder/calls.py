"""Aggregate calls, OVER calls and window bounds met inside expressions: collected, and stood in for by columns.

While a query block is bound, such a call is a `Column` with a negative position; once its operator is in place the
stand-in is replaced by the operator's output column.
"""

from __future__ import annotations

import decimal
from dataclasses import dataclass, field

import pyarrow as pa
from sqlglot import exp

from millrace.operators.aggregates.signatures import is_aggregate, resolve_aggregate
from millrace.operators.expressions.tree import Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.over.frames import (
    WINDOW_FUNCTIONS,
    BufferEmission,
    Frame,
    FrameUnit,
    window_function_type,
)
from millrace.planner.binder.errors import invalid, located, unsupported
from millrace.planner.binder.scalars import ScalarBinder, cast
from millrace.planner.binder.scope import Scope
from millrace.planner.dialect import nodes

FIRST_OVER = 1_000_000
FIRST_GROUPING = 1_250_000
FIRST_BOUND = 2_000_000
BOUNDS = ("start", "end", "time", "struct")

Order = tuple[tuple[Expression, bool, bool], ...]
"""(value, descending, nulls first) of each ORDER BY item."""


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call whose arguments are still expressions over the block's input."""

    function: str
    arguments: tuple[Expression, ...]
    type: pa.DataType
    distinct: bool = False
    filter: Expression | None = None
    order: Order = ()
    options: tuple[tuple[str, object], ...] = ()

    @property
    def title(self) -> str:
        """A name for the column where the query gives none."""
        first = self.arguments[0] if self.arguments else None
        return (
            f"{self.function}_{first.name}"
            if isinstance(first, Column) and first.index >= 0
            else self.function
        )


@dataclass(frozen=True, slots=True)
class Around:
    """What stands behind OVER: partition, order and frame, or a row buffer."""

    partition: tuple[Expression, ...]
    order: Order
    frame: Frame | None = None
    rows: int | None = None
    emission: BufferEmission = BufferEmission.EVERY_RECORD
    expire_after: int | None = None


@dataclass(slots=True)
class Calls:
    """Collects the calls of one query block; a `CallSite` for `ScalarBinder`.

    `bound_type` is the type of window bounds where the block has a window; `allow_over` is off in HAVING.
    """

    scope: Scope
    bound_type: pa.DataType | None = None
    aggregates: list[PendingCall] = field(default_factory=list)
    overs: list[tuple[PendingCall, Around, object]] = field(default_factory=list)
    groupings: list[tuple[tuple[Expression, ...], object]] = field(default_factory=list)
    """The arguments of each GROUPING (…), and its node."""

    def aggregate(self, node: nodes.Call) -> Expression:
        """The stand-in of an aggregate; equal calls share one."""
        call = self._pending(node, ScalarBinder(self.scope, "an argument of an aggregate"))
        if call not in self.aggregates:
            self.aggregates.append(call)
        return Column(-1 - self.aggregates.index(call), call.type, call.title)

    def over(self, node: exp.Expr) -> Expression:
        """The stand-in of a call OVER a window."""
        inner = ScalarBinder(self.scope, "OVER", self)
        call = node.this
        assert isinstance(call, nodes.Call)
        around = (
            self._buffer(node, inner) if isinstance(node, nodes.RowsWindow) else self._around(node, inner)
        )
        name = str(call.this)
        if name in WINDOW_FUNCTIONS:
            pending = self._window_function(name, call, inner)
        elif is_aggregate(name):
            pending = self._pending(call, inner)
        else:
            raise invalid(
                call, "MR1127", f"{name} can not be used with OVER", "use an aggregate or a window function"
            )
        self.overs.append((pending, around, node))
        return Column(-FIRST_OVER - len(self.overs) + 1, pending.type, name)

    def grouping(self, node: nodes.Call) -> Expression:
        """The stand-in of GROUPING (a, …), which says by which of its arguments a row is not grouped."""
        binder = ScalarBinder(self.scope, "GROUPING")
        arguments = tuple(binder.bind(a) for a in node.expressions)
        if not 1 <= len(arguments) <= 62:
            raise invalid(node, "MR1150", f"GROUPING takes 1 to 62 grouped values, not {len(arguments)}")
        self.groupings.append((arguments, node))
        return Column(-FIRST_GROUPING - len(self.groupings) + 1, sql.BIGINT, str(node.this))

    def window_bound(self, node: nodes.WindowBound) -> Expression:
        """The stand-in of window_start, window_end or window_time."""
        bound = str(node.args["bound"])
        if self.bound_type is None:
            raise invalid(
                node,
                "MR1128",
                f"the query has no window whose {bound} could be taken",
                "add a window to GROUP BY, such as TUMBLE(ts, INTERVAL '1' MINUTE)",
            )
        type = self.bound_type
        if bound == "struct":
            type = pa.struct([pa.field("start", type), pa.field("end", type)])
        return Column(-FIRST_BOUND - BOUNDS.index(bound), type, f"window_{bound}")

    def _pending(self, node: nodes.Call, binder: ScalarBinder) -> PendingCall:
        name = str(node.this)
        starred = any(isinstance(a, exp.Star) for a in node.expressions)
        arguments = [] if starred else [binder.bind(a) for a in node.expressions]
        order = bind_order(node.args.get("order") or [], binder)
        within = bool(node.args.get("within_group"))
        if within:
            arguments = [*(value for value, _, _ in order), *arguments]
        distinct = bool(node.args.get("distinct"))
        with located(node):
            signature = resolve_aggregate(name, [a.type for a in arguments], distinct)
        if node.args.get("nulls") == "ignore" and signature.name not in (
            "first_value",
            "last_value",
            "first",
            "last",
        ):
            raise unsupported(
                node, "MR1923", f"IGNORE NULLS is not executed for {name}", "FILTER (WHERE x IS NOT NULL)"
            )
        count = len(arguments) - len(signature.constants)
        options = list(zip(signature.constants, (constant(a, node) for a in arguments[count:]), strict=True))
        if within and order and order[0][1] and dict(options).get("fraction") is not None:
            options = [(k, 1 - v) if k == "fraction" and isinstance(v, float) else (k, v) for k, v in options]
        condition = node.args.get("filter")
        return PendingCall(
            signature.name,
            tuple(cast(a, t) for a, t in zip(arguments[:count], signature.parameters, strict=True)),
            signature.returns,
            distinct,
            None if condition is None else binder.bind_as(condition, sql.BOOLEAN, "FILTER"),
            () if within else order,
            tuple(options),
        )

    def _window_function(self, name: str, node: nodes.Call, binder: ScalarBinder) -> PendingCall:
        fewest, most = WINDOW_FUNCTIONS[name]
        given = [binder.bind(a) for a in node.expressions if not isinstance(a, exp.Star)]
        if node.args.get("nulls") == "ignore":
            raise unsupported(node, "MR1923", f"IGNORE NULLS is not executed for {name}")
        names = {
            "lag": ("offset", "default"),
            "lead": ("offset", "default"),
            "ntile": ("n",),
            "nth_value": ("n",),
        }
        extra = names.get(name, ())
        required = 1 if name in ("ntile", "nth_value") else 0
        if not fewest + required <= len(given) <= most + len(extra):
            raise invalid(node, "MR1211", f"{name} does not take {len(given)} arguments")
        arguments = given[:most]
        constants = given[most:]
        if len(constants) > 1:
            constants[1] = cast(constants[1], arguments[0].type)
        return PendingCall(
            name,
            tuple(arguments),
            window_function_type(name, tuple(a.type for a in arguments)),
            options=tuple(zip(extra, (constant(c, node) for c in constants), strict=False)),
        )

    def _around(self, node: exp.Expr, binder: ScalarBinder) -> Around:
        partition = tuple(binder.bind(p) for p in node.args.get("partition_by") or [])
        order_node = node.args.get("order")
        order = bind_order(order_node.expressions if order_node is not None else [], binder)
        spec = node.args.get("spec")
        return Around(partition, order, None if spec is None else bind_frame(spec, binder))

    def _buffer(self, node: nodes.RowsWindow, binder: ScalarBinder) -> Around:
        around = self._around(node, binder)
        emission = BufferEmission(str(node.args["emit"]))
        return Around(
            around.partition,
            around.order,
            around.frame,
            int(node.args["rows"]),
            emission,
            node.args.get("expire"),
        )


def bind_order(items: list[exp.Expr], binder: ScalarBinder) -> Order:
    """ORDER BY items; NULLs are last going up and first going down, as in PostgreSQL."""
    found = []
    for item in items:
        ordered = isinstance(item, exp.Ordered)
        value = binder.bind(item.this if ordered else item)
        descending = bool(item.args.get("desc")) if ordered else False
        first = item.args.get("nulls_first") if ordered else None
        found.append((value, descending, descending if first is None else bool(first)))
    return tuple(found)


def bind_frame(spec: exp.Expr, binder: ScalarBinder) -> Frame:
    """ROWS or RANGE BETWEEN …. Raises Invalid MR1129."""
    kind = str(spec.args.get("kind") or "ROWS").upper()
    if kind == "GROUPS":
        raise unsupported(spec, "MR1926", "GROUPS frames are not executed", "use ROWS or RANGE")
    unit = FrameUnit(kind.lower())

    def offset(end: str, default: str) -> int | None:
        value, side = spec.args.get(end) or default, str(spec.args.get(f"{end}_side") or "").upper()
        if isinstance(value, str):
            return None if value.upper() == "UNBOUNDED" else 0
        bound = binder.bind(value)
        if not isinstance(bound, Literal) or not isinstance(bound.value, int) or bound.type == sql.BOOLEAN:
            raise invalid(spec, "MR1129", "a frame's offset must be a constant", "such as 5 PRECEDING")
        if (unit is FrameUnit.RANGE) != pa.types.is_duration(bound.type):
            wanted = "an interval" if unit is FrameUnit.RANGE else "a number of rows"
            raise invalid(spec, "MR1129", f"the offset of a {kind} frame must be {wanted}")
        return -bound.value if side == "PRECEDING" else bound.value

    with located(spec):
        return Frame(unit, offset("start", "UNBOUNDED"), offset("end", "CURRENT ROW"))


def constant(value: Expression, node: object) -> object:
    """The Python value of a literal argument. Raises Invalid MR1130."""
    if not isinstance(value, Literal):
        raise invalid(node, "MR1130", "this argument must be a constant")
    return float(value.value) if isinstance(value.value, decimal.Decimal) else value.value
