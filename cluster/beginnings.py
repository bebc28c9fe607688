"""Where splits begin that no checkpoint speaks of: found once, kept in the store, the same after every failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millrace.cluster.job import JobSpec
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.errors import Bug
from millrace.operators.source import Position, Source, SourceInput
from millrace.state.checkpoints.sealed import seal, unseal
from millrace.state.store import Store

_VERSION = 1
Splits = tuple[tuple[str, str], ...]
"""(source node, split)."""


class Beginnings:
    """The positions from which splits are read that nobody has read before, as the store has them.

    They are objects that are created once and never removed. Who reads a split looks here where its checkpoint does not
    say: `latest` thus means the moment the job began, whoever reads the split and however often it starts over.
    """

    def __init__(self, store: Store, job: str) -> None:
        self._store = store
        self._job = job
        self._known: dict[str, dict[str, Position]] = {}
        self._objects = 0

    def read(self) -> None:
        """Take in what others have added."""
        while (data := self._store.get(self._key(self._objects))) is not None:
            _, found = unseal("beginnings", range(1, _VERSION + 1), data, self._key(self._objects))
            for node, splits in found.items():
                self._known.setdefault(node, {}).update(splits)
            self._objects += 1

    def of(self, node: str, split: str) -> Position | None:
        """Where the split begins; None where its source knows by itself."""
        found = self._known.get(node, {}).get(split)
        return dict(found) if found else None

    def missing(self, node: str, splits: Sequence[str]) -> list[str]:
        """Those of the splits about which nothing is kept yet."""
        known = self._known.get(node, {})
        return [split for split in splits if split not in known]

    def knows(self, node: str) -> bool:
        """Whether the source has begun before: what appears later is read from its first row on."""
        return node in self._known

    def add(self, found: Mapping[str, Mapping[str, Position]]) -> None:
        """Keep positions by node and split; where somebody else was quicker, what that one says holds."""
        while any(not self.knows(node) or self.missing(node, list(splits)) for node, splits in found.items()):
            new = {
                node: {split: dict(splits[split]) for split in self.missing(node, list(splits))}
                for node, splits in found.items()
            }
            self._store.create(self._key(self._objects), seal("beginnings", _VERSION, new))
            before = self._objects
            self.read()
            if self._objects == before:
                raise Bug("beginnings that were stored can not be read")

    def _key(self, number: int) -> str:
        return f"{self._job}/beginnings/{number:06d}"


class Discovery:
    """All splits of a job's sources, with their beginnings in the store before anybody hears of them."""

    def __init__(self, job: JobSpec, store: Store) -> None:
        self._job = job
        self._beginnings = Beginnings(store, job.job)
        self._sources: list[tuple[str, Source]] = []

    @property
    def changing(self) -> bool:
        """Whether new splits may appear while the job runs."""
        specs = (node.spec for node in self._job.plan.nodes)
        return any(isinstance(spec, SourceInput) and not spec.source.bounded for spec in specs)

    def look(self) -> Splits:
        """Every split there is. Waits for whoever has to be asked; raises what sources and the store raise."""
        if not self._sources:
            self._sources = [
                (node.hash, node.spec.source.build(self._context(node.name or "source")))
                for node in self._job.plan.nodes
                if isinstance(node.spec, SourceInput)
            ]
        splits = {node: source.discover() for node, source in self._sources}
        self._beginnings.read()
        found = {}
        for node, source in self._sources:
            missing = self._beginnings.missing(node, splits[node])
            if missing or not self._beginnings.knows(node):
                begins = source.begin(missing, first=not self._beginnings.knows(node))
                found[node] = {split: begins.get(split, {}) for split in missing}
        if found:
            self._beginnings.add(found)
        return tuple((node, split) for node, _ in self._sources for split in splits[node])

    def _context(self, name: str) -> VertexContext:
        return VertexContext(
            name, self._job.vnodes, wall_clock_us, VertexMetrics(), self._job.stop_at_bad_rows
        )
