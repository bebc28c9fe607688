"""A job as it is kept in the store: its plan and what it runs with. Starts nothing."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from millrace.cluster.exchange.security import ExchangeTls
from millrace.cluster.functions import CarriedFunction
from millrace.errors import Corrupt, Invalid, Unsupported
from millrace.operators.connectors.push import PushSpec
from millrace.operators.into_table import IntoTable
from millrace.operators.metric_tap import MetricTap
from millrace.operators.sink import Commit, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.spec import decode, encode, serialisable, structural_hash
from millrace.planner.physical.partitioned import for_partitions
from millrace.planner.plan import Node, OutputKind, Plan
from millrace.state.checkpoints.sealed import seal, unseal
from millrace.state.checkpoints.snapshots import write_object
from millrace.state.store import Store

_VERSION = 1
PLACEMENTS = ("spread", "pack")


@serialisable
@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything that does not change while a job lives, its number of partitions aside. Times are in s.

    A partition that is silent for `liveness_s` is replaced; one that hears nothing for `lease_s` ends itself.
    """

    job: str
    plan: Plan
    partitions: int = 1
    vnodes: int = 256
    batch_rows: int = 65_536
    stop_at_bad_rows: bool = False
    guarantee: str = "exactly_once"
    checkpoint_interval_s: float = 1.0
    liveness_s: float = 2.0
    lease_s: float = 6.0
    functions: tuple[CarriedFunction, ...] = ()
    cpus: float = 1.0
    """Set aside for each partition."""
    placement: str = "spread"
    """`spread`: over nodes as evenly as there is room; `pack`: on the coordinator's node as far as there is room."""
    resources: tuple[tuple[str, float], ...] = ()
    """Custom resources of nodes that each partition takes, by name."""
    exchange_tls: ExchangeTls | None = None
    incarnation: str = ""
    """Tells this job from former ones of the same name, where sinks left marks outside; empty until it is settled."""

    def sinks(self) -> dict[str, int]:
        """Position of each sink by the name that checkpoints know it by."""
        found: dict[str, int] = {}
        for position, node in enumerate(self.plan.nodes):
            if isinstance(node.spec, SinkSpec):
                same = sum(name.startswith(node.hash) for name in found)
                found[f"{node.hash}-{same}"] = position
        return found


def settled(spec: JobSpec, incarnation: str = "") -> JobSpec:
    """The spec as it is kept: with an incarnation of its own, and sinks that publish under the job's name.

    A job that goes on with what another spec left (an upgrade) keeps that one's `incarnation`.
    """
    if spec.incarnation:
        return spec
    incarnation = incarnation or uuid.uuid4().hex[:12]
    names = {position: name for name, position in spec.sinks().items()}
    job = f"{spec.job}.{incarnation}"
    nodes = tuple(
        replace(node, spec=node.spec.in_job(job, names[position], spec.guarantee))
        if isinstance(node.spec, SinkSpec)
        else node
        for position, node in enumerate(spec.plan.nodes)
    )
    return replace(spec, plan=replace(spec.plan, nodes=nodes), incarnation=incarnation)


def check_job(spec: JobSpec) -> None:
    """Refuse what would break the guarantee, each with its own code."""
    if not spec.job or not all(c.isalnum() or c in "-_." for c in spec.job) or spec.job[0] == ".":
        raise Invalid(
            f"{spec.job!r} can not name a job", code="MR1386", hint="letters, digits, '-', '_' and '.'"
        )
    check_partitions(spec, spec.partitions)
    if spec.guarantee not in ("exactly_once", "at_least_once"):
        raise Unsupported(
            f"a job on a cluster can not have guarantee {spec.guarantee!r}",
            code="MR1385",
            hint="'exactly_once' or 'at_least_once'",
        )
    check_nodes(spec.plan.nodes, spec.guarantee)


def check_store(url: str) -> None:
    """Refuse a store that a job's processes do not share, or that ends with one of them (MR1385)."""
    if url.partition(":")[0] == "memory" or not url:
        raise Invalid(
            "exactly once needs a store that outlives its processes, and all of them reach",
            code="MR1385",
            hint="give file:///… on a shared disk, s3://…, gs://… or az://…",
        )


def check_nodes(nodes: Iterable[Node], guarantee: str, *, logs: bool = False) -> None:
    """Refuse sources and sinks that break `guarantee` (MR1383, MR1384), and files that parts can't share (MR1388).

    With `logs`, what is pushed is kept, unless the source wants otherwise.
    """
    for node in nodes:
        match node.spec:
            case SourceInput(source=PushSpec(wal=wal)) if logs and wal is not False:
                continue
            case SourceInput() if not node.spec.source.replayable and guarantee != "none":
                raise Unsupported(
                    f"source {node.name} can not be read again after a failure",
                    code="MR1383",
                    hint="use a source that keeps its rows, such as files or Kafka",
                )
            case IntoTable():
                continue
            case SinkSpec() if (
                guarantee == "exactly_once" and _as_run(node.spec, guarantee).commit is Commit.NONE
            ):
                raise Unsupported(
                    f"sink {node.name} ({node.spec.title}) shows rows as they come, so a failure would show some twice",
                    code="MR1384",
                    hint="SET guarantee = 'at_least_once', or use a sink that commits, such as files or Kafka with no 'delivery' set",
                )
            case SinkSpec() if getattr(node.spec, "one_file", False):
                raise Unsupported(
                    f"sink {node.name} writes one file, which can not be shared by partitions or added to at checkpoints",
                    code="MR1388",
                    hint="give a folder as the path",
                )


def _as_run(spec: SinkSpec, guarantee: str) -> SinkSpec:
    """The sink as any job runs it."""
    return spec.in_job("job", "sink", guarantee)


def check_partitions(spec: JobSpec, partitions: int) -> None:
    """Refuse a number of partitions that the job can not have (MR1387)."""
    if not 0 < partitions <= spec.vnodes:
        raise Invalid(
            f"{partitions} partitions can not share {spec.vnodes} vnodes",
            code="MR1387",
            hint="give a number of partitions from 1 to the number of vnodes",
        )


def for_sinks(plan: Plan) -> Plan:
    """The part of a plan that its sinks and metrics need, fit for several partitions; raises Invalid MR1389 where there is none."""
    outputs = [output for output in plan.outputs if output.kind is OutputKind.SINK]
    if not outputs:
        raise Invalid("nothing leaves this job: it has no sink", code="MR1389", hint="add INSERT INTO a sink")
    counted = [at for at, node in enumerate(plan.nodes) if isinstance(node.spec, MetricTap)]
    kept = sorted(plan.reachable([*(output.node for output in outputs), *counted]))
    place = {old: new for new, old in enumerate(kept)}
    nodes = tuple(
        replace(plan.nodes[old], inputs=tuple(place[i] for i in plan.nodes[old].inputs)) for old in kept
    )
    return for_partitions(Plan(nodes, plan.settings, tuple(replace(o, node=place[o.node]) for o in outputs)))


def spec_key(spec: JobSpec) -> str:
    """Where the store keeps a spec: equal ones in one place, so that the plan a ledger names never changes."""
    return f"{spec.job}/plans/{structural_hash(spec)}"


def encode_job(spec: JobSpec) -> bytes:
    """The spec as checked bytes, with the modules that have its classes: connectors are imported only where used."""
    return seal("job", _VERSION, [sorted(_modules(spec)), encode(spec)])


def decode_job(data: bytes, name: str) -> JobSpec:
    """The spec; raises `Corrupt` naming the object."""
    _, (modules, body) = unseal("job", range(1, _VERSION + 1), data, name)
    for module in modules:
        if not module.startswith("millrace."):
            raise Corrupt(f"{name} wants module {module}", code="MR5013")
        importlib.import_module(module)
    spec: Any = decode(body)
    if not isinstance(spec, JobSpec):
        raise Corrupt(f"{name} holds a {type(spec).__name__}", code="MR5013")
    return spec


def _modules(value: object) -> set[str]:
    found: set[str] = set()
    if isinstance(value, tuple | list):
        for item in value:
            found |= _modules(item)
    elif isinstance(value, dict):
        for item in value.values():
            found |= _modules(item)
    elif isinstance(value, enum.Enum):
        found.add(type(value).__module__)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found.add(type(value).__module__)
        for one in dataclasses.fields(value):
            found |= _modules(getattr(value, one.name))
    return found


def write_job(store: Store, spec: JobSpec) -> str:
    """Keep a spec in the store; its key, which ledger, manifests and owners know it by."""
    key = spec_key(spec)
    write_object(store, key, encode_job(spec))
    return key


def read_job(store: Store, key: str) -> JobSpec:
    """The spec kept at `key`; raises `Corrupt` naming it where it is missing or damaged."""
    data = store.get(key)
    return decode_job(data if data is not None else b"", key if data is not None else f"{key} (missing)")
