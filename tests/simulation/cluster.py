"""One simulated job from creation to end: who is started when, what goes wrong, and what must hold at every step."""

import random
from collections import Counter
from dataclasses import dataclass, replace

import pyarrow as pa
from tests.simulation.engine import VNODES, Cut, Engine, plan_of, row_of, source_node, upgraded
from tests.simulation.nodes import BAD_PLAN, JOB, Coordinating, Metadata, Partition, Resuming
from tests.simulation.world import NO_FAULTS, Broker, Faults, FaultyStore, World

from millrace.cluster.job import JobSpec
from millrace.cluster.protocol import messages as m
from millrace.cluster.protocol.coordinator import CoordinatorSettings
from millrace.cluster.protocol.transitions import JobPhase
from millrace.cluster.upgrade import migrated
from millrace.errors import Corrupt
from millrace.state.checkpoints.manifest import Manifest, decode_manifest, manifest_key
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import JobCreated, JobState, Resumed, create_job, decode_record, fold
from millrace.state.snapshot import fold as fold_table

LIMIT_S = 400.0
"""Virtual time after which a job that has not ended makes no progress."""


@dataclass(frozen=True)
class Scenario:
    """What a seed runs. Row `i` of a split appears at `i * every_s`; `rescales` are (when, partitions),
    `upgrades` (when, plan), `saves` when a savepoint is made that is dropped soon after.
    """

    query: str = "stateless"
    partitions: int = 2
    splits: int = 3
    rows: int = 20
    every_s: float = 0.2
    rescales: tuple[tuple[float, int], ...] = ()
    stops: tuple[float, ...] = ()
    upgrades: tuple[tuple[float, str], ...] = ()
    saves: tuple[float, ...] = ()
    faults: Faults = NO_FAULTS
    faults_until: float = 0.0
    crashes: tuple[str, ...] = ()
    lease_s: float = 1.5
    found_later: int = 0


class Cluster:
    """Processes and what they did. `run` raises `Violation` where an invariant does not hold."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World(seed, scenario.faults, scenario.faults_until, list(scenario.crashes))
        self.world.on_death = self._on_death
        self.store = FaultyStore(self.world)
        self.broker = Broker(self.world)
        self.broker.on_commit = self._on_commit
        first = plan_of(scenario.query)
        self.sink = next(iter(JobSpec(JOB, first).sinks()))
        self.plans = {"plan": first, "new": upgraded(first), BAD_PLAN: upgraded(first)}
        self.lease_s = scenario.lease_s
        self.partitions: dict[tuple[int, int], Partition] = {}
        self.coordinators: list[Coordinating] = []
        self.clients: list[Resuming] = []
        self.ended: m.JobEnded | m.JobBroken | None = None
        self.state = JobState()
        self.committed: dict[tuple[str, int], list[int]] = {}
        self.rows: list[tuple[object, ...]] = []
        self.recoveries = 0
        self.resumed = 0
        self.rolled_back = 0
        self.wanted_plan = "plan"
        self._seen: Counter[tuple[object, ...]] = Counter()
        self._counts: dict[object, tuple[object, ...]] = {}
        self._seq = 0
        self._decided: set[int] = set()
        self._announced: dict[CheckpointNumber, tuple[str, object]] = {}
        self._shadows: dict[tuple[int, int], dict[tuple[str, str], pa.RecordBatch]] = {}
        self._at_cut: dict[tuple[CheckpointNumber, int, int], dict[tuple[str, str], pa.RecordBatch]] = {}
        self._members: dict[CheckpointNumber, dict[tuple[int, int], tuple[int, int]]] = {}
        self._names = Counter[str]()
        self._independent = scenario.query == "stateless"
        self._expected = self._expectation()
        create_job(self.store, JobCreated(JOB, "plan", VNODES, scenario.partitions), "client")
        self.on_ledger()
        self.metadata = Metadata(self, "metadata-1")
        self.world.at(0.01, self.start_coordinator)
        self.world.at(0.5, self._supervise)
        self.world.at(0.7, self._disturb)
        self.world.at(0.5, self._ask_for_end)
        for when in scenario.stops:
            self.world.at(when, self._stop)
        for when in scenario.saves:
            self.world.at(when, lambda label=f"asked-{when}": self._save(label))  # type: ignore[misc]
        for when, plan in scenario.upgrades:
            self.world.at(when, lambda plan=plan: self._upgrade(plan))  # type: ignore[misc]
        for when, partitions in scenario.rescales:
            self.world.at(when, lambda partitions=partitions: self._rescale(partitions))  # type: ignore[misc]

    def run(self) -> None:
        """To the job's end."""
        while self.ended is None:
            if self.world.now > LIMIT_S + self.scenario.faults_until or not self.world.step():
                self.world.fail(f"no progress: {len(self.rows)} rows in the sink, {self._phases()}")
        if not isinstance(self.ended, m.JobEnded):
            self.world.fail(f"the job broke: {self.ended.reason}")
        self._check_complete()
        for partition in self.partitions.values():
            if partition.engine is not None:
                partition.engine.close()

    # Processes -------------------------------------------------------------------------------------------

    def splits(self, plan: str) -> tuple[tuple[str, str], ...]:
        """All splits there are now; the last ones appear later."""
        count = self.scenario.splits
        if self.world.now < 2.0:
            count -= self.scenario.found_later
        return tuple((source_node(self.plans[plan]), str(s)) for s in range(count))

    def start_coordinator(self) -> None:
        self._names["coordinator"] += 1
        name = f"coordinator-{self._names['coordinator']}"
        settings = CoordinatorSettings(
            job=JOB,
            owner=name,
            sinks=(self.sink,),
            independent=self._independent,
            plan=self.state.plan,
            keep=2,
            liveness_s=1.0,
            lease_s=self.lease_s,
            start_timeout_s=8.0,
            checkpoint_timeout_s=3.0,
            drain_timeout_s=1.0,
        )
        self.world.log(f"{name} starts")
        self.coordinators.append(Coordinating(self, name, settings))

    def on_ended(self, command: m.JobEnded | m.JobBroken) -> None:
        """The job stopped: at its end, or before, and then it is resumed."""
        latest = self.state.latest
        if isinstance(command, m.JobBroken) or latest is None:
            self.ended = command
            return
        data = self.store.objects[manifest_key(JOB, latest.number)]
        points = [s for c in decode_manifest(data, "manifest").contributions for s in c.sources]
        if sum(len(point.ended) for point in points) == self.scenario.splits:
            self.ended = command
        else:
            self._resume()

    def _resume(self) -> None:
        """Somebody resumes the job, and goes on with the plan that is wanted."""
        if self.ended is None and not any(client.alive for client in self.clients):
            self._names["client"] += 1
            self.clients.append(Resuming(self, f"client-{self._names['client']}"))

    def resumption(self, state: JobState) -> Resumed | None:
        """What to append so that the job goes on; None where it does."""
        if state.plan == BAD_PLAN:
            self.rolled_back += 1
            self.wanted_plan = "plan"
            return Resumed(state.epoch + 1, "plan", None if state.latest is None else state.latest.number)
        if state.stopped is None:
            return None
        plan = self.wanted_plan if self.wanted_plan in state.savepoints else state.plan
        return Resumed(state.epoch + 1, plan)

    def on_resumed(self, state: JobState) -> None:
        """The job is to go on: who led it before does not any more."""
        self.resumed += 1
        self.on_ledger()
        for coordinator in self.coordinators:
            if coordinator.alive and self.world.rng.random() < 0.7:
                coordinator.die()
        self.start_coordinator()
        if state.plan == BAD_PLAN:
            self.world.at(3.0, self._resume)

    def migrated(self, manifest: Manifest, plan: str) -> Manifest:
        """A checkpoint as `plan` restores it."""
        if manifest.details["plan"] == BAD_PLAN:
            self.world.fail(f"a plan that does not start has decided {manifest.number}")
        was, now = self.plans[manifest.details["plan"]], self.plans[plan]
        return migrated(manifest, JobSpec(JOB, was, vnodes=VNODES), JobSpec(JOB, now, vnodes=VNODES))

    def replace_coordinator(self, owner: str) -> None:
        """The metadata actor misses the coordinator: another one is started, whatever became of the first."""
        if self.coordinators and self.coordinators[-1].name == owner:
            self.start_coordinator()

    def start_partition(self, coordinator: Coordinating, start: m.PartitionStart) -> None:
        key = (start.plan.partition, start.epoch)
        if key in coordinator.partitions or key in self.partitions:
            self.world.fail(f"two owners of partition {key[0]} under epoch {key[1]}")
        if self.world.chance(self.world.faults.drop):
            return
        self.recoveries += 1
        self.world.log(f"partition-{key[0]}/e{key[1]} starts from {start.restored} for {coordinator.name}")
        partition = Partition(self, coordinator, start)
        self.partitions[key] = coordinator.partitions[key] = partition

    def kill_partition(self, partition: Partition | None) -> None:
        if partition is None or not partition.alive:
            return
        world = self.world
        if not world.chance(world.faults.kill_fails):
            partition.die()
        elif world.rng.random() < 0.5:
            partition.freeze(world.rng.uniform(0.5, 6.0))

    def on_partition_end(self, partition: Partition) -> None:
        """The process ended by itself: its coordinator sees that soon, if it lives."""
        lost = m.PartitionLost(partition.partition, partition.epoch, "it ended")
        partition.coordinator.post(0.01, lambda: partition.coordinator.handle(lost))

    def _on_death(self, process: object) -> None:
        world = self.world
        if isinstance(process, Partition):
            self.on_partition_end(process)
        elif isinstance(process, Coordinating):
            world.log(f"{process.name} is dead")
            for partition in process.partitions.values():
                self.kill_partition(partition)
            if not any(c.alive for c in self.coordinators) and self.ended is None:
                world.at(world.rng.uniform(0.1, 1.0), self._replace_dead_coordinator)
        elif isinstance(process, Resuming):
            world.at(world.rng.uniform(0.1, 1.0), self._resume_again)
        elif process is getattr(self, "metadata", None):
            world.at(world.rng.uniform(0.1, 1.0), self._replace_metadata)

    def _replace_dead_coordinator(self) -> None:
        if not any(c.alive for c in self.coordinators) and self.ended is None:
            self.start_coordinator()

    def _resume_again(self) -> None:
        """Who resumed the job is gone, perhaps before it had."""
        self.on_ledger()
        if self.state.stopped is not None or self.state.plan == BAD_PLAN:
            if not any(c.alive for c in self.coordinators) or self.state.plan == BAD_PLAN:
                self._resume()
        elif not any(c.alive for c in self.coordinators):
            self.start_coordinator()

    def _replace_metadata(self) -> None:
        self._names["metadata"] += 1
        self.metadata = Metadata(self, f"metadata-{self._names['metadata'] + 1}")

    def _supervise(self) -> None:
        """What Ray and an operator would do where somebody hangs."""
        self.world.at(0.5, self._supervise)
        now = self.world.now
        if self.metadata.alive and self.metadata.frozen_until > now + 1.0:
            self._replace_metadata()
        if all(not c.alive or c.frozen_until > now + 2.0 for c in self.coordinators[-1:]):
            self.start_coordinator()

    def _disturb(self) -> None:
        """Kill, freeze or isolate somebody from time to time."""
        world = self.world
        world.at(world.rng.uniform(0.3, 2.0), self._disturb)
        if world.faults is NO_FAULTS:
            return
        victims = [p for p in self.partitions.values() if p.alive]
        victims += [c for c in self.coordinators if c.alive]  # type: ignore[misc]
        victims.append(self.metadata)  # type: ignore[arg-type]
        victim = world.rng.choice(victims)
        match world.rng.choice(["kill", "freeze", "part", "nothing"]):
            case "kill":
                world.log(f"{victim.name} is killed")
                victim.die()
            case "freeze":
                victim.freeze(world.rng.choice([0.5, 2.0, 5.0, 10.0]))
            case "part":
                world.log(f"{victim.name} is isolated")
                world.isolated[victim.name] = world.now + world.rng.uniform(0.3, 4.0)

    def _rescale(self, partitions: int) -> None:
        alive = [c for c in self.coordinators if c.alive]
        if alive and alive[-1].machine.phase in (JobPhase.RUNNING, JobPhase.RECOVERING):
            alive[-1].post(0.0, lambda: alive[-1].handle(m.RescaleRequested(partitions)))
        elif self.world.now < self.scenario.faults_until + 60:
            self.world.at(0.3, lambda: self._rescale(partitions))

    def _stop(self) -> None:
        """Somebody stops the job; it is resumed once it has."""
        alive = [c for c in self.coordinators if c.alive]
        if alive:
            alive[-1].post(0.0, lambda: alive[-1].handle(m.StopRequested("somebody asked", "asked")))

    def _save(self, label: str) -> None:
        """Somebody asks for a savepoint until there is one, and then for its end."""
        alive = [c for c in self.coordinators if c.alive]
        there = label in self.state.savepoints
        event = m.SavepointDropped(label) if there else m.SavepointRequested(label)
        if alive:
            alive[-1].post(0.0, lambda: alive[-1].handle(event))
        if self.ended is None and not there and self.world.now < self.scenario.faults_until + 60:
            self.world.at(0.4, lambda: self._save(label))

    def _upgrade(self, plan: str) -> None:
        """Somebody stops the job at a savepoint named as the plan that it is to go on with."""
        self.wanted_plan = plan
        alive = [c for c in self.coordinators if c.alive]
        if plan in self.state.savepoints or self.ended is not None:
            return
        if alive and alive[-1].machine.phase is JobPhase.RUNNING and alive[-1].machine.wishes.stop is None:
            alive[-1].post(0.0, lambda: alive[-1].handle(m.StopRequested(f"upgrade to {plan}", plan)))
        if self.world.now < self.scenario.faults_until + 60:
            self.world.at(0.5, lambda: self._upgrade(plan))

    def _ask_for_end(self) -> None:
        """Once every split is read, ask to stop, until the job has."""
        self.world.at(0.5, self._ask_for_end)
        alive = [c for c in self.coordinators if c.alive]
        rescaling = self.world.now < max([0.0, *(when for when, _ in self.scenario.rescales)]) + 3.0
        if not alive or rescaling or self.world.now < self.scenario.faults_until:
            return
        machine = alive[-1].machine
        running = [self.partitions.get((p, member.epoch)) for p, member in machine.members.items()]
        ended = bool(running) and all(
            p is not None and p.engine is not None and p.engine.ended for p in running
        )
        if machine.phase is JobPhase.RUNNING and ended:
            alive[-1].post(0.0, lambda: alive[-1].handle(m.StopRequested("all is read", "last")))

    def is_owner(self, partition: Partition) -> bool:
        """Whether no later owner of the partition is in the ledger."""
        self.on_ledger()
        return self.state.owners.get(partition.partition) == partition.epoch

    def build_engine(self, partition: Partition) -> Engine:
        start = partition.start
        owners = [0] * VNODES
        for owner, (first, end) in enumerate(start.ranges):
            owners[first:end] = [owner] * (end - first)
        if not start.peers:
            owners = [0] * VNODES
        return Engine(
            self.plans[partition.coordinator.plan],
            partition.partition,
            tuple(split for _, split in start.plan.splits),
            self.scenario.rows,
            int(self.scenario.every_s * 1_000_000),
            lambda: int(self.world.now * 1_000_000),
            tuple(owners),
            partition.send_item,
            partition.passed,
        )

    # Invariants ------------------------------------------------------------------------------------------

    def on_ledger(self) -> None:
        """Fold what was appended: raises where a fenced coordinator decided, or a number or an epoch came twice."""
        while (data := self.store.objects.get(f"{JOB}/ledger/{self._seq + 1:012d}")) is not None:
            self._seq += 1
            _, record = decode_record(data, str(self._seq), self._seq)
            try:
                self.state = fold(self.state, record)
            except Corrupt as error:
                self.world.fail(str(error))
            if self.state.latest is not None:
                self._decided.add(self.state.latest.number.value)

    def on_announced(self, coordinator: str, begin: m.BeginCheckpoint) -> None:
        known = self._announced.setdefault(begin.number, (coordinator, begin.kind))
        if known != (coordinator, begin.kind):
            self.world.fail(f"checkpoint {begin.number} was announced by {known[0]} and by {coordinator}")

    def on_cut(self, partition: Partition, number: CheckpointNumber, cut: Cut) -> None:
        """Keep what a whole snapshot would be, folded in memory."""
        shadow = self._shadows.setdefault((partition.partition, partition.epoch), {})
        for name, capture in cut.tables.items():
            if capture.complete:
                shadow[name] = capture.rows
            else:
                shadow[name] = fold_table(shadow[name], [(capture.rows, capture.deleted)], capture.key)
        self._at_cut[number, partition.partition, partition.epoch] = dict(shadow)

    def check_restored(self, partition: Partition, tables: dict[tuple[str, str], pa.RecordBatch]) -> None:
        """What was read from the store, and what the operators then hold, is what was captured."""
        start = partition.start
        self._shadows[partition.partition, partition.epoch] = dict(tables)
        captured: dict[tuple[str, str], list[tuple[object, ...]]] = {}
        for (number, p, e), found in self._at_cut.items():
            if number == start.restored and (p, e) in self._took_part(number):
                first, end = self._took_part(number)[p, e]
                wanted = range(max(first, start.plan.first), min(end, start.plan.end))
                for name, rows in found.items():
                    vnodes = rows.column("_vnode").to_pylist()
                    mine = [r for r, v in zip(_rows(rows), vnodes, strict=True) if v in wanted]
                    captured.setdefault(name, []).extend(mine)
        for name, rows in tables.items():
            if sorted(_rows(rows), key=repr) != sorted(captured.get(name, []), key=repr):
                self.world.fail(
                    f"{partition.name} restored {start.restored} and {name} is not what was captured"
                )

    def _took_part(self, number: CheckpointNumber) -> dict[tuple[int, int], tuple[int, int]]:
        """The owners whose captures a decided checkpoint has, with their vnodes."""
        if number not in self._members:
            data = self.store.objects[manifest_key(JOB, number)]
            contributions = decode_manifest(data, "manifest").contributions
            self._members[number] = {(c.partition, c.epoch): (c.first, c.end) for c in contributions}
        return self._members[number]

    def _on_commit(self, stream: tuple[str, int], marker: int, rows: list[tuple[object, ...]]) -> None:
        """Rows become visible: each once, in order, and only what a decision covers."""
        before = self.committed.setdefault(stream, [])
        number = CheckpointNumber.of(marker)
        if before and marker <= before[-1]:
            self.world.fail(f"{stream} published {number} after {CheckpointNumber.of(before[-1])}")
        self.on_ledger()
        if not self._decided or marker > max(self._decided):
            self.world.fail(f"{stream} published {number}, which nobody decided")
        before.append(marker)
        self.world.log(f"{stream} published {number}: {len(rows)} rows")
        for row in rows:
            self._check_row(row)
        self.rows += rows

    def _check_row(self, row: tuple[object, ...]) -> None:
        *values, weight = row
        match self.scenario.query:
            case "stateless":
                identity, key = values[0], values[1]
                split, at = divmod(int(identity), 1_000_000)  # type: ignore[call-overload]
                self._seen[(identity,)] += 1
                if self._seen[(identity,)] > 1:
                    self.world.fail(f"row {identity} came twice")
                if self._counts.get((split, key), (-1,))[0] >= at:  # type: ignore[operator]
                    self.world.fail(f"row {identity} of key {key} came out of order")
                self._counts[split, key] = (at,)
            case "windowed":
                self._seen[(values[0], values[1])] += 1
                if self._seen[(values[0], values[1])] > 1:
                    self.world.fail(f"window {values[:2]} came twice")
            case "counted":
                key, count, _ = values
                if weight != 1 or self._counts.get(key, (0,))[0] >= count:  # type: ignore[operator]
                    self.world.fail(f"count of {key} went from {self._counts.get(key)} to {count}")
                self._counts[key] = (count, values[2])
        if self.scenario.query != "counted" and tuple(values) not in self._expected:
            self.world.fail(f"row {values} is wrong")

    def _expectation(self) -> set[tuple[object, ...]]:
        rows = [row_of(s, at) for s in range(self.scenario.splits) for at in range(self.scenario.rows)]
        match self.scenario.query:
            case "stateless":
                return {(i, k, v) for i, k, v, _ in rows if v != 5}
            case "windowed":
                groups: dict[tuple[object, ...], list[int]] = {}
                for _, k, v, ts in rows:
                    groups.setdefault((k, ts // 1_000_000 * 1_000_000), []).append(v)
                return {(*name, len(values), sum(values)) for name, values in groups.items()}
            case _:
                keys: dict[str, list[int]] = {}
                for _, k, v, _ in rows:
                    keys.setdefault(k, []).append(v)
                return {(k, len(values), sum(values)) for k, values in keys.items()}

    def _check_complete(self) -> None:
        if self.scenario.query == "counted":
            found = {(key, *last) for key, last in self._counts.items()}
        else:
            found = {tuple(row[:-1]) for row in self.rows}
        if found != self._expected:
            missing = sorted(self._expected - found, key=repr)[:5]
            self.world.fail(f"{len(self._expected - found)} rows are missing, as {missing}")

    def _phases(self) -> str:
        alive = [c for c in self.coordinators if c.alive]
        parts = [f"{p.name} {p.machine.phase.value}" for p in self.partitions.values() if p.alive]
        return ", ".join([*(f"{c.name} {c.machine.phase.value}" for c in alive), *parts])


def _rows(table: pa.RecordBatch) -> list[tuple[object, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed: query, size, faults and rescales drawn from it."""
    rng = random.Random(seed ^ 0x5EED)
    query = rng.choice(["stateless", "windowed", "counted"])
    until = rng.choice([4.0, 6.0, 10.0])
    partitions = rng.choice([1, 2, 2, 3])
    rescales = tuple(
        (rng.uniform(0.5, until), rng.choice([1, 2, 3, 4])) for _ in range(rng.choice([0, 0, 1, 2]))
    )
    faults = Faults()
    match rng.choice(["all", "crashes", "network", "storage", "zombies"]):
        case "crashes":
            faults = replace(NO_FAULTS, crash=0.006, kill_fails=0.0)
        case "network":
            faults = replace(NO_FAULTS, drop=0.15, double=0.1, slow_message=0.2)
        case "storage":
            faults = replace(NO_FAULTS, io_fails=0.1, io_slow=0.15)
        case "zombies":
            faults = replace(NO_FAULTS, freeze=0.008, kill_fails=1.0, io_slow=0.1)
    return Scenario(
        query=query,
        partitions=partitions,
        splits=rng.choice([1, 2, 3, 4]),
        rows=rng.choice([10, 20, 30]),
        every_s=until / 25,
        rescales=rescales,
        stops=(rng.uniform(1.0, until),) if rng.random() < 0.2 else (),
        upgrades=tuple(
            (rng.uniform(1.0, until), plan)
            for plan, often in (("new", 0.15), (BAD_PLAN, 0.1))
            if rng.random() < often
        ),
        faults=faults,
        faults_until=until,
        lease_s=rng.choice([0.7, 1.5, 1.5, 1000.0]),
        found_later=0 if query == "windowed" else rng.choice([0, 0, 1]),
    )
