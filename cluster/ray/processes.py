"""Partitions as actors of the coordinator: made, told, watched and ended through Ray. Decides nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from millrace.cluster.protocol.messages import PartitionLost, PartitionStart, Tell
from millrace.cluster.ray.partition_actor import PartitionActor
from millrace.cluster.ray.session import partition_name

PIDS_S = 2.0
NAME_S = 3.0
"""How long to wait for a killed predecessor to give its name free."""


@dataclass(slots=True)
class _Owner:
    start: PartitionStart
    handle: Any
    running: Any
    address: Any
    introduced: bool = False


class RayProcesses:
    """The actors of one job's partitions, by partition."""

    def __init__(self, store_url: str, options: Mapping[str, str], coordinator: Any, num_cpus: float) -> None:
        self._store_url = store_url
        self._options = options
        self._coordinator = coordinator
        self._num_cpus = num_cpus
        self._owners: dict[int, _Owner] = {}

    def start(self, start: PartitionStart, partitions: int) -> None:
        partition = start.plan.partition
        if partition in self._owners:
            self.kill(partition, self._owners[partition].start.epoch)
        handle = self._make(partition, (self._store_url, self._options, start, partitions, self._coordinator))
        self._owners[partition] = _Owner(start, handle, handle.run.remote(), handle.address.remote())

    def _make(self, partition: int, arguments: tuple[Any, ...]) -> Any:
        name = partition_name(arguments[2].job, partition)
        deadline = time.monotonic() + NAME_S
        while True:
            try:
                return PartitionActor.options(  # type: ignore[attr-defined]  # Ray adds it
                    name=name, num_cpus=self._num_cpus, scheduling_strategy="SPREAD"
                ).remote(*arguments)
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def tell(self, command: Tell) -> None:
        owner = self._owners.get(command.partition)
        if owner is not None and owner.start.epoch == command.epoch:
            owner.handle.deliver.remote(command)

    def kill(self, partition: int, epoch: int) -> None:
        owner = self._owners.get(partition)
        if owner is not None and owner.start.epoch == epoch:
            del self._owners[partition]
            ray.kill(owner.handle)

    def lost(self) -> list[PartitionLost]:
        self._introduce()
        watched = {owner.running: owner for owner in self._owners.values()}
        if not watched:
            return []
        ended, _ = ray.wait(list(watched), num_returns=len(watched), timeout=0)
        found = []
        for reference in ended:
            owner = watched[reference]
            partition = owner.start.plan.partition
            found.append(PartitionLost(partition, owner.start.epoch, *_reason(reference)))
            self.kill(partition, owner.start.epoch)
        return found

    def pids(self) -> dict[int, int]:
        """The process of each partition; those that do not answer are left out."""
        asked = {owner.handle.pid.remote(): partition for partition, owner in list(self._owners.items())}
        if not asked:
            return {}
        found = {}
        for reference in ray.wait(list(asked), num_returns=len(asked), timeout=PIDS_S)[0]:
            with contextlib.suppress(RayError):
                found[asked[reference]] = ray.get(reference)
        return found

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
            owner.handle.introduce.remote(epochs, addresses)


def _reason(reference: Any) -> tuple[str, bool]:
    """Why a partition ended, and whether the next one would end in the same way."""
    try:
        reason, lasting = ray.get(reference)
        return f"ended: {reason}", lasting
    except RayActorError:
        return "its process died", False
    except Exception as error:  # noqa: BLE001  # whatever the partition raised comes out here
        return f"failed: {str(error).strip().splitlines()[-1]}", True
