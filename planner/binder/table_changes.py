"""UPDATE and DELETE of the rows of own tables: which rows they are, and what they become. Changes none."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from millrace.errors import Unsupported
from millrace.operators.connectors.push import PushSpec
from millrace.operators.expressions.tree import Expression
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.catalog import Catalog, Entry, suggest
from millrace.planner.expressions import column
from millrace.planner.logical import Positions, Project, Read, Relation, Scan, as_snapshot
from millrace.planner.statements import Delete, Name, Update

Where = Callable[[Scope, exp.Expr], Scope]
"""The rows of a scope for which a condition holds."""


def changed_rows(
    statement: Update | Delete, catalog: Catalog, where: Where
) -> tuple[Entry, Relation, Positions]:
    """The table, the rows that are meant, as they are now and, for UPDATE, behind that as they will be, and its key.

    Raises Invalid MR1101, MR1110, MR1117; Unsupported MR1950 where the table's rows are not known by a key.
    """
    entry = catalog.get(str(statement.target), position=statement.target.position, what="table")
    key = _own_key(entry, statement.target)
    assert entry.relation is not None
    relation = as_snapshot(entry.relation)
    scope = Scope.of(relation, entry.name)
    if statement.where is not None:
        scope = where(scope, statement.where)
    schema = relation.schema
    values: list[Expression] = [column(schema, at) for at in range(len(schema))]
    names = list(schema.names)
    if isinstance(statement, Update):
        values += _assigned(statement, scope)
        names += [f"_new_{name}" for name in schema.names]
    return entry, Project(scope.relation, tuple(values), tuple(names)), key


def _own_key(entry: Entry, target: Name) -> Positions:
    scan = entry.relation.input if isinstance(entry.relation, Read) else None
    own = isinstance(scan, Scan) and isinstance(scan.input.source, PushSpec) and scan.input.computed is None
    if not own or not isinstance(scan, Scan) or scan.primary_key is None:
        raise Unsupported(
            f"the rows of {entry.name} are not known by a key, so none can be changed",
            code="MR1950",
            hint="UPDATE and DELETE need a table created with its columns and a PRIMARY KEY",
            position=target.position,
        )
    return scan.primary_key


def _assigned(statement: Update, scope: Scope) -> list[Expression]:
    schema = scope.relation.schema
    binder = ScalarBinder(scope, "SET")
    values: list[Expression] = [column(schema, at) for at in range(len(schema))]
    seen: set[int] = set()
    for name, node in statement.assignments:
        at = next((i for i, n in enumerate(schema.names) if n.casefold() == str(name).casefold()), None)
        if at is None:
            error = invalid(
                node,
                "MR1101",
                f"{statement.target} has no column named {name}",
                suggest(str(name), schema.names) or f"there are {', '.join(schema.names)}",
            )
            error.position = name.position
            raise error
        if at in seen:
            raise invalid(node, "MR1117", f"column {schema.names[at]} is set twice", "set it once")
        seen.add(at)
        values[at] = binder.assign(node, schema.field(at).type, f"column {schema.names[at]}")
    return values
