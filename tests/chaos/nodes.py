"""A Ray cluster of several nodes on this machine, whose processes may be stopped and killed one by one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from millrace.cluster.jobs import Cluster

SRC = str(Path(__file__).parents[2] / "src")
STORE_BYTES = 80_000_000
NODE_CPUS = 8
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_DEDUP_LOGS": "0",
    "PYTHONPATH": SRC,
}
"""What a cluster that is to notice lost nodes within seconds is started with."""


def parent_of(pid: int) -> int:
    """The parent of a process, 0 where there is no such process."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def send(pid: int, what: signal.Signals) -> bool:
    """Send a signal; whether the process was there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)
        return True
    return False


class Nodes:
    """A head that runs nothing and `count` nodes. Everything it started ends with `close`."""

    def __init__(self, count: int) -> None:
        import ray
        from ray.cluster_utils import Cluster as Simulated

        self.folder = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))  # Ray's sockets need a short path
        self._before = {name: os.environ.get(name) for name in (*SETTINGS, "RAY_TMPDIR")}
        os.environ.update(SETTINGS, RAY_TMPDIR=str(self.folder))
        self._frozen: set[int] = set()
        self._held = 0
        """Nodes that were killed and are not replaced yet."""
        self._simulated: Any = Simulated(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
            },
        )
        self._nodes: dict[int, Any] = {}
        self._count = count
        self.tend()
        ray._private.worker.print_to_stdstream = lambda *_, **__: (
            None
        )  # it prints whole logs of killed raylets
        ray.init(
            address=self._simulated.address,
            namespace="millrace",
            log_to_driver=False,
            configure_logging=False,
        )
        self.cluster = Cluster("auto")

    def tend(self) -> None:
        """Start nodes in the place of those that are gone. To be called by the main thread only: Ray asks for it."""
        while len(self._nodes) + self._held < self._count:
            try:
                node = self._simulated.add_node(
                    num_cpus=NODE_CPUS, object_store_memory=STORE_BYTES, wait=False
                )
            except Exception as error:  # Ray has no kind for it
                if "timed out during startup" not in str(error) or not self._nodes:
                    raise
                return  # a busy machine; there are others, and it is tried again
            self._nodes[int(node.all_processes["raylet"][0].process.pid)] = node

    @property
    def raylets(self) -> list[int]:
        """The process numbers of the raylets that have not been killed."""
        return sorted(self._nodes)

    def freeze(self, pid: int) -> None:
        """Stop a process where it stands."""
        if send(pid, signal.SIGSTOP):
            self._frozen.add(pid)

    def thaw(self, pid: int) -> None:
        """Let a stopped process go on."""
        self._frozen.discard(pid)
        send(pid, signal.SIGCONT)

    def kill(self, pid: int) -> bool:
        """kill -9."""
        self._frozen.discard(pid)
        return send(pid, signal.SIGKILL)

    def kill_raylet(self, raylet: int) -> Any:
        """kill -9 a node's raylet. Its workers go on until the dead process is `reap`ed: they do not see its death."""
        self._held += 1
        node = self._nodes.pop(raylet)
        self.kill(raylet)
        return node

    def reap(self, node: Any) -> None:
        """Let the operating system forget a killed raylet, and end what else the node ran; it is replaced then."""
        node.all_processes["raylet"][0].process.wait(10)
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        with contextlib.suppress(KeyError, ValueError, AttributeError):
            self._simulated.worker_nodes.remove(node)
        self._held -= 1

    def refusals(self) -> list[str]:
        """Lines in the logs of all processes that tell of an owner who came too late."""
        found = []
        for path in sorted(self.folder.glob("ray/session_*/logs/worker-*.err")):
            with contextlib.suppress(OSError):
                found += [
                    line for line in path.read_text(errors="replace").splitlines() if "refused: " in line
                ]
        return found

    def keep_logs(self, folder: Path) -> None:
        """Copy the logs of all workers to `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("ray/session_*/logs/worker-*.err"):
            if path.stat().st_size:
                shutil.copy(path, folder / path.name)

    def close(self) -> None:
        """End every process, delete every file."""
        import ray

        for pid in list(self._frozen):
            self.thaw(pid)
        ray.shutdown()
        self._simulated.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
