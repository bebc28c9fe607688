"""What statements have declared: sources, streams, views, tables, sinks and functions. Binds nothing itself."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from millrace.errors import Invalid, Position
from millrace.operators.source import SourceInput
from millrace.planner.logical import Relation


class EntryKind(enum.Enum):
    """What a name stands for."""

    SOURCE = "source"
    STREAM = "stream"
    VIEW = "view"
    TABLE = "table"
    LOOKUP = "lookup table"
    SINK = "sink"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class External:
    """Something outside: a connector with its options. Read as `source`, written with `schema`'s columns."""

    connector: str
    options: tuple[tuple[str, str], ...]
    format: str | None
    schema: pa.Schema | None
    """Physical columns, as a sink would take them; None: whatever is written."""
    key: tuple[str, ...] = ()
    source: SourceInput | None = None
    """How it is read; None where it can only be written."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a user wrote: `body` takes one Arrow array an argument, or makes an aggregate's state.

    `result` is a schema where it is a table function, which makes rows with those columns.
    """

    arguments: tuple[pa.DataType, ...]
    result: pa.DataType | pa.Schema
    aggregate: bool
    body: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of the catalog, in the spelling it was declared with.

    `relation` is what a query of the name reads (sinks and functions: None). `depends` are the names
    the definition refers to.
    """

    name: str
    kind: EntryKind
    relation: Relation | None = None
    depends: tuple[str, ...] = ()
    external: External | None = None
    function: Function | None = None
    text: str = ""

    @property
    def schema(self) -> pa.Schema | None:
        """Columns that a query of the name sees, or that a sink takes."""
        if self.relation is not None:
            return self.relation.schema
        return None if self.external is None else self.external.schema


class ChangeKind(enum.Enum):
    """What a statement did to the catalog."""

    CREATED = "created"
    REPLACED = "replaced"
    DROPPED = "dropped"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the catalog; `entry` is the new state, or the one that went."""

    kind: ChangeKind
    entry: Entry


@dataclass(slots=True)
class Catalog:
    """Entries by name. Looks up without regard to case; functions have names of their own."""

    _entries: dict[str, Entry] = field(default_factory=dict)

    def copy(self) -> Catalog:
        """Another catalog with the same entries, to try statements on."""
        return Catalog(dict(self._entries))

    def take(self, other: Catalog) -> None:
        """Become what `other` is: the trial went well."""
        self._entries = dict(other._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def of_kind(self, *kinds: EntryKind) -> tuple[Entry, ...]:
        """All entries of these kinds, in the order of declaration."""
        return tuple(entry for entry in self if entry.kind in kinds)

    def find(self, name: str, *, function: bool = False) -> Entry | None:
        """The entry called `name`, or None."""
        return self._entries.get(_slot(name, function))

    def get(
        self, name: str, *, position: Position | None = None, what: str = "source, stream or table"
    ) -> Entry:
        """The entry called `name`. Raises Invalid (MR1201) with the nearest name there is."""
        entry = self.find(name)
        if entry is None:
            names = [e.name for e in self if e.kind is not EntryKind.FUNCTION]
            raise Invalid(
                f"there is no {what} named {name}",
                code="MR1201",
                hint=suggest(name, names) or "create it first; SHOW TABLES lists what there is",
                position=position,
            )
        return entry

    def dependents(self, name: str) -> tuple[Entry, ...]:
        """All entries built on `name`, nearest first."""
        found: dict[str, Entry] = {}
        wanted = {name.casefold()}
        while True:
            more = [
                e
                for e in self
                if e.name.casefold() not in found and wanted & {d.casefold() for d in e.depends}
            ]
            if not more:
                return tuple(found.values())
            found.update((e.name.casefold(), e) for e in more)
            wanted = {e.name.casefold() for e in more}

    def _users(self, entry: Entry) -> tuple[Entry, ...]:
        """What is built on an entry; a function is known to those as `f()`."""
        return self.dependents(f"{entry.name}()" if entry.kind is EntryKind.FUNCTION else entry.name)

    def check_creatable(
        self,
        name: str,
        kind: EntryKind,
        *,
        replace: bool = False,
        if_not_exists: bool = False,
        position: Position | None = None,
    ) -> bool:
        """Whether CREATE should go on; False where it exists and that is fine. Raises Invalid otherwise."""
        old = self.find(name, function=kind is EntryKind.FUNCTION)
        if old is None:
            return True
        if if_not_exists:
            return False
        if not replace:
            raise Invalid(
                f"there is already a {old.kind.value} named {old.name}",
                code="MR1202",
                hint=f"use another name, CREATE OR REPLACE, IF NOT EXISTS, or DROP {_word(old)} {old.name} first",
                position=position,
            )
        if old.kind is not kind:
            raise Invalid(
                f"{old.name} is a {old.kind.value} and can not be replaced by a {kind.value}",
                code="MR1203",
                hint=f"DROP {_word(old)} {old.name} first",
                position=position,
            )
        users = self._users(old)
        if users:
            raise Invalid(
                f"{old.name} can not be replaced: {_listed(users)} built on it",
                code="MR1204",
                hint=f"DROP {_word(old)} {old.name} CASCADE, then create all of them again",
                position=position,
            )
        return True

    def put(self, entry: Entry) -> Change:
        """Add or replace; `check_creatable` went before."""
        slot = _slot(entry.name, entry.kind is EntryKind.FUNCTION)
        kind = ChangeKind.REPLACED if slot in self._entries else ChangeKind.CREATED
        self._entries[slot] = entry
        return Change(kind, entry)

    def drop(
        self,
        name: str,
        kind: EntryKind | None = None,
        *,
        if_exists: bool = False,
        cascade: bool = False,
        position: Position | None = None,
    ) -> tuple[Change, ...]:
        """Take `name` out, with `cascade` all that is built on it (farthest first). Raises Invalid."""
        function = kind is EntryKind.FUNCTION
        entry = self.find(name, function=function)
        if entry is None:
            if if_exists:
                return ()
            names = [e.name for e in self if (e.kind is EntryKind.FUNCTION) == function]
            raise Invalid(
                f"there is no {kind.value if kind else 'entry'} named {name} to drop",
                code="MR1201",
                hint=suggest(name, names) or "DROP … IF EXISTS is content with that",
                position=position,
            )
        self.check_kind(entry, kind, position)
        users = self._users(entry)
        if users and not cascade:
            raise Invalid(
                f"{entry.name} can not be dropped: {_listed(users)} built on it",
                code="MR1206",
                hint=f"DROP {_word(entry)} {entry.name} CASCADE drops these too",
                position=position,
            )
        gone = [*reversed(users), entry]
        for old in gone:
            del self._entries[_slot(old.name, old.kind is EntryKind.FUNCTION)]
        return tuple(Change(ChangeKind.DROPPED, old) for old in gone)

    def check_kind(self, entry: Entry, kind: EntryKind | None, position: Position | None) -> None:
        """Raises Invalid MR1205 where an entry is not of the kind that a statement says (None: it says none)."""
        if kind is not None and not _fits(entry.kind, kind):
            raise Invalid(
                f"{entry.name} is a {entry.kind.value}, not a {kind.value}",
                code="MR1205",
                hint=f"write {_word(entry)} {entry.name}",
                position=position,
            )

    def alter(self, name: str, **changes: object) -> Change:
        """Replace fields of an entry that exists."""
        entry = self.get(name)
        altered = replace(entry, **changes)  # type: ignore[arg-type]
        self._entries[_slot(name, False)] = altered
        return Change(ChangeKind.ALTERED, altered)


def suggest(name: str, names: Iterable[str]) -> str | None:
    """'did you mean …?' where one of `names` is near to `name`, else None."""
    by_folded = {n.casefold(): n for n in names}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"did you mean {by_folded[near[0]]}?" if near else None


def _slot(name: str, function: bool) -> str:
    return f"function {name.casefold()}" if function else name.casefold()


def _fits(kind: EntryKind, asked: EntryKind) -> bool:
    tables = {EntryKind.TABLE, EntryKind.LOOKUP, EntryKind.SOURCE}
    return kind is asked or (asked is EntryKind.TABLE and kind in tables)


def _word(entry: Entry) -> str:
    return "TABLE" if entry.kind is EntryKind.LOOKUP else entry.kind.value.upper()


def _listed(entries: tuple[Entry, ...]) -> str:
    names = ", ".join(f"{e.kind.value} {e.name}" for e in entries[:4])
    more = f" and {len(entries) - 4} more" if len(entries) > 4 else ""
    return f"{names}{more} {'is' if len(entries) == 1 else 'are'}"
