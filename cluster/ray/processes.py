"""Partitions in processes of the coordinator: made, told, watched, ended and used again through Ray. Decides nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from millrace.cluster.job import JobSpec, spec_key
from millrace.cluster.partition import SplitStatus
from millrace.cluster.protocol.messages import PartitionLost, PartitionStart, Tell
from millrace.cluster.ray.partition_actor import PartitionActor
from millrace.cluster.ray.session import partition_name, standby_name

PIDS_S = 2.0
NAME_S = 0.2
"""How long to wait for a killed predecessor to give its name free; after that another one is taken."""
END_S = 0.5
"""How long an owner that is replaced has to end; after that its process is killed."""
STANDBY_AFTER_S = 3.0
"""How long nobody was started before a process on standby is made: what starts a job has the machine for itself."""


@dataclass(slots=True, eq=False)
class _Process:
    """An actor; `running` is its owner's life, or that of the last one, until it has ended.

    `served` is the partition it had last; `reserved` says whether CPUs are set aside for it.
    """

    handle: Any
    served: int | None
    reserved: bool
    running: Any = None


@dataclass(slots=True)
class _Owner:
    start: PartitionStart
    process: _Process
    address: Any
    introduced: bool = False


@dataclass(slots=True)
class _Wanted:
    start: PartitionStart
    partitions: int
    since: float


class RayProcesses:
    """The actors of one job's partitions. One more than needed is on standby, if there is room.

    An owner that is replaced ends and its process is used again: it has all that is slow to load. One that does not
    end at once hangs, and is killed.
    """

    def __init__(
        self,
        store_url: str,
        options: Mapping[str, str],
        job: JobSpec,
        coordinator: Any,
        *,
        standby: int = 1,
    ) -> None:
        self._arguments = (store_url, options, spec_key(job), coordinator)
        self._job = job.job
        self._resources = dict(job.resources)
        self._strategy = _strategy(job.placement)
        self._num_cpus = job.cpus
        self._standby = 0 if job.resources else standby  # a process that waits must not take what others need
        self._owners: dict[int, _Owner] = {}
        self._wanted: dict[int, _Wanted] = {}
        self._ending: dict[int, tuple[_Process, float]] = {}
        self._free: list[_Process] = []
        self._made = 0
        self._started_at = time.monotonic()

    def start(self, start: PartitionStart, partitions: int) -> None:
        partition = start.plan.partition
        if partition in self._owners:
            self.kill(partition, self._owners[partition].start.epoch)
        self._started_at = time.monotonic()
        self._wanted[partition] = _Wanted(start, partitions, self._started_at)
        self._settle()

    def tell(self, command: Tell) -> None:
        owner = self._owners.get(command.partition)
        if owner is not None and owner.start.epoch == command.epoch:
            owner.process.handle.deliver.remote(command)

    def kill(self, partition: int, epoch: int) -> None:
        owner = self._owners.get(partition)
        if owner is None or owner.start.epoch != epoch:
            wanted = self._wanted.get(partition)
            if wanted is not None and wanted.start.epoch == epoch:
                del self._wanted[partition]
            return
        del self._owners[partition]
        owner.process.handle.end.remote(epoch)
        self._ending[partition] = owner.process, time.monotonic() + END_S

    def lost(self) -> list[PartitionLost]:
        self._settle()
        self._introduce()
        watched = {owner.process.running: owner for owner in self._owners.values()}
        if not watched:
            return []
        ended, _ = ray.wait(list(watched), num_returns=len(watched), timeout=0)
        found = []
        for reference in ended:
            owner = watched[reference]
            partition = owner.start.plan.partition
            reason, lasting, reusable = _reason(reference)
            found.append(PartitionLost(partition, owner.start.epoch, reason, lasting))
            del self._owners[partition]
            self._release(owner.process, reusable=reusable)
        return found

    def close(self) -> None:
        """End every process."""
        processes = (
            [o.process for o in self._owners.values()] + [p for p, _ in self._ending.values()] + self._free
        )
        self._owners, self._wanted, self._ending, self._free = {}, {}, {}, []
        for process in processes:
            ray.kill(process.handle)

    def pids(self) -> dict[int, int]:
        """The process of each partition; those that do not answer are left out."""
        return self._answers("pid")

    def splits(self) -> dict[int, tuple[SplitStatus, ...]]:
        """The splits of each partition that answers."""
        return self._answers("splits")

    def _answers(self, method: str) -> dict[int, Any]:
        asked = {
            getattr(owner.process.handle, method).remote(): partition
            for partition, owner in list(self._owners.items())
        }
        found: dict[int, Any] = {}
        if not asked:
            return found
        for reference in ray.wait(list(asked), num_returns=len(asked), timeout=PIDS_S)[0]:
            with contextlib.suppress(RayError):
                found[asked[reference]] = ray.get(reference)
        return found

    def _settle(self) -> None:
        """Let go of owners that have ended, begin those that are wanted, and see that somebody is on standby."""
        now = time.monotonic()
        for partition, (process, until) in list(self._ending.items()):
            ended, _ = ray.wait([process.running], timeout=0)
            if ended:
                del self._ending[partition]
                self._release(process, reusable=_reason(process.running)[2])
            elif now > until:
                del self._ending[partition]
                ray.kill(process.handle)
        for partition, wanted in sorted(self._wanted.items()):
            chosen = self._choose(partition)
            if chosen is not None:
                del self._wanted[partition]
                self._begin(wanted, chosen)
        if not self._wanted and not self._ending and now - self._started_at > STANDBY_AFTER_S:
            self._tidy()

    def _tidy(self) -> None:
        """Give free what is set aside for nobody, and see that somebody is on standby."""
        for process in [p for p in self._free if p.reserved]:
            self._free.remove(process)
            ray.kill(process.handle)
        if self._owners and len(self._free) < self._standby:
            self._started_at = time.monotonic()
            self._free.append(self._make(standby_name(self._job, self._made), None, 0))

    def _choose(self, partition: int) -> _Process | None:
        """A process for a partition: its own again, one on standby, or a new one; None: its own is about to end."""
        if partition in self._ending:
            return None
        own = next((p for p in self._free if p.served == partition), None)
        free = own or next((p for p in self._free if p.served is None or p.served not in self._wanted), None)
        if free is not None:
            self._free.remove(free)
            return free
        return self._make(partition_name(self._job, partition), partition, self._num_cpus)

    def _begin(self, wanted: _Wanted, process: _Process) -> None:
        start = wanted.start
        process.served = start.plan.partition
        process.running = process.handle.run.remote(start, wanted.partitions)
        address = process.handle.address.remote(start.epoch) if start.peers else None
        self._owners[start.plan.partition] = _Owner(start, process, address)

    def _make(self, name: str, partition: int | None, num_cpus: float) -> _Process:
        self._made += 1
        deadline = time.monotonic() + NAME_S
        chosen = name
        while True:
            try:
                handle = PartitionActor.options(  # type: ignore[attr-defined]  # Ray adds it
                    name=chosen,
                    num_cpus=num_cpus,
                    resources=self._resources,
                    scheduling_strategy=self._strategy if partition is not None else "SPREAD",
                ).remote(*self._arguments)
                return _Process(handle, partition, num_cpus > 0)
            except ValueError:
                if time.monotonic() > deadline:
                    chosen = f"{name}.{self._made}"  # a process of that name has another partition now
                time.sleep(0.02)

    def _release(self, process: _Process, *, reusable: bool) -> None:
        if reusable:
            self._free.append(process)
        else:
            ray.kill(process.handle)

    def _introduce(self) -> None:
        """Tell peers of the same epochs where each is, once all are known."""
        for owner in list(self._owners.values()):
            epochs = dict(owner.start.peers)
            if owner.introduced or not epochs:
                continue
            peers = [self._owners.get(p) for p in epochs]
            known = [p for p in peers if p is not None and p.start.epoch == epochs[p.start.plan.partition]]
            if len(known) < len(epochs):
                continue
            ready, _ = ray.wait([p.address for p in known], num_returns=len(known), timeout=0)
            if len(ready) < len(known):
                continue
            try:
                addresses = {p.start.plan.partition: ray.get(p.address) for p in known}
            except RayActorError:
                continue
            owner.introduced = True
            owner.process.handle.introduce.remote(epochs, addresses)


def _strategy(placement: str) -> Any:
    """How Ray chooses nodes."""
    if placement == "spread":
        return "SPREAD"
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _reason(reference: Any) -> tuple[str, bool, bool]:
    """Why an owner ended, whether the next one would end in the same way, and whether its process is as good as new."""
    try:
        reason, lasting = ray.get(reference)
        return f"ended: {reason}", lasting, True
    except RayActorError:
        return "its process died", False, False
    except Exception as error:  # noqa: BLE001  # whatever the partition raised comes out here
        return f"failed: {str(error).strip().splitlines()[-1]}", True, False
