"""Logical joins to operator specs; a projection above chooses the columns that come out. Rewrites nothing."""

from __future__ import annotations

from millrace.operators.calc import Calc
from millrace.operators.expressions.tree import Column
from millrace.operators.joins.lookup_spec import LookupJoin
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin, SideInput
from millrace.operators.spec import OperatorSpec
from millrace.planner.expressions import column, columns_of, remap
from millrace.planner.logical import Join, Project, Relation
from millrace.planner.table_lookup import TableLookup


def join_of(node: Join | TableLookup) -> tuple[tuple[Relation, ...], OperatorSpec]:
    """The operator for a join with all of its columns."""
    return _regular(node, tuple(range(len(node.schema))), tuple(node.schema.names))


def project_join(node: Project, join: Join | TableLookup) -> tuple[tuple[Relation, ...], OperatorSpec]:
    """The operator for a projection of a join: the join itself where columns are only chosen."""
    chosen = tuple(e.index for e in node.expressions if isinstance(e, Column))
    if len(chosen) == len(node.expressions) and chosen:
        return _regular(join, chosen, node.names)
    needed = sorted(columns_of(node.expressions)) or [0]
    if len(needed) == len(join.schema):
        return (join,), Calc(join.schema, None, node.expressions, node.names)
    names = tuple(join.schema.names[c] for c in needed)
    below = Project(join, tuple(column(join.schema, c) for c in needed), names)
    places = {c: at for at, c in enumerate(needed)}
    values = tuple(remap(e, places) for e in node.expressions)
    return (below,), Calc(below.schema, None, values, node.names)


def _regular(
    node: Join | TableLookup, outputs: tuple[int, ...], names: tuple[str, ...]
) -> tuple[tuple[Relation, ...], OperatorSpec]:
    if isinstance(node, TableLookup):
        return node.inputs, LookupJoin(
            node.left.schema,
            node.right.schema,
            JoinKind(node.kind),
            tuple(a for a, _ in node.equal),
            tuple(b for _, b in node.equal),
            node.condition,
            outputs,
            names,
            SideInput(node.right.changelog, node.right.key),
        )
    pairs = (*node.equal, *node.null_equal)
    return node.inputs, RegularJoin(
        node.left.schema,
        node.right.schema,
        JoinKind.INNER if node.kind == "cross" else JoinKind(node.kind),
        tuple(a for a, _ in pairs),
        tuple(b for _, b in pairs),
        (False,) * len(node.equal) + (True,) * len(node.null_equal),
        node.condition,
        outputs,
        names,
        SideInput(node.left.changelog, node.left.key),
        SideInput(node.right.changelog, node.right.key),
        node.ttl,
    )
