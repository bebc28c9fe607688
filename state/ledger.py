"""A job's append-only log of create-only objects, and the state it folds to. Knows no actor and no protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NoReturn, assert_never

from millrace.errors import Corrupt, Fenced, Invalid
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.sealed import seal, unseal
from millrace.state.store import Store

FOLD_EVERY = 256
"""Records after which the folded state is stored, so that a reader need not read all records."""
_VERSION = 1


class CheckpointKind(Enum):
    """Why a checkpoint was taken."""

    PERIODIC = "periodic"
    SAVEPOINT = "savepoint"
    """Pruning leaves it alone."""
    STOP = "stop"
    """Nothing was read after it: for a rescale, an upgrade or an end."""


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """What one partition owns: vnodes `first` to `end` - 1, and splits as (source node, split)."""

    partition: int
    first: int
    end: int
    splits: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who owns what. Vnode ranges follow each other from 0 to the job's vnodes; no split has two owners."""

    partitions: tuple[PartitionPlan, ...]

    def __post_init__(self) -> None:
        at = 0
        for number, plan in enumerate(self.partitions):
            assert plan.partition == number and plan.first == at <= plan.end, (
                "vnodes with a gap or two owners"
            )
            at = plan.end
        splits = [split for plan in self.partitions for split in plan.splits]
        assert len(set(splits)) == len(splits), "a split with two owners"


@dataclass(frozen=True, slots=True)
class JobCreated:
    """The first record. `plan` is the plan's hash or key; `partitions` how many are wanted."""

    job: str
    plan: str
    vnodes: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """`epoch` is raised: of the whole job by a new coordinator `owner` (`partitions` None), or of some partitions."""

    epoch: int
    owner: str
    partitions: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """Under `epoch`, partitions own this."""

    epoch: int
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class CheckpointDecided:
    """The commit point of a checkpoint. `oldest` is the oldest one still kept; with `label`, it is a savepoint."""

    number: CheckpointNumber
    manifest: str
    kind: CheckpointKind
    oldest: CheckpointNumber
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Rescale:
    """From the next assignment on there are to be this many partitions."""

    epoch: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The job has ended at its last checkpoint, with all of it published: nobody leads it until it is resumed."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A decided checkpoint has a name by which it is kept, or, where `kept` is false, no more."""

    epoch: int
    number: CheckpointNumber
    label: str
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Resumed:
    """The job goes on under a raised epoch, with plan `plan`; whoever led it is deposed.

    With `number`, from that kept checkpoint: those decided after it are void, and what they published shows again.
    """

    epoch: int
    plan: str
    number: CheckpointNumber | None = None


Record = JobCreated | Takeover | Assigned | CheckpointDecided | Rescale | Stop | Savepoint | Resumed


@dataclass(frozen=True, slots=True)
class Decided:
    """A checkpoint that was decided and is kept. `published`: whatever its manifest says, nothing of it is pending."""

    number: CheckpointNumber
    manifest: str
    kind: CheckpointKind
    published: bool = False


@dataclass(frozen=True, slots=True)
class JobState:
    """The fold of a ledger. `epoch` is the highest ever; `coordinator` that of the coordinator `owner`.

    `owners` has the epoch of each partition's owner. `target` is how many partitions are wanted.
    """

    job: str = ""
    plan: str = ""
    vnodes: int = 0
    target: int = 0
    epoch: int = 0
    coordinator: int = 0
    owner: str = ""
    owners: Mapping[int, int] = field(default_factory=dict)
    assignment: Assignment | None = None
    checkpoints: tuple[Decided, ...] = ()
    savepoints: Mapping[str, Decided] = field(default_factory=dict)
    stopped: str | None = None

    @property
    def latest(self) -> Decided | None:
        """The last decided checkpoint: where recovery starts."""
        return self.checkpoints[-1] if self.checkpoints else None

    def checkpoint(self, number: CheckpointNumber) -> Decided | None:
        """A kept checkpoint or savepoint by number."""
        kept = (*self.checkpoints, *self.savepoints.values())
        return next((d for d in kept if d.number == number), None)


def fold(state: JobState, record: Record) -> JobState:
    """The state after one more record; raises `Corrupt` where the record could not have followed."""
    if not isinstance(record, JobCreated) and not state.job:
        _broken(record, "the job was not created")
    match record:
        case JobCreated():
            if state.job:
                _broken(record, "the job was created before")
            return JobState(record.job, record.plan, record.vnodes, record.partitions)
        case Takeover():
            if record.epoch <= state.epoch:
                _broken(record, f"epoch {state.epoch} was reached before")
            if state.stopped is not None:
                _broken(record, "the job is stopped and was not resumed")
            return _taken_over(state, record)
        case Assigned():
            _check_epoch(state, record, record.epoch)
            owners = {plan.partition: record.epoch for plan in record.assignment.partitions}
            return replace(state, assignment=record.assignment, owners=owners)
        case CheckpointDecided():
            _check_epoch(state, record, record.number.epoch)
            if state.latest is not None and record.number <= state.latest.number:
                _broken(record, f"{state.latest.number} was decided before")
            decided = Decided(record.number, record.manifest, record.kind)
            kept = tuple(d for d in state.checkpoints if d.number >= record.oldest)
            labels = {} if record.label is None else {record.label: decided}
            return replace(state, checkpoints=(*kept, decided), savepoints={**state.savepoints, **labels})
        case Rescale():
            _check_epoch(state, record, record.epoch)
            return replace(state, target=record.partitions)
        case Stop():
            _check_epoch(state, record, record.epoch)
            return _stopped(state, record)
        case Savepoint():
            _check_epoch(state, record, record.epoch)
            return _saved(state, record)
        case Resumed():
            return _resumed(state, record)
        case _:
            assert_never(record)


def _taken_over(state: JobState, record: Takeover) -> JobState:
    if record.partitions is None:
        return replace(state, epoch=record.epoch, coordinator=record.epoch, owner=record.owner, owners={})
    if record.owner != state.owner:
        _broken(record, f"{state.owner} leads the job")
    owners = {**state.owners, **dict.fromkeys(record.partitions, record.epoch)}
    return replace(state, epoch=record.epoch, owners=owners)


def _stopped(state: JobState, record: Stop) -> JobState:
    last = state.latest
    if last is None:
        return replace(state, stopped=record.reason)
    done = replace(last, published=True)
    savepoints = {label: done if d == last else d for label, d in state.savepoints.items()}
    return replace(
        state, checkpoints=(*state.checkpoints[:-1], done), savepoints=savepoints, stopped=record.reason
    )


def _saved(state: JobState, record: Savepoint) -> JobState:
    savepoints = {k: v for k, v in state.savepoints.items() if k != record.label}
    if record.kept:
        decided = next((d for d in state.checkpoints if d.number == record.number), None)
        if decided is None:
            _broken(record, "no such checkpoint is kept")
        savepoints[record.label] = decided
    return replace(state, savepoints=savepoints)


def _resumed(state: JobState, record: Resumed) -> JobState:
    if record.epoch <= state.epoch:
        _broken(record, f"epoch {state.epoch} was reached before")
    checkpoints = state.checkpoints
    if record.number is not None:
        chosen = state.checkpoint(record.number)
        if chosen is None:
            _broken(record, "no such checkpoint is kept")
        checkpoints = (*(d for d in checkpoints if d.number < chosen.number), chosen)
    return replace(
        state,
        plan=record.plan,
        epoch=record.epoch,
        coordinator=record.epoch,
        owner="",
        owners={},
        checkpoints=checkpoints,
        stopped=None,
    )


def _check_epoch(state: JobState, record: Record, epoch: int) -> None:
    if not state.coordinator <= epoch <= state.epoch:
        _broken(record, f"the job is led under epoch {state.coordinator}")


def _broken(record: Record, reason: str) -> NoReturn:
    raise Corrupt(f"the ledger says {record}, but {reason}", code="MR5021", hint="restore a savepoint")


class Ledger:
    """Reads and extends one job's ledger for `writer`, a name that no other process ever has.

    Invariant: `state` is the fold of records 1 … `next_seq` - 1. Records are never deleted: that they are
    there is what refuses an owner that comes too late.
    """

    def __init__(self, store: Store, job: str, writer: str) -> None:
        self._store = store
        self.job = job
        self.writer = writer
        self.state = JobState()
        self.next_seq = 1
        self._begun = False

    def read(self) -> JobState:
        """Fold everything that others have appended since."""
        if not self._begun:
            self._start_from_fold()
            self._begun = True
        while (data := self._store.get(_key(self.job, self.next_seq))) is not None:
            _, record = decode_record(data, _key(self.job, self.next_seq), self.next_seq)
            self.state = fold(self.state, record)
            self.next_seq += 1
        return self.state

    def append(self, seq: int, record: Record, writer: str | None = None) -> JobState:
        """Append `record` as number `seq`, which must be the one after what was folded.

        Raises `Fenced` where another writer was there first, after reading what it wrote; `Unavailable`
        where the store did not answer: then the same append may be tried again, and no other. To append the
        last record once more is to ask whether it is this writer's.
        """
        data = encode_record(seq, record, writer or self.writer)
        if seq == self.next_seq - 1 and self._store.get(_key(self.job, seq)) == data:
            return self.state
        if seq != self.next_seq:
            raise self._lost(seq)
        folded = fold(self.state, record)
        if not self._store.create(_key(self.job, seq), data) and self._store.get(_key(self.job, seq)) != data:
            self.read()
            raise self._lost(seq)
        self.state = folded
        self.next_seq = seq + 1
        if seq % FOLD_EVERY == 0:
            self._store.create(_fold_key(self.job, seq), encode_state(seq, folded))
        return folded

    def _lost(self, seq: int) -> Fenced:
        return Fenced(
            f"record {seq} of job {self.job} was written by another owner; "
            f"{self.state.owner or 'nobody'} leads it under epoch {self.state.coordinator}",
            code="MR4001",
            hint="stop; the job is led by another process",
        )

    def _start_from_fold(self) -> None:
        for key in reversed(self._store.list(f"{self.job}/folds")):
            data = self._store.get(key)
            try:
                if data is not None:
                    seq, self.state = decode_state(data, key)
                    self.next_seq = seq + 1
                    return
            except Corrupt:  # the records say the same, and an older fold needs only more of them
                continue


def create_job(store: Store, created: JobCreated, writer: str) -> Ledger:
    """A new ledger with its first record; raises `Invalid` where the job exists."""
    ledger = Ledger(store, created.job, writer)
    ledger.read()
    try:
        if ledger.next_seq == 1:
            ledger.append(1, created)
            return ledger
    except Fenced:
        pass
    raise Invalid(
        f"a job named {created.job} exists in this store",
        code="MR1501",
        hint="choose another name, or resume it",
    )


def encode_record(seq: int, record: Record, writer: str) -> bytes:
    """A record as checked bytes; equal only for the same writer."""
    return seal("ledger record", _VERSION, [seq, writer, type(record).__name__, _plain(record)])


def decode_record(data: bytes, name: str, seq: int | None = None) -> tuple[str, Record]:
    """Writer and record; raises `Corrupt` naming the object."""
    _, (found, writer, kind, fields) = unseal("ledger record", range(1, _VERSION + 1), data, name)
    if kind not in _DECODERS or (seq is not None and found != seq):
        raise Corrupt(
            f"{name} holds record {found} of kind {kind}", code="MR5013", hint="restore a savepoint"
        )
    return writer, _DECODERS[kind](fields)


def encode_state(seq: int, state: JobState) -> bytes:
    """The state after record `seq` as checked bytes."""
    kept = [_plain(d) for d in state.checkpoints]
    content = [
        *(
            seq,
            state.job,
            state.plan,
            state.vnodes,
            state.target,
            state.epoch,
            state.coordinator,
            state.owner,
        ),
        dict(state.owners),
        None if state.assignment is None else _plain(state.assignment),
        kept,
        {label: _plain(d) for label, d in state.savepoints.items()},
        state.stopped,
    ]
    return seal("ledger fold", _VERSION, content)


def decode_state(data: bytes, name: str) -> tuple[int, JobState]:
    """Sequence number and state; raises `Corrupt` naming the object."""
    _, content = unseal("ledger fold", range(1, _VERSION + 1), data, name)
    (
        seq,
        job,
        plan,
        vnodes,
        target,
        epoch,
        coordinator,
        owner,
        owners,
        assignment,
        kept,
        savepoints,
        stopped,
    ) = content
    return seq, JobState(
        job,
        plan,
        vnodes,
        target,
        epoch,
        coordinator,
        owner,
        owners,
        None if assignment is None else _assignment(assignment),
        tuple(_decided(d) for d in kept),
        {label: _decided(d) for label, d in savepoints.items()},
        stopped,
    )


def _plain(value: object) -> Any:
    match value:
        case CheckpointNumber():
            return value.value
        case Enum():
            return value.value
        case tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | str():
            return value
    return [_plain(getattr(value, name)) for name in value.__dataclass_fields__]  # type: ignore[attr-defined]


def _assignment(plain: Any) -> Assignment:
    return Assignment(tuple(PartitionPlan(*plan) for plan in plain[0]))


def _decided(plain: Any) -> Decided:
    return Decided(CheckpointNumber.of(plain[0]), plain[1], CheckpointKind(plain[2]), plain[3])


_DECODERS: dict[str, Callable[[Any], Record]] = {
    "JobCreated": lambda f: JobCreated(*f),
    "Takeover": lambda f: Takeover(*f),
    "Assigned": lambda f: Assigned(f[0], _assignment(f[1])),
    "CheckpointDecided": lambda f: CheckpointDecided(
        CheckpointNumber.of(f[0]), f[1], CheckpointKind(f[2]), CheckpointNumber.of(f[3]), f[4]
    ),
    "Rescale": lambda f: Rescale(*f),
    "Stop": lambda f: Stop(*f),
    "Savepoint": lambda f: Savepoint(f[0], CheckpointNumber.of(f[1]), f[2], f[3]),
    "Resumed": lambda f: Resumed(f[0], f[1], None if f[2] is None else CheckpointNumber.of(f[2])),
}


def _key(job: str, seq: int) -> str:
    return f"{job}/ledger/{seq:012d}"


def _fold_key(job: str, seq: int) -> str:
    return f"{job}/folds/{seq:012d}"
