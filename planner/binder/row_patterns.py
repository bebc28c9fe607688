"""MATCH_RECOGNIZE: pattern variables, and the conditions and measures over the rows that they match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from millrace.errors import Invalid
from millrace.operators.aggregates.signatures import resolve_aggregate
from millrace.operators.expressions.evaluate import is_deterministic
from millrace.operators.expressions.tree import Call, Case, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.match_recognize.pattern import Pattern, variables_of
from millrace.operators.match_recognize.programs import compile_conditions, is_current, word_kind
from millrace.operators.match_recognize.specs import (
    FactKind,
    Leaf,
    MatchFact,
    MatchRecognize,
    Navigation,
    PatternAggregate,
    Skip,
    SkipKind,
    Variables,
)
from millrace.operators.sink import Changelog
from millrace.operators.top.specs import sortable
from millrace.planner.binder.calls import bind_order
from millrace.planner.binder.errors import invalid, located, unsupported
from millrace.planner.binder.scalars import ScalarBinder, cast
from millrace.planner.binder.scope import Scope
from millrace.planner.catalog import suggest
from millrace.planner.dialect import nodes
from millrace.planner.expressions import children, columns_of, substitute, walk, with_children
from millrace.planner.logical import Relation
from millrace.planner.row_patterns import MatchRows

VARIABLES_MAX = 60
_STRICT = frozenset(("+", "-", "*", "/", "%", "=", "<>", "<", "<=", ">", ">=", "not", "abs"))
"""Functions that give NULL for NULL, so that they may be computed where the row is."""
_ENDS = {"first": True, "last": False}
_STEPS = {"prev": -1, "next": 1}
_FACTS = {"match_number": (FactKind.NUMBER, sql.BIGINT), "classifier": (FactKind.CLASSIFIER, sql.STRING)}
_ROWTIME = "match_rowtime"


def bind_match_recognize(node: nodes.MatchRecognize, inner: Scope) -> Relation:
    """The matches that a MATCH_RECOGNIZE over `inner` describes. Raises Invalid and Unsupported with the place."""
    relation = inner.relation
    if relation.changelog is not Changelog.APPEND:
        raise invalid(
            node,
            "MR1353",
            f"MATCH_RECOGNIZE needs rows that are never taken back, and its input is a {relation.changelog.value} stream",
            "EMIT ON WINDOW CLOSE in the inner query",
        )
    keys = _partition(node, inner)
    time, order = _order(node, inner)
    pattern: Pattern = node.args["pattern"]
    names = _Names.of(pattern, node)
    values: list[Expression] = []
    tested = _Leaves(values)
    conditions = [_condition(names, at, inner, tested, time) for at in range(len(names.variables))]
    all_rows = node.args["rows"] == "all"
    measured = _Leaves(values)
    titles, measures = _measures(node, names, inner, measured, time, all_rows=all_rows)
    skip = _skip(node, names)
    shown = range(len(relation.schema)) if all_rows else keys
    _check_titles(node, titles, [relation.schema.field(column).name for column in shown])
    with located(node):
        spec = MatchRecognize(
            relation.schema,
            keys,
            time,
            order,
            pattern,
            tuple(names.variables),
            tuple(conditions),
            tuple(tested.leaves),
            tuple(measures),
            tuple(measured.leaves),
            tuple(titles),
            tuple(values),
            skip,
            all_rows,
            node.args.get("within"),
            _event_time(keys, time, measures, measured, values, all_rows=all_rows),
            relation.time_unit,
        )
    return MatchRows(relation, spec)


@dataclass(slots=True)
class _Names:
    """Variables of a pattern, with their conditions, and subsets of them."""

    variables: list[str]
    defined: dict[int, exp.Expr] = field(default_factory=dict)
    subsets: dict[str, Variables] = field(default_factory=dict)

    @classmethod
    def of(cls, pattern: Pattern, node: nodes.MatchRecognize) -> _Names:
        names = cls(list(dict.fromkeys(variables_of(pattern))))
        if len(names.variables) > VARIABLES_MAX:
            raise unsupported(node, "MR1902", f"the pattern has more than {VARIABLES_MAX} variables")
        for item in node.args.get("subsets") or []:
            name = item.alias
            if names.find(name) is not None:
                raise invalid(
                    item, "MR1161", f"{name} is a variable or subset already", "choose another name"
                )
            members = tuple(names.one(m.name, m) for m in item.this.expressions)
            names.subsets[name.casefold()] = tuple(sorted(set(members)))
        for item in node.args.get("define") or []:
            at = names.one(item.alias, item)
            if at in names.defined:
                raise invalid(
                    item, "MR1161", f"{item.alias} is defined twice", "join the conditions with AND"
                )
            names.defined[at] = item.this
        return names

    def find(self, name: str) -> Variables | None:
        """The variables that a name stands for; None where it is no variable and no subset."""
        folded = name.casefold()
        for at, variable in enumerate(self.variables):
            if variable.casefold() == folded:
                return (at,)
        return self.subsets.get(folded)

    def one(self, name: str, node: object) -> int:
        """The place of a variable. Raises Invalid MR1160."""
        found = self.find(name)
        if found is None or name.casefold() in self.subsets:
            hint = suggest(name, self.variables) or f"it has {', '.join(self.variables)}"
            raise invalid(node, "MR1160", f"the pattern has no variable named {name}", hint)
        return found[0]


@dataclass(slots=True)
class _Leaves:
    """Collects what conditions or measures read; each is a column of theirs."""

    values: list[Expression]
    leaves: list[Leaf] = field(default_factory=list)

    def add(self, leaf: Leaf, name: str) -> Column:
        if leaf not in self.leaves:
            self.leaves.append(leaf)
        return Column(self.leaves.index(leaf), leaf.type, name)

    def value(self, e: Expression) -> int:
        """The place of an expression over a row."""
        if e not in self.values:
            self.values.append(e)
        return self.values.index(e)

    def folded(self, e: Expression) -> Expression:
        """The expression with what it computes of a single row computed there, before rows are matched."""
        columns = columns_of([e])
        if isinstance(e, Column) or not columns:
            return e
        leaves = [self.leaves[c] for c in columns]
        rows = {_row_of(leaf) for leaf in leaves}
        whole = len(rows) == 1 and None not in rows and is_deterministic(e)
        if whole and (is_current(leaves[0]) or all(map(_is_strict, walk(e)))):
            sources = {c: leaf.value for c in columns if isinstance(leaf := self.leaves[c], Navigation)}
            inner = substitute(e, [self.values[sources.get(c, 0)] for c in range(len(self.leaves))])
            first = leaves[0]
            assert isinstance(first, Navigation)
            place = self.value(inner)
            leaf = Navigation(
                first.variables, first.first, first.offset, first.shift, place, e.type, first.final
            )
            return self.add(leaf, "a value")
        return with_children(e, [self.folded(item) for item in children(e)])


def _row_of(leaf: Leaf) -> tuple[object, ...] | None:
    if not isinstance(leaf, Navigation):
        return None
    return (leaf.variables, leaf.first, leaf.offset, leaf.shift, leaf.final)


def _is_strict(e: Expression) -> bool:
    if isinstance(e, Case):
        return False
    return not isinstance(e, Call) or e.function in _STRICT


class _Rows(ScalarBinder):
    """Binds an expression over one row, and notes of which variables' rows it speaks."""

    def __init__(self, scope: Scope, names: _Names, place: str) -> None:
        super().__init__(scope, place)
        self._names = names
        self.spoken: set[Variables] = set()

    def bind(self, node: exp.Expr) -> Expression:
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            variables, value = row_column(self.scope, self._names, node)
            self.spoken.add(variables)
            return value
        if isinstance(node, nodes.Call) and str(node.this) in {*_ENDS, *_STEPS, *_FACTS, _ROWTIME}:
            raise invalid(
                node,
                "MR1162",
                f"{str(node.this).upper()} can not stand there",
                "FIRST and LAST stand in PREV and NEXT only",
            )
        return super().bind(node)


def row_column(scope: Scope, names: _Names, node: exp.Column) -> tuple[Variables, Expression]:
    """The variables whose row a dotted name speaks of (() for any), and its column."""
    parts = [part.name for part in node.parts]
    variables = names.find(parts[0]) if len(parts) > 1 else None
    if variables is None:
        return (), scope.resolve(parts, node)
    return variables, scope.resolve(parts[1:], node)


class _Matches(ScalarBinder):
    """Binds conditions (`tested` is the variable whose condition it is) and measures (None) over matched rows."""

    def __init__(
        self, scope: Scope, names: _Names, leaves: _Leaves, time: int, tested: int | None, *, final: bool
    ) -> None:
        super().__init__(scope, "MEASURES" if tested is None else "DEFINE", self)
        self._names = names
        self._leaves = leaves
        self._time = time
        self._tested = tested
        self._final = final

    def bind(self, node: exp.Expr) -> Expression:
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            variables, value = row_column(self.scope, self._names, node)
            return self._reached(variables, value, node.name)
        if isinstance(node, nodes.MeasureFrame):
            return self._framed(node)
        if isinstance(node, nodes.Call):
            name = str(node.this)
            if name in _ENDS or name in _STEPS:
                return self._navigated(node)
            if name in _FACTS or name == _ROWTIME:
                return self._fact(node, name)
        return super().bind(node)

    def aggregate(self, node: nodes.Call) -> Expression:
        """An aggregate over the rows of one variable."""
        name = str(node.this)
        for part, words in (("filter", "FILTER"), ("order", "ORDER BY"), ("within_group", "WITHIN GROUP")):
            if node.args.get(part):
                raise unsupported(
                    node,
                    "MR1938",
                    f"{words} in an aggregate of matched rows is not executed",
                    "define a variable for them",
                )
        variables: Variables = ()
        arguments: list[Expression] = []
        for argument in node.expressions:
            star = argument.this if isinstance(argument, exp.Column) else argument
            if isinstance(star, exp.Star):
                if isinstance(argument, exp.Column):
                    variables = self._variables(argument.table, argument)
                continue
            spoken, value = self._row_value(argument)
            if arguments and spoken != variables:
                raise self._mixed(node)
            variables = spoken
            arguments.append(value)
        distinct = bool(node.args.get("distinct"))
        with located(node):
            signature = resolve_aggregate(name, [a.type for a in arguments], distinct)
        if signature.constants:
            raise unsupported(
                node,
                "MR1938",
                f"{name} of matched rows is not executed",
                "use count, sum, min, max, avg and their like",
            )
        arguments = [cast(a, t) for a, t in zip(arguments, signature.parameters, strict=True)]
        if signature.name == "count" and self._tested is not None:
            arguments = [a if word_kind(a.type) is not None else _presence(a) for a in arguments]
        places = tuple(self._leaves.value(a) for a in arguments)
        leaf = PatternAggregate(signature.name, variables, places, signature.returns, distinct, self._final)
        return self._leaves.add(leaf, name)

    def over(self, node: exp.Expr) -> Expression:
        """OVER has no place among matched rows."""
        raise invalid(
            node, "MR1157", f"a call with OVER can not stand in {self._place}", "put it in a subquery"
        )

    def grouping(self, node: nodes.Call) -> Expression:
        """Nor has GROUPING."""
        raise invalid(node, "MR1162", f"GROUPING can not stand in {self._place}", "use a subquery")

    def window_bound(self, node: nodes.WindowBound) -> Expression:
        """Nor have window bounds."""
        raise invalid(node, "MR1158", f"window bounds can not stand in {self._place}", "use a subquery")

    def _variables(self, name: str, node: object) -> Variables:
        found = self._names.find(name)
        if found is None:
            hint = suggest(name, self._names.variables) or f"it has {', '.join(self._names.variables)}"
            raise invalid(node, "MR1160", f"the pattern has no variable named {name}", hint)
        return found

    def _reached(
        self,
        variables: Variables,
        value: Expression,
        name: str,
        first: bool = False,
        offset: int = 0,
        shift: int = 0,
    ) -> Column:
        """The leaf of a value in a row. The row that is tested is the last one of its variable."""
        if self._tested in variables and not (first or offset):
            variables = ()
        if len(variables) == len(self._names.variables):
            variables = ()
        place = self._leaves.value(value)
        final = self._final or self._tested is not None
        leaf = Navigation(variables, first, offset, shift, place, value.type, final)
        return self._leaves.add(leaf, name)

    def _row_value(self, node: exp.Expr) -> tuple[Variables, Expression]:
        """A value of one row, and of which variables' rows it speaks."""
        rows = _Rows(self.scope, self._names, self._place)
        value = rows.bind(node)
        if len(rows.spoken) > 1:
            raise self._mixed(node)
        return (rows.spoken.pop() if rows.spoken else ()), value

    def _mixed(self, node: object) -> Invalid:
        return invalid(
            node,
            "MR1163",
            "the argument speaks of rows of different variables",
            "name the same variable before each column",
        )

    def _navigated(self, node: nodes.Call) -> Expression:
        name = str(node.this)
        given = node.expressions
        if not 1 <= len(given) <= 2 or node.args.get("distinct") or node.args.get("filter"):
            raise invalid(
                node, "MR1162", f"{name.upper()} takes a value and a number of rows", f"write {name}(x, 1)"
            )
        if name in _ENDS:
            variables, value = self._row_value(given[0])
            return self._reached(variables, value, name, _ENDS[name], self._count(given, 0))
        shift = _STEPS[name] * self._count(given, 1)
        inner = given[0]
        if not (isinstance(inner, nodes.Call) and str(inner.this) in _ENDS):
            variables, value = self._row_value(inner)
            return self._reached(variables, value, name, shift=shift)
        if not 1 <= len(inner.expressions) <= 2:
            raise invalid(inner, "MR1162", f"{str(inner.this).upper()} takes a value and a number of rows")
        variables, value = self._row_value(inner.expressions[0])
        first, offset = _ENDS[str(inner.this)], self._count(inner.expressions, 0)
        return self._reached(variables, value, name, first, offset, shift)

    def _count(self, given: Sequence[exp.Expr], default: int) -> int:
        if len(given) < 2:
            return default
        value = ScalarBinder(self.scope, self._place).bind(given[1])
        if (
            not isinstance(value, Literal)
            or not isinstance(value.value, int)
            or not 0 <= value.value <= 1_000_000
        ):
            raise invalid(given[1], "MR1162", "the number of rows must be a constant from 0 to 1000000")
        return value.value

    def _fact(self, node: nodes.Call, name: str) -> Expression:
        if node.expressions:
            raise unsupported(
                node, "MR1938", f"{name.upper()} with an argument is not executed", f"write {name.upper()}()"
            )
        if self._tested is not None:
            raise invalid(
                node, "MR1162", f"{name.upper()}() stands in MEASURES only", "name the variable's columns"
            )
        if name == _ROWTIME:
            schema = self.scope.relation.schema
            value = Column(self._time, schema.field(self._time).type, schema.field(self._time).name)
            return self._reached((), value, name)
        kind, type = _FACTS[name]
        final = self._final if kind is FactKind.CLASSIFIER else True
        return self._leaves.add(MatchFact(kind, type, final), name)

    def _framed(self, node: nodes.MeasureFrame) -> Expression:
        call = node.this
        if self._tested is not None:
            raise invalid(
                node, "MR1162", "FINAL and RUNNING stand in MEASURES only", "in DEFINE all is RUNNING"
            )
        before, self._final = self._final, bool(node.args["final"])
        try:
            bound = self.bind(call)
        finally:
            self._final = before
        if not isinstance(bound, Column):
            raise invalid(
                node, "MR1162", "FINAL and RUNNING stand before FIRST, LAST, CLASSIFIER and aggregates"
            )
        return bound


def _presence(value: Expression) -> Expression:
    """NULL where a value is, else 1."""
    absent = Call("is null", (value,), sql.BOOLEAN)
    return Case((absent,), (Literal(None, sql.INT),), Literal(1, sql.INT), sql.INT)


def _partition(node: nodes.MatchRecognize, scope: Scope) -> tuple[int, ...]:
    binder = ScalarBinder(scope, "PARTITION BY")
    places: list[int] = []
    for item in node.args.get("partition_by") or []:
        bound = binder.bind(item)
        if not isinstance(bound, Column):
            raise invalid(
                item, "MR1159", "a pattern is partitioned by columns", "compute the value in a subquery"
            )
        if bound.index not in places:
            places.append(bound.index)
    return tuple(places)


def _order(node: nodes.MatchRecognize, scope: Scope) -> tuple[int, tuple[tuple[int, bool, bool], ...]]:
    """The column of event time, and what orders rows of equal time. Raises Invalid MR1354."""
    clause = node.args.get("order")
    hint = "ORDER BY the column that the source's WATERMARK is for"
    if clause is None:
        raise invalid(node, "MR1354", "MATCH_RECOGNIZE needs ORDER BY", hint)
    time = scope.relation.event_time
    found: list[tuple[int, bool, bool]] = []
    items = bind_order(clause.expressions, ScalarBinder(scope, "ORDER BY"))
    for at, (value, descending, first) in enumerate(items):
        item = clause.expressions[at]
        if not isinstance(value, Column):
            raise invalid(
                item, "MR1354", "rows are matched in the order of columns", "compute the value in a subquery"
            )
        if at == 0 and (value.index != time or descending):
            known = "" if time is None else f", which is {scope.relation.schema.field(time).name}"
            raise invalid(
                item, "MR1354", f"rows are matched in the order of event time{known}, upwards", hint
            )
        if not sortable(value.type):
            raise invalid(item, "MR1355", f"rows can not be ordered by {value.name}, which is {value.type}")
        if at:
            found.append((value.index, descending, first))
    assert time is not None
    return time, tuple(found)


def _condition(names: _Names, at: int, scope: Scope, leaves: _Leaves, time: int) -> Expression | None:
    node = names.defined.get(at)
    if node is None:
        return None
    bound = _Matches(scope, names, leaves, time, at, final=False).condition(node)
    parts = leaves.folded(bound)
    with located(node):
        compile_conditions([parts], leaves.leaves, [value.type for value in leaves.values])
    return parts


def _measures(
    node: nodes.MatchRecognize, names: _Names, scope: Scope, leaves: _Leaves, time: int, *, all_rows: bool
) -> tuple[list[str], list[Expression]]:
    titles: list[str] = []
    found: list[Expression] = []
    for item in node.args.get("measures") or []:
        binder = _Matches(scope, names, leaves, time, None, final=not all_rows)
        value = binder.bind(item.this)
        if value.type == sql.NULL:
            raise invalid(item, "MR1110", f"measure {item.alias} is NULL and has no type", "CAST(NULL AS …)")
        titles.append(item.alias)
        found.append(value)
    return titles, found


def _skip(node: nodes.MatchRecognize, names: _Names) -> Skip:
    kind = SkipKind(str(node.args["after"]))
    target = node.args.get("target")
    if target is None:
        return Skip(kind)
    variables = names.find(target.name)
    if variables is None:
        names.one(target.name, target)
    return Skip(kind, variables or ())


def _check_titles(node: nodes.MatchRecognize, titles: Sequence[str], shown: Sequence[str]) -> None:
    folded = [name.casefold() for name in (*shown, *titles)]
    for item in node.args.get("measures") or []:
        if folded.count(item.alias.casefold()) > 1:
            raise invalid(
                item,
                "MR1144",
                f"two columns of MATCH_RECOGNIZE are named {item.alias}",
                "give the measure another name",
            )


def _event_time(
    keys: tuple[int, ...],
    time: int,
    measures: Sequence[Expression],
    leaves: _Leaves,
    values: Sequence[Expression],
    *,
    all_rows: bool,
) -> int | None:
    """The output column with the time of a row of the match: the order column, or MATCH_ROWTIME()."""
    if all_rows:
        return keys.index(time) if time in keys else len(keys)
    for at, measure in enumerate(measures):
        leaf = leaves.leaves[measure.index] if isinstance(measure, Column) else None
        if isinstance(leaf, Navigation) and is_current(leaf):
            value = values[leaf.value]
            if isinstance(value, Column) and value.index == time:
                return len(keys) + at
    return None
