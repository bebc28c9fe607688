"""Each rewrite rule on small trees: the tree before, the outline after."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from millrace.operators.aggregates.calls import CHANGES, ON_CLOSE, AggregateCall, Tumble
from millrace.operators.connectors.arrow import ArrowTable
from millrace.operators.expressions.text import to_sql
from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.operators.over.frames import Frame, FrameUnit
from millrace.operators.source import EventTime
from millrace.planner.binder.sources import scan_of
from millrace.planner.framing import Over
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    Filter,
    Join,
    Project,
    Read,
    Relation,
    Scan,
    Union,
    WindowedAggregate,
)
from millrace.planner.ranking import Ranking, SortKey, TopN
from millrace.planner.rules.fuse_windows import fuse_windows
from millrace.planner.rules.merge_filters import merge_filters
from millrace.planner.rules.merge_projects import merge_projects
from millrace.planner.rules.prefer_upserts import prefer_upserts
from millrace.planner.rules.prune_columns import prune_columns
from millrace.planner.rules.push_predicates import push_predicates
from millrace.planner.rules.rank_to_top import rank_to_top
from millrace.planner.rules.read_through_projects import read_through_projects

INT, TIME = pa.int64(), pa.timestamp("ms")
SCHEMA = pa.schema([("a", INT), ("b", INT), ("c", INT), ("ts", TIME)])
SCAN = scan_of("t", ArrowTable(1, SCHEMA), EventTime(3))
COUNT = AggregateCall("count", (), INT)


def col(index: int, name: str, type: pa.DataType = INT) -> Column:
    return Column(index, type, name)


A, B, C, TS = (col(i, f.name, f.type) for i, f in enumerate(SCHEMA))


def above(value: Expression, least: int) -> Expression:
    return Call(">", (value, Literal(least, INT)), pa.bool_())


def plus(value: Expression, more: int) -> Expression:
    return Call("+", (value, Literal(more, INT)), INT)


def both(left: Expression, right: Expression) -> Expression:
    return Call("and", (left, right), pa.bool_())


def total(column: int) -> AggregateCall:
    return AggregateCall("sum", (column,), INT)


def outline(node: Relation) -> str:
    """One line: operators from the top with what matters of each."""
    below = ", ".join(outline(item) for item in node.inputs)
    match node:
        case Scan():
            return f"t({', '.join(node.schema.names)})"
        case Read():
            return f"read {node.name}"
        case Filter():
            return f"filter[{to_sql(node.predicate)}] {below}"
        case Project():
            return f"project[{', '.join(to_sql(e) for e in node.expressions)}] {below}"
        case Aggregate():
            upsert = "!" if node.emission.upsert else ""
            calls = ", ".join(f"{c.function}{list(c.arguments)}" for c in node.calls)
            return f"group{upsert}[{list(node.keys)}: {calls}] {below}"
        case WindowedAggregate():
            calls = ", ".join(f"{c.function}{list(c.arguments)}" for c in node.calls)
            bounds = "".join("+" if asked else "-" for asked in node.with_bounds)
            return f"window[{list(node.keys)} by {node.time} {bounds}: {calls}] {below}"
        case AssignWindow():
            return f"assign[{node.time}] {below}"
        case Over():
            return f"over[{list(node.partition)} by {node.order}: {len(node.calls)}] {below}"
        case TopN():
            return f"top[{node.limit} {node.function} by {[k.column for k in node.order]}] {below}"
        case Ranking():
            return f"ranking {below}"
        case Union():
            return f"union({below})"
        case Join():
            return f"join{list(node.equal)}({below})"
    raise AssertionError(type(node).__name__)


def groups(below: Relation, *keys: int, calls: tuple[AggregateCall, ...] = (COUNT,)) -> Aggregate:
    names = tuple(below.schema.names[k] for k in keys) + tuple(f"call{i}" for i in range(len(calls)))
    return Aggregate(below, keys, calls, names, CHANGES)


def picked(below: Relation, *columns: int) -> Project:
    schema = below.schema
    return Project(
        below,
        tuple(Column(c, schema.field(c).type, schema.names[c]) for c in columns),
        tuple(schema.names[c] for c in columns),
    )


WINDOWED = AssignWindow(SCAN, 3, Tumble(10))
RANKED = Ranking(SCAN, (0,), (SortKey(1, True),), "rank", "r")
R = col(4, "r")
CURRENT = Frame(FrameUnit.ROWS, -1, 0)

Rule = Callable[[Relation], Relation]
CASES: list[tuple[Rule, Relation, str]] = [
    (merge_filters, Filter(Filter(SCAN, above(A, 1)), above(B, 2)), "filter[(a > 1) AND (b > 2)] t(a, b, c, ts)"),
    (merge_projects, picked(picked(SCAN, 2, 0), 1), "project[a] t(a, b, c, ts)"),
    (merge_projects, picked(SCAN, 0, 1, 2, 3), "t(a, b, c, ts)"),
    (
        merge_projects,
        Project(Project(SCAN, (plus(A, 1),), ("x",)), (plus(col(0, "x"), 2),), ("y",)),
        "project[(a + 1) + 2] t(a, b, c, ts)",
    ),
    (
        merge_projects,  # not where a value would be computed twice
        Project(Project(SCAN, (plus(A, 1),), ("x",)), (col(0, "x"), plus(col(0, "x"), 2)), ("x", "y")),
        "project[x, x + 2] project[a + 1] t(a, b, c, ts)",
    ),
    (merge_projects, Project(groups(SCAN, 0), (col(0, "a"), col(1, "call0")), ("k", "n")), "group[[0]: count[]] t(a, b, c, ts)"),
    (
        push_predicates,
        Filter(Project(SCAN, (plus(A, 1), B), ("x", "y")), above(col(0, "x"), 3)),
        "project[a + 1, b] filter[(a + 1) > 3] t(a, b, c, ts)",
    ),
    (push_predicates, Filter(groups(SCAN, 1), above(col(0, "b"), 3)), "group[[1]: count[]] filter[b > 3] t(a, b, c, ts)"),
    (
        push_predicates,
        Filter(groups(SCAN, 1), both(above(col(0, "b"), 3), above(col(1, "call0"), 4))),
        "filter[call0 > 4] group[[1]: count[]] filter[b > 3] t(a, b, c, ts)",
    ),
    (push_predicates, Filter(groups(SCAN), above(col(0, "call0"), 3)), "filter[call0 > 3] group[[]: count[]] t(a, b, c, ts)"),
    (push_predicates, Filter(Union((SCAN, SCAN)), above(A, 1)), "union(filter[a > 1] t(a, b, c, ts), filter[a > 1] t(a, b, c, ts))"),
    (push_predicates, Filter(WINDOWED, above(A, 1)), "assign[3] filter[a > 1] t(a, b, c, ts)"),
    (
        push_predicates,
        Filter(Over(SCAN, (0,), 3, CURRENT, (total(1),), ("s",)), both(above(A, 1), above(B, 2))),
        "filter[b > 2] over[[0] by 3: 1] filter[a > 1] t(a, b, c, ts)",
    ),
    (push_predicates, Filter(Read(SCAN, "s"), above(A, 1)), "filter[a > 1] read s"),
    (fuse_windows, groups(WINDOWED, 0, 4, 5), "window[[0] by 3 ++: count[]] t(a, b, c, ts)"),
    (
        fuse_windows,
        groups(WINDOWED, 4, 0, 5, calls=(total(1),)),
        "project[window_start, a, window_end, call0] window[[0] by 3 ++: sum[1]] t(a, b, c, ts)",
    ),
    (
        fuse_windows,
        groups(Filter(picked(WINDOWED, 1, 4, 5), above(col(0, "b"), 2)), 0, 1, 2),
        "window[[0] by 3 ++: count[]] filter[b > 2] project[b, NULL, NULL, ts] t(a, b, c, ts)",
    ),
    (fuse_windows, groups(WINDOWED, 0, 4), "group[[0, 4]: count[]] assign[3] t(a, b, c, ts)"),
    (
        fuse_windows,  # the calls read a bound
        groups(WINDOWED, 4, 5, calls=(AggregateCall("max", (4,), TIME),)),
        "group[[4, 5]: max[4]] assign[3] t(a, b, c, ts)",
    ),
    (prune_columns, picked(SCAN, 2), "project[c] t(c)"),
    (prune_columns, picked(Filter(SCAN, above(B, 1)), 2), "project[c] project[c] filter[b > 1] t(b, c)"),
    (prune_columns, groups(SCAN, 1, calls=(total(2),)), "group[[0]: sum[1]] t(b, c)"),
    (prune_columns, picked(groups(SCAN, 1, calls=(total(2), COUNT)), 0, 2), "project[b, call1] group[[0]: count[]] t(b)"),
    (
        prune_columns,
        picked(WindowedAggregate(SCAN, 3, Tumble(9), (0,), (total(1), COUNT), ("a", "s", "e", "x", "y"), ON_CLOSE), 0, 4),
        "project[a, y] window[[0] by 1 -+: count[]] t(a, ts)",
    ),
    (
        prune_columns,
        picked(Over(SCAN, (0,), 3, CURRENT, (total(1), total(2)), ("s", "z")), 5),
        "project[z] over[[0] by 2: 1] t(a, c, ts)",
    ),
    (prune_columns, picked(Over(SCAN, (0,), 3, CURRENT, (total(1),), ("s",)), 2), "project[c] t(c)"),
    (prune_columns, picked(Union((SCAN, SCAN)), 1), "project[b] union(t(b), t(b))"),
    (prune_columns, picked(Join(SCAN, SCAN, "inner", ((0, 1),)), 2, 7), "project[c, ts] join[(0, 0)](t(a, c), t(b, ts))"),
    (read_through_projects, groups(picked(SCAN, 2, 0), 1, calls=(total(0),)), "group[[0]: sum[2]] t(a, b, c, ts)"),
    (
        read_through_projects,
        groups(picked(Filter(SCAN, above(A, 1)), 2, 0), 1),
        "group[[1]: count[]] project[c, a] filter[a > 1] t(a, b, c, ts)",
    ),
    (rank_to_top, Filter(RANKED, Call("<=", (R, Literal(2, INT)), pa.bool_())), "top[2 rank by [1]] t(a, b, c, ts)"),
    (
        rank_to_top,
        Filter(picked(RANKED, 4, 2), both(Call("=", (col(0, "r"), Literal(1, INT)), pa.bool_()), above(col(1, "c"), 5))),
        "project[r, c] filter[c > 5] top[1 rank by [1]] t(a, b, c, ts)",
    ),
    (rank_to_top, Filter(RANKED, above(R, 2)), "filter[r > 2] ranking t(a, b, c, ts)"),
    (prefer_upserts, groups(SCAN, 0), "group![[0]: count[]] t(a, b, c, ts)"),
    (prefer_upserts, picked(groups(SCAN, 0), 1, 0), "project[call0, a] group![[0]: count[]] t(a, b, c, ts)"),
    (prefer_upserts, picked(groups(SCAN, 0), 1), "project[call0] group[[0]: count[]] t(a, b, c, ts)"),
    (prefer_upserts, Filter(groups(SCAN, 0), above(col(1, "n"), 2)), "filter[n > 2] group[[0]: count[]] t(a, b, c, ts)"),
    (prefer_upserts, groups(SCAN), "group[[]: count[]] t(a, b, c, ts)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "before", "after"), CASES, ids=[f"{c[0].__name__}-{i}" for i, c in enumerate(CASES)]
)
def test_rule_rewrites(rule: Rule, before: Relation, after: str) -> None:
    rewritten = rule(before)
    assert outline(rewritten) == after
    assert rewritten.schema.equals(before.schema)
