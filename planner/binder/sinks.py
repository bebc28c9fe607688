"""Queries into sinks: columns aligned with what the sink takes, changelog mode and key chosen. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from millrace.errors import Invalid, MillraceError, Position
from millrace.operators.connectors.registry import find, sink_spec
from millrace.operators.expressions.tree import Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.into_table import IntoTable
from millrace.operators.sink import Changelog, SinkSpec
from millrace.planner.binder.scalars import assignable, cast
from millrace.planner.binder.system_columns import is_headers
from millrace.planner.catalog import suggest
from millrace.planner.expressions import column, columns_of
from millrace.planner.logical import Filter, Project, Read, Relation, Scan
from millrace.planner.rules.order import optimize
from millrace.planner.rules.prefer_upserts import prefer_upserts

HEADERS_OPTION = "headers"


@dataclass(frozen=True, slots=True)
class BoundSink:
    """A sink, the relation it takes and in which mode."""

    relation: Relation
    spec: SinkSpec
    mode: Changelog


def bind_sink(
    connector: str,
    options: Mapping[str, str],
    format: str | None,
    relation: Relation,
    key: tuple[str, ...] | None,
    position: Position,
) -> BoundSink:
    """The sink for a relation. An append-only stream goes as such; a changelog by key where sink and stream allow it.

    Raises Invalid: MR1342 where the sink can not take what the query sends, MR1345 where rows that differ have one key.
    """
    given = dict(options)
    if format is not None:
        given["format"] = format
    given |= _headers_option(connector, given, relation, position)
    named = _key_names(relation, key, position)
    modes = [Changelog.APPEND] if relation.changelog is Changelog.APPEND else []
    if relation.changelog is not Changelog.APPEND:
        modes = [Changelog.UPSERT] if named else []
        modes += [Changelog.RETRACT] if relation.changelog is Changelog.RETRACT else []
    refused: MillraceError | None = None
    for mode in modes:
        try:
            spec = sink_spec(connector, given, relation.schema, mode, named)
        except Invalid as error:
            if error.code != "MR1407":
                raise
            refused = error
            continue
        upserts = mode is Changelog.UPSERT and check_key(relation, named, f"sink '{connector}'", position)
        return BoundSink(prefer_upserts(relation) if upserts else relation, spec, mode)
    kind = relation.changelog.value
    raise Invalid(
        f"the query sends {'changes' if kind != 'append' else 'rows'}, and the sink '{connector}' does not take these",
        code="MR1342",
        hint=_advice(refused, bool(named)),
        position=position,
    )


def _headers_option(
    connector: str, options: Mapping[str, str], relation: Relation, position: Position
) -> dict[str, str]:
    """The option by which a column of headers becomes those of the sink's records. Raises Invalid MR1350."""
    names = [field.name for field in relation.schema if is_headers(field)]
    if not names or not takes_headers(connector):
        return {}
    said = next((value for name, value in options.items() if name.lower() == HEADERS_OPTION), names[0])
    if said != names[0]:
        raise Invalid(
            f"the query makes headers, and option '{HEADERS_OPTION}' names column '{said}'",
            code="MR1350",
            hint=f"leave the option out, or SET_HEADER, REMOVE_HEADER and {names[0]}",
            position=position,
        )
    return {HEADERS_OPTION: said}


def takes_headers(connector: str) -> bool:
    """Whether records of the sink have headers."""
    return any(option.name == HEADERS_OPTION for option in find(connector).sink_options)


def with_headers_last(relation: Relation, connector: str, target: pa.Schema) -> tuple[Relation, pa.Schema]:
    """The relation and the columns a declared sink takes, with the headers of its records behind those declared."""
    found = [i for i, field in enumerate(relation.schema) if is_headers(field)]
    if (
        not found
        or target.get_field_index(relation.schema.names[found[0]]) >= 0
        or not takes_headers(connector)
    ):
        return relation, target
    width = len(relation.schema)
    order = [*(i for i in range(width) if i != found[0]), found[0]]
    values = tuple(column(relation.schema, i) for i in order)
    moved = Project(relation, values, tuple(relation.schema.names[i] for i in order))
    return moved, pa.schema([*target, relation.schema.field(found[0])])


def bind_table(
    table: str, scan: Scan, relation: Relation, columns: Sequence[str], position: Position
) -> BoundSink:
    """The sink that writes a query into one of our tables. A changelog needs its primary key.

    Raises Invalid: MR1342 without such a key, MR1345 where it does not identify the rows.
    """
    schema = scan.input.source.output_schema
    key = tuple(scan.schema.names[k] for k in scan.primary_key or ())
    relation = optimize(align(relation, schema, columns, table, position))
    mode = Changelog.APPEND
    if relation.changelog is not Changelog.APPEND:
        if not key:
            raise Invalid(
                f"the query sends changes, and table {table} has no key by which to replace rows",
                code="MR1342",
                hint=f"declare a PRIMARY KEY, or CREATE TABLE {table} AS the query",
                position=position,
            )
        mode = Changelog.UPSERT
        if check_key(relation, key, f"table {table}", position):
            relation = prefer_upserts(relation)
    return BoundSink(relation, IntoTable(table, schema), mode)


def check_key(relation: Relation, key: Sequence[str], target: str, position: Position) -> bool:
    """Whether `key` is just the key of the query's rows. Raises Invalid MR1345 where rows it takes for one differ."""
    names = relation.schema.names
    own, missing = _told_apart(relation, {names.index(name) for name in key})
    if missing and relation.changelog is not Changelog.APPEND:
        raise Invalid(
            f"the key of {target} is ({', '.join(key)}), and rows of the query are told apart by ({', '.join(own)}): "
            f"rows that differ in {' and '.join(missing)} only would replace each other",
            code="MR1345",
            hint=f"make ({', '.join(own)}) the key, or group by {', '.join(key)} only",
            position=position,
        )
    return relation.key is not None and {names[k] for k in relation.key} == set(key)


def _told_apart(relation: Relation, key: set[int]) -> tuple[list[str], list[str]]:
    """Names of the columns that identify rows, there or further below, and those of them that `key` does not cover.

    A computed column of the key is taken to tell apart what it is computed from.
    """
    while relation.key is None and isinstance(relation, Project | Filter | Read):
        if isinstance(relation, Project):
            key = columns_of([relation.expressions[k] for k in key])
        relation = relation.input
    names, own = relation.schema.names, relation.key or ()
    return [names[k] for k in own], [names[k] for k in own if k not in key]


def _advice(refused: MillraceError | None, keyed: bool) -> str:
    advice = "group by a window and EMIT ON WINDOW CLOSE, so that rows are never taken back"
    if not keyed:
        advice += "; or give the sink a key, if it can replace rows"
    return f"{advice} ({refused.hint})" if refused is not None and refused.hint else advice


def _key_names(relation: Relation, key: tuple[str, ...] | None, position: Position) -> tuple[str, ...]:
    names = relation.schema.names
    if key is None:
        return () if relation.key is None else tuple(names[k] for k in relation.key)
    folded = {n.casefold(): n for n in names}
    for name in key:
        if name.casefold() not in folded:
            raise Invalid(
                f"the key column {name} is not among the columns",
                code="MR1101",
                hint=suggest(name, names) or f"there are {', '.join(names)}",
                position=position,
            )
    return tuple(folded[k.casefold()] for k in key)


def align(
    relation: Relation, target: pa.Schema, columns: Sequence[str], name: str, position: Position
) -> Relation:
    """The relation with the target's columns in order: by `columns`, else by place. Raises Invalid MR1117, MR1110."""
    wanted = list(target.names) if not columns else [_target_name(c, target, name, position) for c in columns]
    have = relation.schema
    if len(have) != len(wanted):
        raise Invalid(
            f"{name} takes {len(wanted)} columns and the query gives {len(have)}",
            code="MR1117",
            hint=f"select {', '.join(wanted)}",
            position=position,
        )
    values: list[Expression] = []
    for field in target:
        if field.name not in wanted:
            values.append(Literal(None, field.type))
            continue
        at = wanted.index(field.name)
        if have.field(at).type != field.type and not _assignable(have.field(at).type, field.type):
            raise Invalid(
                f"column {field.name} of {name} is {sql.sql_name(field.type)}, and the query gives "
                f"{sql.sql_name(have.field(at).type)} ({have.names[at]})",
                code="MR1110",
                hint=f"CAST({have.names[at]} AS {sql.sql_name(field.type)})",
                position=position,
            )
        values.append(cast(column(have, at), field.type))
    same = [f.name for f in have] == target.names and all(
        f.type == t.type for f, t in zip(have, target, strict=False)
    )
    return relation if same else Project(relation, tuple(values), tuple(target.names))


def _assignable(source: pa.DataType, target: pa.DataType) -> bool:
    return sql.can_coerce(source, target) or assignable(source, target)


def _target_name(given: str, target: pa.Schema, name: str, position: Position) -> str:
    found = [n for n in target.names if n.casefold() == given.casefold()]
    if not found:
        raise Invalid(
            f"{name} has no column named {given}",
            code="MR1101",
            hint=suggest(given, target.names) or f"there are {', '.join(target.names)}",
            position=position,
        )
    return found[0]
