"""VALUES: as rows of a table's columns for INSERT, and as a relation of its own."""

from __future__ import annotations

import pyarrow as pa
from sqlglot import exp

from millrace.errors import Invalid
from millrace.operators.connectors.constant import ConstantRows
from millrace.operators.expressions.evaluate import compile_expressions
from millrace.operators.expressions.tree import Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.functions.row_error import RowError
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import ScalarBinder, cast
from millrace.planner.binder.scope import Scope
from millrace.planner.binder.sources import scan_of
from millrace.planner.catalog import Entry, suggest
from millrace.planner.logical import Relation, Rows
from millrace.planner.statements import InsertValues

_NOTHING = pa.schema([])
_ONE_ROW = pa.RecordBatch.from_struct_array(pa.array([{}], pa.struct([])))


def bind_values(statement: InsertValues, entry: Entry) -> pa.RecordBatch:
    """The rows, with NULL in columns that the statement leaves out. Raises Invalid MR1117, MR1110, MR1119."""
    assert entry.schema is not None
    schema = entry.schema
    wanted = (
        list(schema.names)
        if not statement.columns
        else [_name(c, schema, statement) for c in statement.columns]
    )
    binder = ScalarBinder(Scope.of(Rows(_NOTHING), None), "VALUES")
    columns: dict[str, list[object]] = {name: [] for name in schema.names}
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
                value = binder.assign(node, field.type, f"column {field.name}")
            try:
                (result,) = compile_expressions([value], _NOTHING)(_ONE_ROW)
            except RowError as error:
                raise invalid(node, "MR1119", f"column {field.name}: {error.reason}") from None
            if not field.nullable and not result[0].is_valid:
                raise invalid(node or row[0], "MR1119", f"column {field.name} can not be NULL")
            columns[field.name].append(result[0])
    arrays = [pa.array([v.as_py() for v in columns[f.name]], f.type) for f in schema]  # type: ignore[attr-defined]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def constant_rows(node: exp.Values) -> Relation:
    """`VALUES (…), …` as a relation with columns column1, column2, … Raises Invalid MR1111, MR1119."""
    binder = ScalarBinder(Scope.of(Rows(_NOTHING), None), "VALUES")
    rows = [list(row.expressions) if isinstance(row, exp.Tuple) else [row] for row in node.expressions]
    width = len(rows[0])
    bound = [[binder.bind(value) for value in row] for row in rows]
    columns: list[list[Expression]] = []
    for at in range(width):
        unified = binder.unify([row[at] for row in bound], rows[0][at], f"the values of column {at + 1}")
        columns.append([cast(v, sql.STRING) if v.type == sql.NULL else v for v in unified])
    arrays = []
    for column in columns:
        found: list[pa.Array] = []
        for value, row in zip(column, rows, strict=True):
            try:
                found += compile_expressions([value], _NOTHING)(_ONE_ROW)
            except RowError as error:
                raise invalid(row[0], "MR1119", f"a value of VALUES: {error.reason}") from None
        arrays.append(pa.concat_arrays(found))
    names = [f"column{at + 1}" for at in range(width)]
    spec = ConstantRows.of(pa.RecordBatch.from_arrays(arrays, names))
    return scan_of("values", spec)


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
