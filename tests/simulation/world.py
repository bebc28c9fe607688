"""Virtual time, processes that crash and freeze, a network that loses and doubles, and named failpoints."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from millrace.errors import Unavailable


class Crash(Exception):
    """The process that runs dies here."""


class Violation(AssertionError):
    """An invariant of the protocol does not hold."""


@dataclass(frozen=True)
class Faults:
    """Rates while faults are on: per message, per I/O, per failpoint reached."""

    drop: float = 0.03
    double: float = 0.03
    slow_message: float = 0.05
    io_fails: float = 0.02
    io_slow: float = 0.03
    crash: float = 0.002
    freeze: float = 0.002
    kill_fails: float = 0.3


NO_FAULTS = Faults(0, 0, 0, 0, 0, 0, 0, 0)


class World:
    """One seed: everything that happens, in virtual time (s)."""

    def __init__(
        self, seed: int, faults: Faults, faults_until: float, crashes: list[str] | None = None
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.faults_until = faults_until
        self.reached: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=4000)
        self.isolated: dict[str, float] = {}
        self.steps = 0
        self.on_death: Callable[[Process], None] = lambda process: None
        self._faults = faults
        self._crashes = list(crashes or ())
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = itertools.count()

    @property
    def faults(self) -> Faults:
        return self._faults if 0 < self.now < self.faults_until else NO_FAULTS

    def chance(self, rate: float) -> bool:
        return rate > 0 and self.rng.random() < rate

    def at(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._ties), act))

    def step(self) -> bool:
        if not self._heap:
            return False
        self.now, _, act = heapq.heappop(self._heap)
        self.steps += 1
        act()
        return True

    def log(self, text: str) -> None:
        self.trace.append(f"{self.now:9.3f} {text}")

    def fail(self, text: str) -> None:
        raise Violation(f"seed {self.seed}: {text}")

    def reach(self, name: str) -> None:
        """A failpoint: the process that runs may die here."""
        self.reached[name] += 1
        if self._crashes and self._crashes[0] == name:
            self._crashes.pop(0)
            self.crashed[name] += 1
            raise Crash(name)
        if self.chance(self.faults.crash):
            self.crashed[name] += 1
            raise Crash(name)

    @property
    def crashes_left(self) -> int:
        return len(self._crashes)

    def delay(self) -> float:
        if self.chance(self.faults.slow_message):
            return self.rng.uniform(0.2, 2.0)
        return self.rng.uniform(0.001, 0.03)

    def send(self, sender: Process, target: Process, act: Callable[[], None]) -> None:
        """A message: may be lost, late, doubled, and overtaken by others."""
        if self.cut(sender, target) or self.chance(self.faults.drop):
            return
        for _ in range(2 if self.chance(self.faults.double) else 1):
            target.post(self.delay(), act)

    def cut(self, one: Process, other: Process) -> bool:
        """Whether the network is parted between two processes."""
        apart = {name for name, until in self.isolated.items() if until > self.now}
        return (one.name in apart) != (other.name in apart)


class Process:
    """Something that lives, may freeze and may die. `post` runs in it, in turn, while it lives."""

    role = "process"

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.frozen_until = 0.0
        self._held: deque[Callable[[], None]] = deque()

    def post(self, delay: float, act: Callable[[], None]) -> None:
        self.world.at(delay, lambda: self._run(act))

    def _run(self, act: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.frozen_until > self.world.now or self._held:
            self._held.append(act)
            return
        self._guard(act)
        world = self.world
        if self.alive and world.chance(world.faults.freeze):
            self.freeze(world.rng.choice([0.3, 1.5, 4.0, 9.0]))

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Crash as crash:
            self.world.log(f"{self.name} crashes at {crash}")
            self.die()

    def freeze(self, duration: float) -> None:
        """A zombie in the making: nothing runs until it wakes, then all that came."""
        self.world.log(f"{self.name} freezes for {duration}")
        self.frozen_until = self.world.now + duration
        self.world.at(duration + 1e-6, self._wake)

    def _wake(self) -> None:
        if self.alive and self.frozen_until <= self.world.now:
            self.world.log(f"{self.name} wakes")
            while self._held and self.alive:
                self._guard(self._held.popleft())

    def die(self) -> None:
        if self.alive:
            self.alive = False
            self.world.on_death(self)

    def io(
        self,
        name: str,
        operation: Callable[[], object],
        done: Callable[[object], None],
        *,
        failed: Callable[[], None] | None = None,
    ) -> None:
        """An operation outside: takes effect some time later even if this process freezes, and perhaps if it dies.

        `failed` is called where it is not known to have taken effect; without it, it is tried again.
        """
        world = self.world
        world.reach(f"{self.role}.{name}.before")

        def act() -> None:
            if not self.alive and world.rng.random() < 0.5:
                return
            try:
                result = operation()
            except Unavailable:
                if failed is not None:
                    self.post(world.delay(), failed)
                else:
                    self.post(world.delay() + 0.05, lambda: self.io(name, operation, done))
                return
            except Crash as crash:
                world.log(f"{self.name} crashes at {crash}")
                self.die()
                return
            self.post(world.delay(), lambda: finish(result))

        def finish(result: object) -> None:
            world.reach(f"{self.role}.{name}.after")
            done(result)

        slow = world.chance(world.faults.io_slow)
        world.at(world.rng.uniform(0.5, 3.0) if slow else world.rng.uniform(0.001, 0.02), act)


class FaultyStore:
    """Objects in memory; a call may fail before or after it took effect."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.objects: dict[str, bytes] = {}
        self.deleted: set[str] = set()

    def create(self, key: str, data: bytes) -> bool:
        self._falter(key)
        created = key not in self.objects
        if created:
            if key in self.deleted:
                self._world.log(f"{key} is created again after it was pruned")
            self.objects[key] = bytes(data)
        if "/data/" in key:
            self._world.reach("partition.object_written")
        self._falter(key)
        return created

    def get(self, key: str) -> bytes | None:
        self._falter(key)
        return self.objects.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        data = self.get(key)
        return None if data is None else data[start : start + length]

    def list(self, prefix: str, after: str | None = None) -> list[str]:
        self._falter(prefix)
        return sorted(k for k in self.objects if k.startswith(prefix + "/") and (after is None or k > after))

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self._world.reach("coordinator.object_pruned")
            self._falter(key)
            if self.objects.pop(key, None) is not None:
                self.deleted.add(key)

    def _falter(self, key: str) -> None:
        if self._world.chance(self._world.faults.io_fails):
            raise Unavailable(f"the store did not answer for {key}")


class FencedByBroker(Exception):
    """A producer with this transactional id was initialised later."""


class Broker:
    """Topics with transactions as Kafka has them: who initialises last may write, whatever its epoch is with us."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._producers: dict[tuple[str, int], int] = {}
        self._staged: dict[tuple[str, int], tuple[int, list[tuple[object, ...]], int]] = {}
        self.markers: dict[tuple[str, int], int] = {}
        self.on_commit: Callable[[tuple[str, int], int, list[tuple[object, ...]]], None] = lambda *a: None

    def init(self, stream: tuple[str, int]) -> int:
        """`init_transactions`: aborts what is open and fences who had the id before."""
        self._falter()
        self._staged.pop(stream, None)
        self._producers[stream] = self._producers.get(stream, 0) + 1
        return self._producers[stream]

    def write(
        self, stream: tuple[str, int], producer: int, rows: list[tuple[object, ...]], marker: int
    ) -> None:
        """Rows and marker in an open transaction: nobody reads them yet."""
        self._check(stream, producer)
        self._falter()
        self._staged[stream] = (producer, rows, marker)

    def commit(self, stream: tuple[str, int], producer: int) -> None:
        """Make them visible."""
        self._check(stream, producer)
        self._falter()
        found = self._staged.pop(stream, None)
        if found is None or found[0] != producer:
            raise FencedByBroker(stream)
        _, rows, marker = found
        self.on_commit(stream, marker, rows)
        self.markers[stream] = marker
        self._falter()

    def marker(self, stream: tuple[str, int]) -> int | None:
        """`read_committed` up to the end."""
        self._falter()
        return self.markers.get(stream)

    def _check(self, stream: tuple[str, int], producer: int) -> None:
        if self._producers.get(stream) != producer:
            raise FencedByBroker(stream)

    def _falter(self) -> None:
        if self._world.chance(self._world.faults.io_fails):
            raise Unavailable("the broker did not answer")
