"""Crashes at every failpoint and at every pair of them, one after the other, with no other fault."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

from tests.simulation.cluster import Cluster, Scenario
from tests.simulation.nodes import BAD_PLAN

from millrace.state.ledger import CheckpointKind

WINDOWED = Scenario(
    *("windowed", 2, 3, 20, 0.15),
    rescales=((1.2, 3), (2.4, 2)),
    stops=(1.9,),
    upgrades=((1.5, "new"),),
    saves=(0.4,),
    lease_s=1000.0,
)
STATELESS = Scenario(
    *("stateless", 2, 3, 20, 0.15),
    rescales=((1.2, 3),),
    stops=(2.2,),
    upgrades=((0.7, BAD_PLAN),),
    saves=(0.3,),
    lease_s=1000.0,
)

_METADATA = (
    *("FoldLedger", "WriteRecord", "AnswerAppended", "AnswerState", "AnswerLease"),
    *("FoldLedger.before", "FoldLedger.after"),
)
_RECORDS = ("Takeover", "Assigned", "Rescale", "Stop", "Savepoint", "Resumed")
_KINDS = tuple(f"CheckpointDecided:{kind.value}" for kind in CheckpointKind)
_COORDINATOR = (
    *("LedgerRead", "RecordAppended", "Running", "Aligned", "Durable", "Published", "Heartbeat"),
    *("ReadManifest", "ReadManifest.before", "ReadManifest.after"),
    *("WriteManifest", "WriteManifest.before", "WriteManifest.after", "DiscoverSplits"),
    *("StartPartition", "KillPartition", "Tell", "PruneObjects", "prune.before", "prune.after"),
    *("object_pruned", "JobEnded"),
)
_PARTITION = (
    *("Begin", "StatePurged", "StateRestored", "SinkFenced", "MarkerRead", "OutboxPublished"),
    *("PeersConnected", "BeginCheckpoint", "BarrierPassed", "CapturePersisted", "CheckpointCommitted"),
    *("LeaseRenewed", "PurgeState", "RestoreState", "FenceSink", "ReadMarker", "PublishOutbox"),
    *("ConnectPeers", "StartSources", "InjectBarrier", "PersistCapture", "Report", "polled"),
    *("object_written", "frame_taken"),
    *(
        f"{io}.{side}"
        for io in ("RestoreState", "FenceSink", "ReadMarker", "PublishOutbox", "commit", "PersistCapture")
        for side in ("before", "after")
    ),
)
FAILPOINTS: tuple[str, ...] = (
    *(f"metadata.{name}" for name in _METADATA),
    *(
        f"metadata.WriteRecord:{record}.{side}"
        for record in (*_RECORDS, "CheckpointDecided")
        for side in ("before", "after")
    ),
    *(f"coordinator.{name}" for name in _COORDINATOR),
    *(f"coordinator.AppendRecord:{record}" for record in (*_RECORDS, *_KINDS) if record != "Resumed"),
    *("client.LedgerRead", "client.AppendRecord:Resumed", "client.RecordAppended"),
    *(f"partition.{name}" for name in _PARTITION),
)
"""Every edge of the protocol that a run without other faults passes."""

FAULTY_ONLY = (
    *("coordinator.RecordLost", "metadata.AnswerLost", "coordinator.ReadLedger"),
    *("metadata.CoordinatorSilent", "partition.CheckpointAborted", "partition.PublishRefused"),
    *("partition.PartitionFailed", "partition.StopSelf", "coordinator.StopSelf"),
)
"""Edges that only a fault leads to."""


def crash_at(seed: int, *names: str) -> Cluster:
    """A run in which the process that reaches the first of `names` dies, then who reaches the next, and so on."""
    scenario = STATELESS if seed % 2 else WINDOWED
    if any("frame" in name for name in names):
        scenario = WINDOWED
    found = Cluster(seed, Scenario(**{**_fields(scenario), "crashes": names}))
    found.run()
    return found


def _fields(scenario: Scenario) -> dict[str, object]:
    return {name: getattr(scenario, name) for name in scenario.__dataclass_fields__}


def pairs(count: int | None = None) -> Iterator[tuple[str, str]]:
    """Every ordered pair of failpoints, or `count` of them that stay the same."""
    every = list(itertools.product(FAILPOINTS, repeat=2))
    return iter(every if count is None else random.Random(7).sample(every, count))


def run_pairs() -> int:
    """Crash at every pair; answers 0 where all runs end with every row once."""
    begun = time.monotonic()
    failed = missed = total = 0
    for seed, (first, second) in enumerate(pairs()):
        total += 1
        try:
            missed += crash_at(seed, first, second).world.crashes_left > 0
        except Exception as error:  # noqa: BLE001 - any failure is the pair's
            failed += 1
            print(
                f"crash at {first}, then {second} (seed {seed}): {type(error).__name__}: {error}", flush=True
            )
    took = time.monotonic() - begun
    print(f"{total} pairs, {failed} failed, in {missed} the second was not reached again, {took:.1f} s")
    return 1 if failed else 0
