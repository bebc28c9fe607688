"""Rows of INSERT … VALUES as a record batch of the table's columns."""

from __future__ import annotations

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.expressions.evaluate import compile_expressions
from millrace.operators.expressions.tree import Expression, Literal
from millrace.operators.functions.row_error import RowError
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.catalog import Entry, suggest
from millrace.planner.logical import Rows
from millrace.planner.statements import InsertValues

_NOTHING = pa.schema([])


def bind_values(statement: InsertValues, entry: Entry) -> pa.RecordBatch:
    """The rows, with NULL in columns that the statement leaves out. Raises Invalid MR1117, MR1110, MR1119."""
    assert entry.schema is not None
    schema = entry.schema
    wanted = (
        list(schema.names)
        if not statement.columns
        else [_name(c, schema, statement) for c in statement.columns]
    )
    binder = ScalarBinder(Scope.of(Rows(_NOTHING, ()), None), "VALUES")
    columns: dict[str, list[object]] = {name: [] for name in schema.names}
    one = pa.RecordBatch.from_pylist([{}], schema=_NOTHING)
    one = pa.RecordBatch.from_struct_array(pa.array([{}], pa.struct([])))
    for row in statement.rows:
        if len(row) != len(wanted):
            raise invalid(
                row[0],
                "MR1117",
                f"{len(row)} values are given for {len(wanted)} columns",
                f"give {', '.join(wanted)}",
            )
        given = dict(zip(wanted, row, strict=True))
        for field in schema:
            node = given.get(field.name)
            value: Expression = Literal(None, field.type)
            if node is not None:
                value = binder.bind_as(node, field.type, f"column {field.name}")
            try:
                (result,) = compile_expressions([value], _NOTHING)(one)
            except RowError as error:
                raise invalid(node, "MR1119", f"column {field.name}: {error.reason}") from None
            if not field.nullable and not result[0].is_valid:
                raise invalid(node or row[0], "MR1119", f"column {field.name} can not be NULL")
            columns[field.name].append(result[0])
    arrays = [pa.array([v.as_py() for v in columns[f.name]], f.type) for f in schema]  # type: ignore[attr-defined]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _name(given: str, schema: pa.Schema, statement: InsertValues) -> str:
    found = [n for n in schema.names if n.casefold() == given.casefold()]
    if not found:
        raise Invalid(
            f"{statement.target} has no column named {given}",
            code="MR1101",
            hint=suggest(given, schema.names) or f"there are {', '.join(schema.names)}",
            position=statement.target.position,
        )
    return found[0]
