"""How a job goes on: the checkpoint that is chosen, and what a new plan makes of it. Appends nothing, starts nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from millrace.cluster.job import JobSpec, read_job, settled, spec_key
from millrace.cluster.protocol.messages import ReadManifest
from millrace.cluster.upgrade import Upgrade, compare, migrated
from millrace.errors import Corrupt, Invalid
from millrace.state.checkpoints.manifest import Manifest
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.pruning import read_manifest
from millrace.state.checkpoints.snapshots import read_object
from millrace.state.ledger import Decided, JobState, Ledger, Resumed
from millrace.state.store import Store


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint that a job can be resumed from: its number, why it was taken, and its name if it is a savepoint."""

    number: str
    kind: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Resumption:
    """What is to be appended; what the plan named there, if it is another, makes of the checkpoint it starts from."""

    record: Resumed
    upgrade: Upgrade | None
    spec: JobSpec | None
    """What is to be kept in the store as the plan that the record names; None: it is there."""


def kept_checkpoints(state: JobState) -> tuple[KeptCheckpoint, ...]:
    """All that a job can be resumed from, oldest first."""
    labels = {decided.number: label for label, decided in state.savepoints.items()}
    kept = {d.number: d for d in (*state.savepoints.values(), *state.checkpoints)}
    return tuple(
        KeptCheckpoint(str(number), kept[number].kind.value, labels.get(number)) for number in sorted(kept)
    )


def find_checkpoint(state: JobState, wanted: str) -> Decided:
    """The kept checkpoint with this name or number ('3.17'); raises Invalid MR1596 where there is none."""
    found = state.savepoints.get(wanted)
    if found is None:
        epoch, _, count = wanted.partition(".")
        if epoch.isdigit() and count.isdigit():
            found = state.checkpoint(CheckpointNumber(int(epoch), int(count)))
    if found is None:
        kept = [f"{k.label} ({k.number})" if k.label else k.number for k in kept_checkpoints(state)]
        raise Invalid(
            f"job {state.job} has no checkpoint or savepoint {wanted!r}",
            code="MR1596",
            hint=f"it has {', '.join(kept) or 'none'}",
        )
    return found


def resumption(
    store: Store, state: JobState, spec: JobSpec | None, wanted: str | None, *, stops: bool = False
) -> Resumption:
    """How `state` goes on with `spec` (None: what it ran before) from checkpoint `wanted` (None: the last one).

    With `stops` the job is to be stopped first, and thus has nothing to publish then.
    Raises Invalid MR1590 where there is no job, MR1594 … MR1596 for what can not be, and Corrupt where the checkpoint's
    manifest is damaged.
    """
    if not state.job:
        raise Invalid("this store has no such job", code="MR1590", hint="check --store and the job's name")
    chosen = state.latest if wanted is None else find_checkpoint(state, wanted)
    if spec is not None:
        spec = settled(spec, read_job(store, state.plan).incarnation)
    program = state.plan if spec is None else spec_key(spec)
    number = None if chosen is None or chosen == state.latest else chosen.number
    record = Resumed(state.epoch + 1, program, number)
    manifest = None if chosen is None else read_manifest(store, chosen.manifest)
    was = state.plan if manifest is None else manifest.details.get("plan", state.plan)
    if was == program:
        return Resumption(record, None, spec)
    old = read_job(store, was)
    new = spec if spec is not None else read_job(store, program)
    if manifest is not None and chosen is not None and not (stops or chosen.published):
        migrated(manifest, old, new)
    return Resumption(record, compare(old, new, manifest), spec)


def manifest_for(store: Store, command: ReadManifest, program: str, spec: JobSpec) -> Manifest:
    """A manifest as the plan kept at `program` restores it, whichever plan made it.

    Raises Corrupt where it is damaged, Invalid MR1594 where the plan can not go on from it.
    """
    manifest = read_manifest(store, command.key)
    if command.published:
        manifest = replace(manifest, pending=())
    was = manifest.details.get("plan", program)
    return manifest if was == program else migrated(manifest, read_job(store, was), spec)


def damage(store: Store, manifest: Manifest) -> list[str]:
    """What is wrong with a checkpoint's objects: missing, cut short or not what was written. Reads all of them."""
    found = []
    for ref in {ref.key: ref for ref in manifest.objects()}.values():
        try:
            read_object(store, ref)
        except Corrupt as error:
            found.append(str(error))
    return found


def kept_in(store: Store, job: str, *, verify: bool) -> list[tuple[KeptCheckpoint, list[str]]]:
    """All that a job can be resumed from, oldest first, each with what is damaged of it.

    Manifests are always read, and what they name with `verify`. Raises Invalid MR1590 where there is no job.
    """
    state = Ledger(store, job, "reader").read()
    if not state.job:
        raise Invalid(f"this store has no job {job}", code="MR1590", hint="check --store and the job's name")
    decided = {str(d.number): d for d in (*state.savepoints.values(), *state.checkpoints)}
    found = []
    for kept in kept_checkpoints(state):
        try:
            manifest = read_manifest(store, decided[kept.number].manifest)
        except Corrupt as error:
            found.append((kept, [str(error)]))
        else:
            found.append((kept, damage(store, manifest) if verify else []))
    return found
