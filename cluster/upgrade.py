"""From one plan of a job to the next: which state and positions go along, and what a checkpoint looks like to the new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from millrace.cluster.job import JobSpec
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.errors import Invalid, MillraceError
from millrace.operators.calc import Calc
from millrace.operators.sink import SinkSpec
from millrace.operators.source import SourceInput
from millrace.planner.plan import Node, Plan
from millrace.state.checkpoints.manifest import Contribution, Manifest


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a new plan does with a checkpoint of the old one. Each line names an operator, source or sink.

    `kept` and `dropped` say how many bytes of state there are. Of what is `empty`, earlier rows are unknown.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    continued: tuple[str, ...] = ()
    """Sources that go on where they stand."""
    begun: tuple[str, ...] = ()
    """Sources that are read from their configured start."""
    ended: tuple[str, ...] = ()
    """Sources and sinks that the new plan does not have."""

    def lines(self) -> list[str]:
        """For people to read."""
        titles = {
            "keeps": self.kept,
            "drops": self.dropped,
            "starts empty": self.empty,
            "goes on reading": self.continued,
            "reads from its start": self.begun,
            "ends": self.ended,
        }
        width = max(map(len, titles))
        return [f"{title:<{width}}  {line}" for title, found in titles.items() for line in found]


def compare(old: JobSpec, new: JobSpec, manifest: Manifest | None) -> Upgrade:
    """What going on with `new` from a checkpoint of `old` means; raises Invalid MR1595 where it can not be."""
    if old.vnodes != new.vnodes:
        raise Invalid(
            f"the job has {old.vnodes} vnodes for life, and the new one says {new.vnodes}",
            code="MR1595",
            hint="leave the setting vnodes as it was",
        )
    sizes = _sizes(manifest)
    before, after = _nodes(old.plan), _nodes(new.plan)
    moved = renamed_sources(old.plan, new.plan)
    stays = {*(hash for hash in before if hash in after), *moved}
    sources = {hash for hash, node in before.items() if isinstance(node.spec, SourceInput)}
    taken = {moved.get(hash, hash) for hash in sources & stays}
    dropped = [hash for hash in before if hash not in after and hash not in sources]
    new_sinks, old_sinks = (_sink_names(plan) for plan in (new.plan, old.plan))
    return Upgrade(
        tuple(f"{_title(old.plan, h)}: {_size(sizes[h])}" for h in before if h in after and h in sizes),
        tuple(f"{_title(old.plan, h)}: {_size(sizes[h])}" for h in dropped if h in sizes),
        tuple(
            _title(new.plan, h) for h, node in after.items() if h not in before and _keeps_state(node, new)
        ),
        tuple(_title(new.plan, h) for h in after if h in taken),
        tuple(
            _title(new.plan, h)
            for h, node in after.items()
            if isinstance(node.spec, SourceInput) and h not in taken
        ),
        (
            *(_title(old.plan, h) for h in before if h in sources and h not in stays),
            *(f"sink {name}" for name in old_sinks if name not in new_sinks),
        ),
    )


def renamed_sources(old: Plan, new: Plan) -> dict[str, str]:
    """Old source nodes whose positions go to other ones: of the same name and kind, reading other columns, say."""
    left: dict[tuple[str | None, type], list[str]] = {}
    right: dict[tuple[str | None, type], list[str]] = {}
    both = _nodes(old).keys() & _nodes(new).keys()
    for plan, found in ((old, left), (new, right)):
        for node in plan.nodes:
            if isinstance(node.spec, SourceInput) and node.hash not in both:
                found.setdefault((node.name, type(node.spec.source)), []).append(node.hash)
    return {
        left[name][0]: right[name][0]
        for name in left
        if len(left[name]) == 1 and len(right.get(name, ())) == 1
    }


def migrated(manifest: Manifest, old: JobSpec, new: JobSpec) -> Manifest:
    """A checkpoint of the old plan as one of the new plan: what that has no node for is left out.

    Raises Invalid MR1594 where rows are still to be published to a sink that the new plan does not have.
    """
    moved = renamed_sources(old.plan, new.plan)
    there = _nodes(new.plan).keys()
    lost = {outbox.sink for outbox in manifest.pending} - new.sinks().keys()
    if lost:
        names = sorted(_sink_names(old.plan, lost))
        raise Invalid(
            f"rows of checkpoint {manifest.number} are still to be published to {', '.join(names)}",
            code="MR1594",
            hint="resume the job with its old SQL and stop it first; then all is published",
        )

    def contribution(was: Contribution) -> Contribution:
        sources = (replace(s, node=moved.get(s.node, s.node)) for s in was.sources)
        return replace(
            was,
            tables=tuple(chain for chain in was.tables if chain.node in there),
            sources=tuple(source for source in sources if source.node in there),
        )

    return replace(manifest, contributions=tuple(map(contribution, manifest.contributions)))


def _nodes(plan: Plan) -> dict[str, Node]:
    return {node.hash: node for node in plan.nodes if not isinstance(node.spec, SinkSpec)}


def _sink_names(plan: Plan, keys: Iterable[str] | None = None) -> list[str]:
    wanted = None if keys is None else {key.rsplit("-", 1)[0] for key in keys}
    return [
        node.name or node.spec.title
        for node in plan.nodes
        if isinstance(node.spec, SinkSpec) and (wanted is None or node.hash in wanted)
    ]


def _sizes(manifest: Manifest | None) -> dict[str, int]:
    """Bytes of state by node."""
    found: dict[str, int] = {}
    for contribution in () if manifest is None else manifest.contributions:
        for chain in contribution.tables:
            found[chain.node] = found.get(chain.node, 0) + sum(ref.size for ref in chain.objects())
    return found


def _size(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000 or unit == "MB":
            break
        size = round(size / 1000)
    return f"{size:,} {unit}"


def _title(plan: Plan, digest: str) -> str:
    """A node as a user knows it: what it does, by which columns, for which outputs."""
    at = next(position for position, node in enumerate(plan.nodes) if node.hash == digest)
    node = plan.nodes[at]
    if isinstance(node.spec, SourceInput):
        return f"source {node.name}"
    readers = [output.name for output in plan.outputs if at in plan.reachable([output.node])]
    details = ", ".join(f"{label} {text}" for label, text in node.spec.details().items() if text)
    return f"{node.spec.title} of {', '.join(dict.fromkeys(readers))}" + (f" ({details})" if details else "")


def _keeps_state(node: Node, job: JobSpec) -> bool:
    if isinstance(node.spec, SourceInput | SinkSpec):
        return False
    context = VertexContext(node.name or "", job.vnodes, wall_clock_us, VertexMetrics(), False)
    try:
        operator = node.spec.build(context)
    except MillraceError:  # it calls a function that only the job's own processes have
        return not isinstance(node.spec, Calc)
    try:
        return bool(operator.capture(changes=False))
    finally:
        operator.close()
