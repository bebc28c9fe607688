"""What is done to a running cluster: kills, zombies, rescales, a broker's restart. Judges nothing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.nodes import Nodes, parent_of
from tests.chaos.watching import Watcher
from tests.e2e.broker import Broker

from millrace.errors import MillraceError

REPLACED_S = 45.0
"""How long to wait for a frozen process to be replaced."""
WAKING_S = 3.0
"""How long a zombie that woke up is left alone."""
UNREAPED_S = 12.0
"""How long a killed raylet's workers may believe that it lives."""
RESCALED_S = 180.0
RESCALES = (4, 3)


@dataclass(slots=True)
class Attack:
    """One deed: when it began (s since the start), what, to which job ('' for all), and when the job had recovered."""

    at: float
    kind: str
    job: str
    what: str
    recovered: float | None = None
    """Seconds until a checkpoint was decided that began after it."""


class Violence:
    """Chooses by one seed what to do next. Deeds that last run on threads of their own."""

    def __init__(self, nodes: Nodes, broker: Broker, watcher: Watcher, seed: int) -> None:
        self.attacks: list[Attack] = []
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self._nodes, self._broker, self._watcher = nodes, broker, watcher
        self._busy: list[threading.Thread] = []
        self._rescaling: dict[str, threading.Thread] = {}
        self._exclusive = threading.Lock()
        """Held while a zombie is made, the broker restarts, or a node is replaced: one at a time."""

    @property
    def kinds(self) -> dict[str, tuple[int, Callable[[], Attack | None]]]:
        """Weight and deed of all kinds that are chosen by chance."""
        return {
            "partition": (10, self.kill_partition),
            "coordinator": (4, self.kill_coordinator),
            "metadata": (2, self.kill_metadata),
            "raylet": (2, self.kill_raylet),
            "zombie": (2, self.make_zombie),
            "zombie node": (1, self.make_zombie_node),
        }

    def strike(self, kind: str | None = None) -> Attack | None:
        """Do one deed, chosen by chance or by name; None where it can't be done at the moment."""
        kinds = self.kinds
        if kind is None:
            kind = self.rng.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        deed = kinds[kind][1]() if kind in kinds else self.restart_broker()
        if deed is not None:
            self.attacks.append(deed)
            self._follow(deed)
        return deed

    def rescale(self, job: str, partitions: int) -> Attack:
        """Go on with so many partitions; other deeds may come in between."""
        attack = self._attack("rescale", job, f"{job} to {partitions} partitions")
        self.attacks.append(attack)
        before = self._rescaling.get(job)

        def scale() -> None:
            if before is not None:
                before.join()
            deadline = time.monotonic() + RESCALED_S
            while time.monotonic() < deadline and not self.over.is_set():
                try:
                    self._nodes.cluster.job(job).scale(partitions, timeout=60)
                    attack.recovered = time.monotonic() - self._watcher.begun - attack.at
                    return
                except MillraceError as error:
                    attack.what = f"{job} to {partitions} partitions ({error.message})"

        self._rescaling[job] = self._aside(scale)
        return attack

    def wait(self, timeout: float) -> bool:
        """Wait until all deeds are done; whether they are."""
        deadline = time.monotonic() + timeout
        for thread in self._busy:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._busy)

    # Deeds -----------------------------------------------------------------------------------------------

    def kill_partition(self) -> Attack | None:
        job, partition, pid = self._some_partition()
        if not pid or not self._nodes.kill(pid):
            return None
        return self._attack("partition", job, f"{job}, partition {partition}")

    def kill_coordinator(self) -> Attack | None:
        job = self.rng.choice(list(self._watcher.jobs))
        pid = self._watcher.jobs[job].pids.get("coordinator", 0)
        if not pid or not self._nodes.kill(pid):
            return None
        return self._attack("coordinator", job, job)

    def kill_metadata(self) -> Attack | None:
        if not self._watcher.metadata or not self._nodes.kill(self._watcher.metadata):
            return None
        return self._attack("metadata", "", "the metadata actor")

    def kill_raylet(self) -> Attack | None:
        """kill -9 a node; half the time its workers go on for a while and are zombies."""
        if not self._exclusive.acquire(blocking=False):
            return None
        raylet = self.rng.choice(self._nodes.raylets)
        late = self.rng.random() < 0.5
        node = self._nodes.kill_raylet(raylet)

        def replace() -> None:
            try:
                time.sleep(UNREAPED_S if late else 0.0)
                self._nodes.reap(node)
            finally:
                self._exclusive.release()

        self._aside(replace)
        return self._attack("raylet", "", "a node" + (", whose workers live on" if late else ""))

    def restart_broker(self) -> Attack | None:
        if not self._exclusive.acquire(timeout=60):
            return None
        attack = self._attack("broker", "", "stopped and started")
        try:
            self._broker.stop(kill=True)
            self._broker.start()
        finally:
            self._exclusive.release()
        return attack

    def make_zombie(self) -> Attack | None:
        """Freeze a partition in the middle of a transaction, and wake it up when it has a successor.

        The broker is held first, until the partition hangs in what it wanted to publish. The node's raylet is frozen
        as well: else Ray would end the process for good.
        """
        job, partition, pid = self._some_partition()
        raylet = parent_of(pid)
        if not pid or raylet not in self._nodes.raylets or not self._exclusive.acquire(blocking=False):
            return None
        attack = self._attack("zombie", job, f"{job}, partition {partition}")

        def wake() -> None:
            try:
                self._broker.freeze()
                time.sleep(1.5)
                before = self._watcher.jobs[job].owner(partition)
                self._nodes.freeze(pid)
                self._nodes.freeze(raylet)
                self._broker.thaw()
                replaced = self._until(lambda: self._watcher.jobs[job].owner(partition) > before)
                self._nodes.thaw(pid)
                time.sleep(WAKING_S)
                attack.what += " woke up " + ("after its successor ran" if replaced else "unreplaced")
                self._replace(raylet)
            finally:
                self._broker.thaw()
                self._exclusive.release()

        self._aside(wake)
        return attack

    def make_zombie_node(self) -> Attack | None:
        """Freeze a raylet: for Ray the node is dead and all on it runs elsewhere, but its workers go on."""
        if not self._exclusive.acquire(blocking=False):
            return None
        coordinators = [parent_of(seen.pids.get("coordinator", 0)) for seen in self._watcher.jobs.values()]
        liked = [raylet for raylet in self._nodes.raylets if raylet in coordinators]
        raylet = self.rng.choice(liked or self._nodes.raylets)
        attack = self._attack(
            "zombie node", "", "a frozen raylet with a coordinator" if liked else "a frozen raylet"
        )
        self._nodes.freeze(raylet)

        def wake() -> None:
            try:
                time.sleep(REPLACED_S / 2)
                self._nodes.thaw(raylet)
                time.sleep(WAKING_S)
                self._replace(raylet)
            finally:
                self._exclusive.release()

        self._aside(wake)
        return attack

    # How -------------------------------------------------------------------------------------------------

    def _replace(self, raylet: int) -> None:
        self._nodes.reap(self._nodes.kill_raylet(raylet))

    def _some_partition(self) -> tuple[str, int, int]:
        job = self.rng.choice(list(self._watcher.jobs))
        pids = {role: pid for role, pid in self._watcher.jobs[job].pids.items() if role != "coordinator"}
        if not pids:
            return job, 0, 0
        role = self.rng.choice(sorted(pids))
        return job, int(role.rpartition("-")[2]), pids[role]

    def _attack(self, kind: str, job: str, what: str) -> Attack:
        return Attack(time.monotonic() - self._watcher.begun, kind, job, what)

    def _follow(self, attack: Attack) -> None:
        """Note when every job that it concerns decided something again, twice: the first may have been on its way."""
        watched = [self._watcher.jobs[attack.job]] if attack.job else list(self._watcher.jobs.values())

        def follow() -> None:
            for _ in range(2):
                since = time.monotonic()
                if not self._until(lambda: all(seen.decided_at > since for seen in watched), 120.0):  # noqa: B023
                    return
            attack.recovered = time.monotonic() - self._watcher.begun - attack.at

        self._aside(follow)

    def _until(self, done: Callable[[], bool], timeout: float = REPLACED_S) -> bool:
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline or self.over.is_set():
                return False
            time.sleep(0.1)
        return True

    def _aside(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="deed", daemon=True)
        self._busy.append(thread)
        thread.start()
        return thread
