"""Queries into sinks: columns aligned with what the sink takes, changelog mode and key chosen. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from millrace.errors import Invalid, MillraceError, Position
from millrace.operators.connectors.registry import sink_spec
from millrace.operators.expressions.tree import Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.sink import Changelog, SinkSpec
from millrace.planner.binder.scalars import cast
from millrace.planner.catalog import suggest
from millrace.planner.expressions import column
from millrace.planner.logical import Project, Relation
from millrace.planner.rules.prefer_upserts import prefer_upserts


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

    Raises Invalid: MR1342 where the sink can not take what the query sends.
    """
    given = dict(options)
    if format is not None:
        given["format"] = format
    named = _key_names(relation, key, position)
    conflict = _conflict(relation, named, key is not None)
    modes = [Changelog.APPEND] if relation.changelog is Changelog.APPEND else []
    if relation.changelog is not Changelog.APPEND:
        modes = [Changelog.UPSERT] if named and conflict is None else []
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
        by_own_key = relation.key is not None and {relation.schema.names[k] for k in relation.key} == set(
            named
        )
        upserts = mode is Changelog.UPSERT and by_own_key
        return BoundSink(prefer_upserts(relation) if upserts else relation, spec, mode)
    if conflict is not None:
        raise Invalid(
            f"{conflict}, so rows that differ would replace one another in the sink '{connector}'",
            code="MR1345",
            hint="give the sink the query's own key, or aggregate by the key of the sink",
            position=position,
        )
    kind = relation.changelog.value
    raise Invalid(
        f"the query sends {'changes' if kind != 'append' else 'rows'}, and the sink '{connector}' does not take these",
        code="MR1342",
        hint=_advice(refused, bool(named)),
        position=position,
    )


def _conflict(relation: Relation, named: tuple[str, ...], given: bool) -> str | None:
    """Why a key that the sink was given does not know the query's rows apart; None where it does, or may."""
    if not given or relation.key is None or relation.changelog is Changelog.APPEND:
        return None
    own = [relation.schema.names[k] for k in relation.key]
    if set(own) <= set(named):
        return None
    return f"the sink knows rows by ({', '.join(named)}), and the query's are known by ({', '.join(own)})"


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
    if sql.can_coerce(source, target):
        return True
    return (sql.is_number(source) and sql.is_number(target)) or (
        sql.is_timestamp(source) and sql.is_timestamp(target)
    )


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
