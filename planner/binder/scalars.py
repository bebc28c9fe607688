"""Scalar expressions of SQL as typed trees: names, functions, coercions. Aggregates are left to `calls`."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import pyarrow as pa
from sqlglot import exp

from millrace.errors import Invalid, MillraceError
from millrace.operators.aggregates.signatures import is_aggregate
from millrace.operators.expressions.evaluate import VOLATILE_FUNCTIONS, compile_expressions, is_deterministic
from millrace.operators.expressions.tree import Call, Case, Cast, Column, Expression, Literal
from millrace.operators.functions import registry
from millrace.operators.functions import types as sql
from millrace.operators.functions.row_error import RowError
from millrace.operators.over.frames import WINDOW_FUNCTIONS
from millrace.operators.sink import Changelog
from millrace.planner.binder.correlation import OUTER
from millrace.planner.binder.errors import invalid, located, unsupported
from millrace.planner.binder.scope import HEADERS, Scope, field_of
from millrace.planner.dialect import nodes
from millrace.planner.dialect.types import parse_type
from millrace.planner.expressions import rewrite
from millrace.planner.logical import Relation

BINARY: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.NullSafeEQ: "is not distinct from",
    exp.NullSafeNEQ: "is distinct from",
    exp.And: "and",
    exp.Or: "or",
    exp.DPipe: "||",
    exp.BitwiseAnd: "&",
    exp.BitwiseOr: "|",
    exp.BitwiseXor: "#",
    exp.BitwiseLeftShift: "<<",
    exp.BitwiseRightShift: ">>",
    exp.Like: "like",
    exp.ILike: "ilike",
    exp.SimilarTo: "similar to",
}
"""Operators with two sides, as functions of the library."""
GROUPING_FUNCTIONS = ("grouping", "grouping_id")
HEADER_FUNCTIONS = {"header": "element_at", "header_keys": "map_keys", "has_header": "map_contains_key"}
"""What is asked of a record's headers, as functions of the map that they are."""
HEADER_CHANGES = ("set_header", "remove_header")
UNARY: dict[type[exp.Expr], str] = {exp.Not: "not", exp.Neg: "-", exp.BitwiseNot: "~"}


class CallSite(Protocol):
    """Where calls that are no scalar functions go: each becomes a column that is filled in later."""

    def aggregate(self, node: nodes.Call) -> Expression:
        """An aggregate call."""
        ...

    def over(self, node: exp.Expr) -> Expression:
        """A call OVER a window, or over a row buffer."""
        ...

    def grouping(self, node: nodes.Call) -> Expression:
        """GROUPING (…) of keys of the query."""
        ...

    def window_bound(self, node: nodes.WindowBound) -> Expression:
        """A bound of the query's window."""
        ...


class SubquerySite(Protocol):
    """Where queries inside expressions go: each becomes a column that is filled in later."""

    def value(self, node: exp.Expr) -> Expression:
        """A query that stands for a value."""
        ...

    def test(self, node: exp.Expr, value: Expression | None) -> Expression:
        """EXISTS (None), or `value` IN, of a query."""
        ...


class RowsSite(Protocol):
    """Where UNNEST goes, which makes several rows of one: each becomes a column that is filled in later."""

    def rows(self, node: nodes.Call) -> Expression:
        """A call of UNNEST."""
        ...


def assignable(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a value of one type may be written into a column of the other, which converts it."""
    numbers = sql.is_number(source) and sql.is_number(target)
    return numbers or (sql.is_timestamp(source) and sql.is_timestamp(target))


def finite(text: str, node: object) -> float:
    """The number that digits say. Raises Invalid MR1147 where it is beyond what a DOUBLE holds."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise invalid(node, "MR1147", f"{text} is too large for a DOUBLE", "the largest is about 1.8e308")
    return value


def check_repeatable(value: Expression, relation: Relation, node: object) -> None:
    """Refuse, over rows that may be taken back, what would give another value then (MR1956)."""
    if relation.changelog is not Changelog.APPEND and not is_deterministic(value):
        raise unsupported(
            node,
            "MR1956",
            "rows that may be taken back can not have a value that differs from call to call",
            "compute it over the rows that come in, in a subquery below the aggregate or join",
        )


class ScalarBinder:
    """Binds expressions against one scope. `place` says in errors where calls are not allowed ("WHERE")."""

    def __init__(self, scope: Scope, place: str, site: CallSite | None = None) -> None:
        self.scope = scope
        self._place = place
        self._site = site
        self.aliases: dict[str, Expression] = {}
        """Select-list names that may be used where no column has the name."""
        self.subqueries: SubquerySite | None = None
        """Where queries inside the expression go; None: there may be none."""
        self.rows: RowsSite | None = None
        """Where calls of UNNEST go; None: there may be none."""

    def bind(self, node: exp.Expr) -> Expression:
        """The typed tree. Raises Invalid and Unsupported with the place in the text."""
        handler = _HANDLERS.get(type(node))
        if handler is None and type(node) in BINARY:
            return self.call(BINARY[type(node)], [self.bind(node.this), self.bind(node.expression)], node)
        if handler is None and type(node) in UNARY:
            return self._unary(node)
        if handler is None:
            raise unsupported(node, "MR1901", f"{_named(node)} can not stand in an expression")
        return handler(self, node)

    def bind_as(self, node: exp.Expr, type: pa.DataType, what: str) -> Expression:
        """Bound and coerced to `type`. Raises Invalid MR1110 where it does not fit."""
        return self.coerce(self.bind(node), type, node, what)

    def assign(self, node: exp.Expr, type: pa.DataType, what: str) -> Expression:
        """Bound and converted to the type of a column that it is written into: what is too large is a row error."""
        value = self.bind(node)
        return cast(value, type) if assignable(value.type, type) else self.coerce(value, type, node, what)

    def condition(self, node: exp.Expr) -> Expression:
        """A boolean expression."""
        return self.bind_as(node, sql.BOOLEAN, self._place)

    def coerce(self, value: Expression, type: pa.DataType, node: object, what: str) -> Expression:
        """`value` as `type` where SQL converts by itself; `what` names the place in the error."""
        if value.type == type:
            return value
        if not sql.can_coerce(value.type, type, literal=is_untyped(value)):
            raise invalid(
                node,
                "MR1110",
                f"{what} is {sql.sql_name(value.type)}, not {sql.sql_name(type)}",
                f"convert it: CAST(… AS {sql.sql_name(type)})",
            )
        return self._converted(value, type, node)

    def call(self, name: str, arguments: Sequence[Expression], node: object) -> Expression:
        """A function of the library; arguments are cast to what the chosen form takes."""
        with located(node):
            found = registry.resolve(name, [a.type for a in arguments], [is_untyped(a) for a in arguments])
        cast_arguments = [
            self._converted(a, t, node) for a, t in zip(arguments, found.parameters, strict=True)
        ]
        return Call(found.name, tuple(cast_arguments), found.returns)

    def unify(self, values: Sequence[Expression], node: object, what: str) -> list[Expression]:
        """All values in their common type. Raises Invalid MR1111."""
        common = sql.common_type([v.type for v in values], [is_untyped(v) for v in values])
        if common is None:
            names = ", ".join(dict.fromkeys(sql.sql_name(v.type) for v in values))
            raise invalid(node, "MR1111", f"{what} have no common type: {names}", "cast them to one type")
        return [self._converted(v, common, node) for v in values]

    def _converted(self, value: Expression, type: pa.DataType, node: object) -> Expression:
        """`value` as `type`; a string literal that is none of that type is refused now, not row by row (MR1136)."""
        made = cast(value, type)
        if isinstance(made, Cast) and is_untyped(value):
            assert isinstance(value, Literal)
            check_literal(made, str(value.value), node)
        return made

    def _column(self, node: exp.Column) -> Expression:
        if isinstance(node.this, exp.Star):
            raise invalid(node, "MR1105", "* stands in a select list or in count(*) only")
        parts = [part.name for part in node.parts]
        try:
            return self.scope.resolve(parts, node)
        except Invalid as error:
            alias = self.aliases.get(parts[0].casefold()) if len(parts) == 1 else None
            if alias is not None and error.code in ("MR1101", "MR1155"):
                return alias
            found = self._outer(parts, node) if error.code in ("MR1101", "MR1102", "MR1155") else None
            if found is None:
                raise
            return found

    def _outer(self, parts: Sequence[str], node: exp.Column) -> Expression | None:
        """The column of the query around this one that a name means, if any."""
        if self.scope.outer is None:
            return None
        try:
            found = self.scope.outer.resolve(parts, node)
        except Invalid:
            return None
        return rewrite(found, lambda e: replace(e, index=e.index + OUTER) if isinstance(e, Column) else None)

    def _call(self, node: nodes.Call) -> Expression:
        name = str(node.this)
        if is_aggregate(name) and not (registry.find(name) and not _aggregate_only(node)):
            if self._site is None:
                raise invalid(
                    node,
                    "MR1121",
                    f"the aggregate {name} can not stand in {self._place}",
                    "use HAVING for conditions on aggregates"
                    if self._place == "WHERE"
                    else "compute it in a subquery in FROM first",
                )
            return self._site.aggregate(node)
        if name in GROUPING_FUNCTIONS and registry.find(name) is None:
            if self._site is None:
                raise invalid(node, "MR1152", f"{name} can not stand in {self._place}", "use HAVING")
            return self._site.grouping(node)
        if name == "unnest":
            if self.rows is None:
                raise unsupported(
                    node,
                    "MR1945",
                    f"unnest can not stand in {self._place}",
                    "write it in FROM: CROSS JOIN UNNEST(…) AS u(x)",
                )
            return self.rows.rows(node)
        if name in HEADER_FUNCTIONS and registry.find(name) is None:
            return self._header(name, node)
        if name in HEADER_CHANGES and registry.find(name) is None:
            raise unsupported(
                node, "MR1958", f"{name} stands in a select list, by itself", "compute its value inside it"
            )
        if name in WINDOW_FUNCTIONS and registry.find(name) is None:
            raise invalid(node, "MR1122", f"{name} needs OVER (…)", f"write {name}(…) OVER (ORDER BY …)")
        for part, clause in (("distinct", "DISTINCT"), ("filter", "FILTER"), ("order", "ORDER BY")):
            if node.args.get(part):
                raise invalid(node, "MR1123", f"{name} is no aggregate and takes no {clause}")
        if any(isinstance(a, nodes.NamedArgument) for a in node.expressions):
            raise invalid(node, "MR1124", f"{name} takes its arguments by position")
        if any(isinstance(a, exp.Star) for a in node.expressions):
            raise invalid(node, "MR1105", f"{name}(*) is not a call of {name}")
        value = self.call(name, [self.bind(a) for a in node.expressions], node)
        if isinstance(value, Call) and value.function in VOLATILE_FUNCTIONS:
            check_repeatable(value, self.scope.relation, node)
        return value

    def _header(self, name: str, node: nodes.Call) -> Expression:
        """A question about the headers of the record that a row was made of."""
        if len(node.expressions) != (name != "header_keys"):
            raise invalid(node, "MR1211", f"{name} does not take {len(node.expressions)} arguments")
        headers = exp.Column(this=exp.Identifier(this=HEADERS, quoted=False))
        headers.meta.update(node.meta)
        return self.call(HEADER_FUNCTIONS[name], [self.bind(n) for n in (headers, *node.expressions)], node)

    def _literal(self, node: exp.Literal) -> Expression:
        text = str(node.this)
        if node.is_string:
            return Literal(text, sql.STRING)
        if text.isdigit():
            return integer(int(text), node)
        if "e" in text.lower():
            return Literal(finite(text, node), sql.DOUBLE)
        value = decimal.Decimal(text)
        digits, scale = len(value.as_tuple().digits), -int(value.as_tuple().exponent)
        if max(digits, scale) > sql.MOST_DIGITS:
            return Literal(finite(text, node), sql.DOUBLE)
        return Literal(value, sql.decimal_type(max(digits, scale, 1), max(scale, 0)))

    def _octets(self, node: exp.HexString) -> Expression:
        try:
            return Literal(bytes.fromhex(str(node.this)), sql.BYTES)
        except ValueError:
            raise invalid(
                node, "MR1148", f"x'{node.this}' is not a row of octets", "write two hex digits for each"
            ) from None

    def _unary(self, node: exp.Expr) -> Expression:
        inner = node.this
        if isinstance(node, exp.Neg) and isinstance(inner, exp.Literal) and not inner.is_string:
            if inner.this.isdigit():
                return integer(-int(inner.this), node)
            value = self._literal(inner)
            assert isinstance(value, Literal) and isinstance(value.value, float | decimal.Decimal)
            return Literal(-value.value, value.type)
        return self.call(UNARY[type(node)], [self.bind(inner)], node)

    def _interval(self, node: nodes.Interval) -> Expression:
        if node.months:
            return Literal(pa.MonthDayNano([node.months, 0, node.us * 1000]), sql.MONTHS)
        return Literal(node.us, sql.INTERVAL)

    def _cast(self, node: exp.Cast | exp.TryCast) -> Expression:
        value = self.bind(node.this)
        with located(node):
            target = parse_type(str(node.args["to"].this)).arrow
        safe = isinstance(node, exp.TryCast)
        if safe:
            return Cast(value, target, True)
        return self._converted(value, target, node)

    def _case(self, node: exp.Case) -> Expression:
        conditions: list[Expression] = []
        values: list[Expression] = []
        for branch in node.args["ifs"]:
            if node.this is not None:
                conditions.append(self.call("=", [self.bind(node.this), self.bind(branch.this)], branch))
            else:
                conditions.append(self.bind_as(branch.this, sql.BOOLEAN, "the condition of CASE"))
            values.append(self.bind(branch.args["true"]))
        default = node.args.get("default")
        values.append(Literal(None, sql.NULL) if default is None else self.bind(default))
        unified = self.unify(values, node, "the values of CASE")
        return Case(tuple(conditions), tuple(unified[:-1]), unified[-1], unified[0].type)

    def _if(self, node: exp.If) -> Expression:
        condition = self.bind_as(node.this, sql.BOOLEAN, "the condition of IF")
        other = node.args.get("false")
        values = [
            self.bind(node.args["true"]),
            Literal(None, sql.NULL) if other is None else self.bind(other),
        ]
        yes, no = self.unify(values, node, "the values of IF")
        return Case((condition,), (yes,), no, yes.type)

    def _between(self, node: exp.Between) -> Expression:
        value, low, high = (self.bind(n) for n in (node.this, node.args["low"], node.args["high"]))
        above = self.call(">=", [value, low], node)
        below = self.call("<=", [value, high], node)
        return Call("and", (above, below), sql.BOOLEAN)

    def _in(self, node: exp.In) -> Expression:
        if node.args.get("query") is not None:
            if self.subqueries is None:
                raise unsupported(
                    node, "MR1921", f"IN (SELECT …) can not stand in {self._place}", "use a join"
                )
            return self.subqueries.test(node, self.bind(node.this))
        if node.args.get("unnest") is not None:
            return self.call(
                "array_contains", [self.bind(node.args["unnest"].expressions[0]), self.bind(node.this)], node
            )
        values = self.unify([self.bind(n) for n in (node.this, *node.expressions)], node, "the values of IN")
        if registry.find("in") is not None:
            return self.call("in", values, node)
        result = self.call("=", [values[0], values[1]], node)
        for other in values[2:]:
            result = Call("or", (result, self.call("=", [values[0], other], node)), sql.BOOLEAN)
        return result

    def _is(self, node: exp.Is) -> Expression:
        value = self.bind(node.this)
        if isinstance(node.expression, exp.Null):
            return self.call("is null", [value], node)
        if isinstance(node.expression, exp.Boolean):
            return self.call("is true" if node.expression.this else "is false", [value], node)
        raise unsupported(node, "MR1901", f"IS {node.expression.sql()} is not understood")

    def _not(self, node: exp.Not) -> Expression:
        inner = node.this
        if isinstance(inner, exp.Is) and isinstance(inner.expression, exp.Null):
            return self.call("is not null", [self.bind(inner.this)], node)
        return self.call("not", [self.bind(inner)], node)

    def _escape(self, node: exp.Escape) -> Expression:
        like = node.this
        return self.call(
            BINARY[type(like)],
            [self.bind(like.this), self.bind(like.expression), self.bind(node.expression)],
            node,
        )

    def _dot(self, node: exp.Dot) -> Expression:
        return field_of(self.bind(node.this), node.expression.name, node)

    def _bracket(self, node: exp.Bracket) -> Expression:
        value, index = self.bind(node.this), self.bind(node.expressions[0])
        if pa.types.is_struct(value.type) and isinstance(index, Literal) and isinstance(index.value, str):
            return field_of(value, index.value, node)
        return self.call("element_at", [value, index], node)

    def _array(self, node: exp.Array) -> Expression:
        return self.call("array", [self.bind(n) for n in node.expressions], node)

    def _map(self, node: exp.Map) -> Expression:
        keys, values = node.args["keys"].expressions, node.args["values"].expressions
        flat = [self.bind(n) for pair in zip(keys, values, strict=True) for n in pair]
        return self.call("map", flat, node)

    def _time_zone(self, node: exp.AtTimeZone) -> Expression:
        return self.call("timezone", [self.bind(node.args["zone"]), self.bind(node.this)], node)

    def _site_call(self, node: exp.Expr) -> Expression:
        if self._site is None:
            raise invalid(
                node, "MR1122", f"a call with OVER can not stand in {self._place}", "put it in a subquery"
            )
        return self._site.over(node)

    def _bound(self, node: nodes.WindowBound) -> Expression:
        if self._site is None:
            raise invalid(
                node, "MR1125", f"window bounds can not stand in {self._place}", "use HAVING or a subquery"
            )
        return self._site.window_bound(node)

    def _subquery(self, node: exp.Expr) -> Expression:
        if self.subqueries is not None and isinstance(node, exp.Subquery):
            return self.subqueries.value(node)
        if self.subqueries is not None and isinstance(node, exp.Exists):
            return self.subqueries.test(node, None)
        raise unsupported(
            node,
            "MR1922",
            f"a query like this can not stand in {self._place}",
            "join with the query in FROM instead",
        )

    def _framed(self, node: nodes.MeasureFrame) -> Expression:
        word = "FINAL" if node.args["final"] else "RUNNING"
        raise unsupported(
            node, "MR1901", f"{word} stands in the MEASURES of MATCH_RECOGNIZE only", "leave it out"
        )

    def _paren(self, node: exp.Paren) -> Expression:
        return self.bind(node.this)

    def _alias(self, node: exp.Alias) -> Expression:
        return self.bind(node.this)

    def _boolean(self, node: exp.Boolean) -> Expression:
        return Literal(bool(node.this), sql.BOOLEAN)

    def _null(self, node: exp.Null) -> Expression:
        return Literal(None, sql.NULL)

    def _tuple(self, node: exp.Tuple) -> Expression:
        return self.call("row", [self.bind(n) for n in node.expressions], node)


def is_untyped(value: Expression) -> bool:
    """Whether it is a string literal, which takes the type its surroundings want."""
    return isinstance(value, Literal) and sql.is_string(value.type)


def check_literal(made: Cast, text: str, node: object) -> None:
    """Evaluates a constant cast once. Raises Invalid MR1136 where it fails."""
    empty = pa.schema([])
    one = pa.RecordBatch.from_struct_array(pa.array([{}], pa.struct([])))
    try:
        compile_expressions([made], empty)(one)
    except (RowError, MillraceError, pa.ArrowException):
        raise invalid(node, "MR1136", f"'{text}' is no {sql.sql_name(made.type)}") from None


def cast(value: Expression, type: pa.DataType) -> Expression:
    """`value` as `type`; constants of numbers are converted on the spot."""
    if value.type == type:
        return value
    if isinstance(value, Literal):
        if value.value is None:
            return Literal(None, type)
        if isinstance(value.value, int) and not isinstance(value.value, bool) and sql.is_integer(value.type):
            if sql.is_float(type):
                return Literal(float(value.value), type)
            if sql.is_decimal(type) and len(str(abs(value.value))) <= type.precision - type.scale:
                return Literal(decimal.Decimal(value.value), type)
            if sql.is_integer(type) and _holds(type, value.value):
                return Literal(value.value, type)
        if isinstance(value.value, decimal.Decimal) and type == sql.DOUBLE:
            return Literal(float(value.value), type)
    return Cast(value, type)


def integer(value: int, node: object) -> Literal:
    """An integer literal: INT where it fits, else BIGINT, else DECIMAL."""
    if -(2**31) <= value < 2**31:
        return Literal(value, sql.INT)
    if -(2**63) <= value < 2**63:
        return Literal(value, sql.BIGINT)
    digits = len(str(abs(value)))
    if digits > sql.MOST_DIGITS:
        raise invalid(node, "MR1112", f"the number {value} has more than {sql.MOST_DIGITS} digits")
    return Literal(decimal.Decimal(value), sql.decimal_type(digits, 0))


def references(expression: Expression) -> bool:
    """Whether it is a bare column."""
    return isinstance(expression, Column)


def _holds(type: pa.DataType, value: int) -> bool:
    bits = type.bit_width
    if pa.types.is_unsigned_integer(type):
        return 0 <= value < 1 << bits
    return -(1 << (bits - 1)) <= value < 1 << (bits - 1)


def _aggregate_only(node: nodes.Call) -> bool:
    """Of a name that is scalar and aggregate alike (max, min of several): whether this call aggregates."""
    return len(node.expressions) <= 1 or any(node.args.get(k) for k in ("distinct", "filter", "order"))


def _named(node: exp.Expr) -> str:
    text = node.sql() if not isinstance(node, exp.Query) else "a query"
    return text if len(text) <= 40 else type(node).__name__.upper()


Handler = Callable[[ScalarBinder, exp.Expr], Expression]
_HANDLERS: dict[type, Handler] = {
    exp.Column: ScalarBinder._column,  # type: ignore[dict-item]
    nodes.Call: ScalarBinder._call,  # type: ignore[dict-item]
    exp.Literal: ScalarBinder._literal,  # type: ignore[dict-item]
    exp.HexString: ScalarBinder._octets,  # type: ignore[dict-item]
    exp.Boolean: ScalarBinder._boolean,  # type: ignore[dict-item]
    exp.Null: ScalarBinder._null,  # type: ignore[dict-item]
    exp.Paren: ScalarBinder._paren,  # type: ignore[dict-item]
    exp.Alias: ScalarBinder._alias,  # type: ignore[dict-item]
    exp.Tuple: ScalarBinder._tuple,  # type: ignore[dict-item]
    nodes.Interval: ScalarBinder._interval,  # type: ignore[dict-item]
    exp.Cast: ScalarBinder._cast,  # type: ignore[dict-item]
    exp.TryCast: ScalarBinder._cast,  # type: ignore[dict-item]
    exp.Case: ScalarBinder._case,  # type: ignore[dict-item]
    exp.If: ScalarBinder._if,  # type: ignore[dict-item]
    exp.Between: ScalarBinder._between,  # type: ignore[dict-item]
    exp.In: ScalarBinder._in,  # type: ignore[dict-item]
    exp.Is: ScalarBinder._is,  # type: ignore[dict-item]
    exp.Not: ScalarBinder._not,  # type: ignore[dict-item]
    exp.Escape: ScalarBinder._escape,  # type: ignore[dict-item]
    exp.Dot: ScalarBinder._dot,  # type: ignore[dict-item]
    exp.Bracket: ScalarBinder._bracket,  # type: ignore[dict-item]
    exp.Array: ScalarBinder._array,  # type: ignore[dict-item]
    exp.Map: ScalarBinder._map,  # type: ignore[dict-item]
    exp.AtTimeZone: ScalarBinder._time_zone,  # type: ignore[dict-item]
    exp.Window: ScalarBinder._site_call,
    nodes.RowsWindow: ScalarBinder._site_call,
    nodes.WindowBound: ScalarBinder._bound,  # type: ignore[dict-item]
    nodes.MeasureFrame: ScalarBinder._framed,  # type: ignore[dict-item]
    exp.Subquery: ScalarBinder._subquery,
    exp.Select: ScalarBinder._subquery,
    exp.Exists: ScalarBinder._subquery,
    exp.Any: ScalarBinder._subquery,
    exp.All: ScalarBinder._subquery,
}
