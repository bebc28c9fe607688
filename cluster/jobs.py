"""Jobs on a cluster, as a client sees them: submit, list, look at, scale, stop. Ray is behind it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from millrace.cluster.job import JobSpec, check_job, settled
from millrace.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from millrace.cluster.coordination import JobStatus

Answer = TypeVar("Answer")

ANSWER_S = 60.0
POLL_S = 0.2


class UnknownJob(Invalid):
    """The cluster knows no such job, or not yet again."""

    default_code = "MR1590"


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One line of the list of jobs. `ended` says why it ended; None: it has not. `failed`: it can not go on."""

    job: str
    store: str
    ended: str | None
    failed: bool


class Cluster:
    """A Ray cluster that runs jobs. Joining it takes seconds; jobs live on when the client leaves."""

    def __init__(self, address: str = "auto") -> None:
        from millrace.cluster.ray import session  # deferred: Ray is slow to import, and embedded use has none

        session.connect(address)
        self._session = session

    def job(self, name: str) -> Job:
        """A handle of a job; raises Invalid where the cluster knows none by that name."""
        self._entry(name)
        return Job(self, name)

    def submit(
        self,
        spec: JobSpec,
        store: str,
        options: Mapping[str, str] | None = None,
        *,
        num_cpus: float = 1.0,
        resume: bool = False,
    ) -> Job:
        """Start a job whose checkpoints are kept in `store`; `num_cpus` are set aside for each partition.

        Returns once its coordinator is being made. Raises Invalid for what the cluster does not run.
        """
        spec = settled(spec)
        check_job(spec)
        if store.startswith("memory:"):
            raise Invalid(
                "a store in memory is lost with its process", code="MR1393", hint="give file:///… or s3://…"
            )
        self._ask(self._metadata().submit.remote(spec, store, dict(options or {}), num_cpus, resume))
        return Job(self, spec.job)

    def jobs(self) -> list[JobSummary]:
        """All jobs the cluster knows, by name."""
        entries = self._ask(self._metadata().jobs.remote())
        found = [JobSummary(e.job, e.store, e.ended, e.broken) for e in entries]
        return sorted(found, key=lambda summary: summary.job)

    def summary(self, job: str) -> JobSummary:
        """The job's line of the list."""
        entry = self._entry(job)
        return JobSummary(entry.job, entry.store, entry.ended, entry.broken)

    def status(self, job: str) -> JobStatus:
        """Where a job stands, or stood when it ended."""
        entry = self._entry(job)
        if entry.ended is not None and entry.last is not None:
            last: JobStatus = entry.last
            return last
        status: JobStatus = self._ask(self._coordinator(job).status.remote())
        return status

    def stop(self, job: str, reason: str = "stopped by a user") -> None:
        """End a job at a last checkpoint; returns at once."""
        self._entry(job)
        self._ask(self._coordinator(job).stop.remote(reason))

    def scale(self, job: str, partitions: int) -> None:
        """Ask a job to go on with so many partitions; returns at once. Raises Invalid for a number that can not be."""
        self._entry(job)
        self._ask(self._coordinator(job).scale.remote(partitions))

    def wait(self, job: str, timeout: float | None = None) -> JobSummary | None:
        """Wait until a job has ended; None where `timeout` seconds did not suffice."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                found = self.summary(job)
                if found.ended is not None:
                    return found
            except (Unavailable, UnknownJob):  # the metadata actor is restarted, and learns of jobs again
                pass
            if deadline is not None and time.monotonic() > deadline:
                return None
            time.sleep(POLL_S)

    def processes(self, job: str) -> dict[str, int]:
        """The process number of the job's coordinator and of each partition, by role."""
        found: dict[str, int] = self._ask(self._coordinator(job).pids.remote())
        return found

    def _entry(self, job: str) -> Any:
        for entry in self._ask(self._metadata().jobs.remote()):
            if entry.job == job:
                return entry
        raise UnknownJob(f"the cluster knows no job {job}", code="MR1590", hint="see `millrace jobs`")

    def _metadata(self) -> Any:
        from millrace.cluster.ray.metadata_actor import metadata  # deferred: imports Ray

        return metadata()

    def _coordinator(self, job: str) -> Any:
        found = self._session.living(self._session.coordinator_name(job))
        if found is None:
            raise Unavailable(
                f"the coordinator of job {job} does not run at the moment", code="MR3014", hint="try again"
            )
        return found

    def _ask(self, reference: Any) -> Any:
        return self._session.answer(reference, ANSWER_S)


class Job:
    """One job on a cluster. It lives on when this handle is gone."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def status(self) -> JobStatus:
        """Where the job stands, or stood when it ended."""
        return self.cluster.status(self.name)

    def scale(self, partitions: int, timeout: float = 120.0) -> JobStatus:
        """Go on with so many partitions, from a checkpoint that stops; returns once they all run.

        Raises Invalid or Unsupported for a number that can not be, Unavailable where it takes longer than `timeout`
        seconds (it may still be done later).
        """

        def scaled() -> JobStatus | None:
            status = self.status()
            if status.target != partitions:
                self.cluster.scale(self.name, partitions)
                return None
            return status if status.phase == "running" and len(status.partitions) == partitions else None

        return self._until(scaled, timeout, f"run in {partitions} partitions")

    def stop(self, timeout: float = 60.0) -> str:
        """End the job at a last checkpoint; why it ended. Raises Unavailable where it takes longer."""
        self.cluster.stop(self.name)
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> str:
        """Wait for the end; why it ended. Raises Unavailable where `timeout` seconds do not suffice."""
        ended = self.cluster.wait(self.name, timeout)
        if ended is None or ended.ended is None:
            raise Unavailable(
                f"job {self.name} has not ended within {timeout} s", code="MR3013", hint="wait on"
            )
        return ended.ended

    def _until(self, done: Callable[[], Answer | None], timeout: float, wanted: str) -> Answer:
        """Ask again and again, through restarts of actors."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(Unavailable, UnknownJob):
                if (found := done()) is not None:
                    return found
                ended = self.cluster.summary(self.name).ended
                if ended is not None:
                    raise Invalid(
                        f"job {self.name} has ended and does not {wanted}: {ended}",
                        code="MR1593",
                        hint="resume it first",
                    )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"job {self.name} does not {wanted} after {timeout:g} s",
                    code="MR3013",
                    hint="see `millrace status`; it may still come to it",
                )
            time.sleep(POLL_S)
