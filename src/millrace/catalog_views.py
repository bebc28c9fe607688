"""SHOW and DESCRIBE: what the catalog and the dataflow hold, as rows. Changes nothing."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

import pyarrow as pa

from millrace.errors import Unsupported
from millrace.operators.aggregates.signatures import aggregate_functions
from millrace.operators.expansion.functions import table_functions
from millrace.operators.functions.registry import scalar_functions
from millrace.planner.catalog import Catalog, Entry, EntryKind
from millrace.planner.statements import Describe, Show, ShowKind
from millrace.result import Result
from millrace.settings import Settings

_KINDS = {
    ShowKind.SOURCES: (EntryKind.SOURCE,),
    ShowKind.SINKS: (EntryKind.SINK,),
    ShowKind.STREAMS: (EntryKind.STREAM,),
    ShowKind.TABLES: (EntryKind.TABLE, EntryKind.LOOKUP),
    ShowKind.VIEWS: (EntryKind.VIEW,),
}


def text_rows(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Result:
    """An answer whose columns are all text."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    arrays = [pa.array([None if v is None else str(v) for v in column], pa.string()) for column in columns]
    return Result(pa.table(dict(zip(names, arrays, strict=True))))


def show(catalog: Catalog, statement: Show, settings: Settings, metrics: Callable[[], Result]) -> Result:
    """The answer to one SHOW. Raises Unsupported MR1932 for what only a cluster has."""
    like = statement.like
    match statement.kind:
        case kind if kind in _KINDS:
            entries = catalog.of_kind(*_KINDS[kind])
            rows = [(e.name, e.kind.value, ", ".join(e.depends)) for e in entries if _matches(e.name, like)]
            return text_rows(["name", "kind", "reads"], rows)
        case ShowKind.FUNCTIONS:
            found = [row for row in function_rows() if _matches(row[0].partition("(")[0], like)]
            return text_rows(["signature", "kind", "description"], sorted(found))
        case ShowKind.CREATE:
            assert statement.name is not None
            entry = catalog.get(str(statement.name), position=statement.name.position)
            return text_rows(["name", "statement"], [(entry.name, entry.text)])
        case ShowKind.COLUMNS:
            assert statement.name is not None
            entry = catalog.get(str(statement.name), position=statement.name.position)
            return _columns(entry)
        case ShowKind.SETTINGS:
            return text_rows(["name", "value"], [row for row in settings.rows() if _matches(row[0], like)])
        case ShowKind.METRICS | ShowKind.STATUS:
            return metrics()
    raise Unsupported(
        f"SHOW {statement.kind.value.upper()} needs a cluster",
        code="MR1932",
        position=statement.position,
        hint="an embedded database has SHOW SOURCES, STREAMS, TABLES, SINKS, FUNCTIONS, METRICS and SETTINGS",
    )


def describe(catalog: Catalog, statement: Describe) -> Result:
    """The columns of a source, stream, table or sink; EXTENDED adds what it is and where it comes from."""
    assert statement.name is not None
    entry = catalog.get(str(statement.name), position=statement.name.position)
    if not statement.extended:
        return _columns(entry)
    facts: list[tuple[str, object]] = [("name", entry.name), ("kind", entry.kind.value)]
    facts += [(f"column {field.name}", field.type) for field in entry.schema or ()]
    if entry.external is not None:
        facts.append(("connector", entry.external.connector))
        facts += [(name, value) for name, value in entry.external.options]
    facts += [("reads", name) for name in entry.depends]
    facts.append(("statement", entry.text))
    return text_rows(["property", "value"], facts)


def function_rows() -> list[tuple[str, str, str]]:
    """Signature, kind and description of every function."""
    rows = [(signature, "scalar", text) for _, _, signature, text in scalar_functions()]
    rows += [(found.usage, "aggregate", found.summary) for found in aggregate_functions()]
    rows += [(found.forms, "table", found.description) for found in table_functions()]
    return rows


def schema_rows(schema: pa.Schema) -> Result:
    """Names, types and nullability of columns."""
    rows = [(field.name, field.type, "yes" if field.nullable else "no") for field in schema]
    return text_rows(["column", "type", "nullable"], rows)


def _columns(entry: Entry) -> Result:
    return schema_rows(entry.schema or pa.schema([]))


def _matches(name: str, like: str | None) -> bool:
    if like is None:
        return True
    return fnmatch.fnmatchcase(name.lower(), like.lower().replace("%", "*").replace("_", "?"))
