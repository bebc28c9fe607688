"""The columns a query can name, and how names find them. Binds no expression beyond a column and its fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.planner.binder.errors import invalid
from millrace.planner.catalog import suggest
from millrace.planner.logical import Relation

WINDOW_COLUMNS = ("window_start", "window_end", "window_time")
EVENT_TIME = "_event_time"
HEADERS = "_headers"
SYSTEM_COLUMNS = frozenset((EVENT_TIME, "_timestamp", "_partition", "_offset", "_topic", "_key", HEADERS))
"""Names that stand for what a record brings beside its value, where nothing else is called that."""


@dataclass(frozen=True, slots=True)
class Member:
    """One relation of FROM: its alias (None: none) and its columns in the scope's relation.

    `hidden` columns are found by a qualified name only (the right side of USING), those `apart` by name only: `*`
    does not mean them, and any other column of that name goes first. `time` is the column of its event time.
    """

    alias: str | None
    start: int
    count: int
    hidden: frozenset[int] = frozenset()
    apart: frozenset[int] = frozenset()
    time: int | None = None

    def shifted(self, by: int) -> Member:
        """The member where its columns stand `by` places further on."""
        return Member(
            self.alias,
            self.start + by,
            self.count,
            frozenset(place + by for place in self.hidden),
            frozenset(place + by for place in self.apart),
            None if self.time is None else self.time + by,
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean inside one query block."""

    relation: Relation
    members: tuple[Member, ...]
    outer: Scope | None = None
    """What names mean around the query, where it stands inside an expression."""

    @classmethod
    def of(cls, relation: Relation, alias: str | None, apart: frozenset[int] = frozenset()) -> Scope:
        """The scope of one relation; `apart` are columns that only their names mean."""
        return cls(relation, (Member(alias, 0, len(relation.schema), apart=apart, time=relation.event_time),))

    def over(self, relation: Relation) -> Scope:
        """The same names on a relation that has the same columns, perhaps more behind them (nameable too)."""
        more = len(relation.schema) - sum(m.count for m in self.members)
        if not more:
            return Scope(relation, self.members, self.outer)
        start = len(relation.schema) - more
        if len(self.members) == 1:
            only = self.members[0]
            return Scope(relation, (replace(only, count=start + more),), self.outer)
        return Scope(relation, (*self.members, Member(None, start, more)), self.outer)

    def resolve(self, parts: Sequence[str], node: object) -> Expression:
        """The column (or field of a column) that a dotted name means. Raises Invalid MR1101, MR1102, MR1103."""
        if len(parts) > 1:
            members = [
                m for m in self.members if m.alias is not None and m.alias.casefold() == parts[0].casefold()
            ]
            for member in members:
                found = self._find(parts[1], [member], hidden=True)
                if found:
                    return self._fields(self._column(found, parts[1], node), parts[2:], node)
            if members and not self._find(parts[0], self.members):
                raise self._unknown(".".join(parts[:2]), parts[1], members, node)
        found = self._find(parts[0], self.members)
        if not found:
            if len(parts) > 1:
                aliases = [m.alias for m in self.members if m.alias]
                hint = (
                    suggest(parts[0], aliases)
                    or f"the query reads {', '.join(aliases) or 'unnamed relations'}"
                )
                raise invalid(node, "MR1102", f"there is no relation or column named {parts[0]}", hint)
            raise self._unknown(parts[0], parts[0], self.members, node)
        return self._fields(self._column(found, parts[0], node), parts[1:], node)

    def has(self, name: str) -> bool:
        """Whether some column is called so."""
        return bool(self._find(name, self.members))

    def star(self, qualifier: str | None, node: object) -> list[Column]:
        """The columns that `*` or `t.*` stands for."""
        members = [
            m
            for m in self.members
            if qualifier is None or (m.alias is not None and m.alias.casefold() == qualifier.casefold())
        ]
        if not members:
            aliases = [m.alias for m in self.members if m.alias]
            raise invalid(
                node, "MR1102", f"there is no relation named {qualifier}", suggest(qualifier or "", aliases)
            )
        return [
            self._at(i)
            for m in members
            for i in range(m.start, m.start + m.count)
            if (qualifier is not None or i not in m.hidden) and i not in m.apart
        ]

    def _at(self, index: int) -> Column:
        field = self.relation.schema.field(index)
        return Column(index, field.type, field.name)

    def _find(self, name: str, members: Sequence[Member], *, hidden: bool = False) -> list[int]:
        folded = name.casefold()
        names = self.relation.schema.names
        found = [
            i
            for m in members
            for i in range(m.start, m.start + m.count)
            if names[i].casefold() == folded and (hidden or i not in m.hidden)
        ]
        if not found and folded == EVENT_TIME:
            found = [m.time for m in members if m.time is not None]
        if len(found) > 1:
            apart = {i for m in members for i in m.apart}
            found = [i for i in found if i not in apart] or found
        exact = [i for i in found if names[i] == name]
        return exact if len(exact) == 1 else found

    def _column(self, found: list[int], name: str, node: object) -> Column:
        if len(found) > 1:
            owners = [
                m.alias for i in found for m in self.members if m.start <= i < m.start + m.count and m.alias
            ]
            named = [o for o in owners if o]
            hint = (
                f"write {' or '.join(f'{o}.{name}' for o in dict.fromkeys(named))}"
                if len(set(named)) > 1
                else None
            )
            raise invalid(
                node, "MR1103", f"column {name} is ambiguous", hint or "give the columns different names"
            )
        return self._at(found[0])

    def _fields(self, value: Expression, path: Sequence[str], node: object) -> Expression:
        for name in path:
            value = field_of(value, name, node)
        return value

    def _unknown(self, shown: str, name: str, members: Sequence[Member], node: object) -> Exception:
        if name.casefold() in SYSTEM_COLUMNS:
            return invalid(
                node,
                "MR1155",
                f"what the query reads has no {shown}",
                "a source with a watermark has _event_time"
                if name.casefold() == EVENT_TIME
                else "a Kafka source has it, in the query that reads the source itself: give it a name there with AS",
            )
        names = [self.relation.schema.names[i] for m in members for i in range(m.start, m.start + m.count)]
        listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        hint = suggest(name, names) or (f"there are {listed}" if names else "the query has no FROM")
        if name.casefold() in WINDOW_COLUMNS:
            hint = "add a window to GROUP BY, such as TUMBLE(ts, INTERVAL '1' MINUTE), or to FROM"
        return invalid(node, "MR1101", f"there is no column named {shown}", hint)


def field_of(value: Expression, name: str, node: object) -> Expression:
    """The field `name` of a struct. Raises Invalid MR1104."""
    if not pa.types.is_struct(value.type):
        raise invalid(node, "MR1104", f"{name} is not a field: the value before the dot is no ROW")
    names = [f.name for f in value.type]
    hit = [i for i, n in enumerate(names) if n == name] or [
        i for i, n in enumerate(names) if n.casefold() == name.casefold()
    ]
    if not hit:
        raise invalid(
            node,
            "MR1104",
            f"there is no field named {name}",
            suggest(name, names) or f"there are {', '.join(names)}",
        )
    found = value.type.field(hit[0])
    return Call("struct_field", (value, Literal(found.name, pa.string())), found.type)
