"""Jobs on a cluster, as a client sees them: submit, list, look at, stop. Ray is behind it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.cluster.exchange.layout import layout_of
from millrace.cluster.job import JobSpec, check_job, settled
from millrace.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from millrace.cluster.coordination import JobStatus

ANSWER_S = 60.0


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

    def submit(
        self,
        spec: JobSpec,
        store: str,
        options: Mapping[str, str] | None = None,
        *,
        num_cpus: float = 1.0,
        resume: bool = False,
    ) -> None:
        """Start a job whose checkpoints are kept in `store`; `num_cpus` are set aside for each partition.

        Returns once its coordinator is being made. Raises Invalid for what the cluster does not run.
        """
        spec = settled(spec)
        check_job(spec)
        layout_of(spec.plan, spec.partitions)
        if store.startswith("memory:"):
            raise Invalid(
                "a store in memory is lost with its process", code="MR1385", hint="give file:///… or s3://…"
            )
        self._ask(self._metadata().submit.remote(spec, store, dict(options or {}), num_cpus, resume))

    def jobs(self) -> list[JobSummary]:
        """All jobs the cluster knows, by name."""
        entries = self._ask(self._metadata().jobs.remote())
        found = [JobSummary(e.job, e.store, e.ended, e.broken) for e in entries]
        return sorted(found, key=lambda summary: summary.job)

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

    def wait(self, job: str, timeout: float | None = None) -> JobSummary | None:
        """Wait until a job has ended; None where `timeout` seconds did not suffice."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                entry = self._entry(job)
                if entry.ended is not None:
                    return JobSummary(entry.job, entry.store, entry.ended, entry.broken)
            except Unavailable:  # the metadata actor is being restarted
                pass
            if deadline is not None and time.monotonic() > deadline:
                return None
            time.sleep(0.2)

    def processes(self, job: str) -> dict[str, int]:
        """The process number of the job's coordinator and of each partition, by role."""
        found: dict[str, int] = self._ask(self._coordinator(job).pids.remote())
        return found

    def _entry(self, job: str) -> Any:
        for entry in self._ask(self._metadata().jobs.remote()):
            if entry.job == job:
                return entry
        raise Invalid(f"the cluster knows no job {job}", code="MR1590", hint="see `millrace jobs`")

    def _metadata(self) -> Any:
        from millrace.cluster.ray.metadata_actor import metadata  # deferred: imports Ray

        return metadata()

    def _coordinator(self, job: str) -> Any:
        found = self._session.living(self._session.coordinator_name(job))
        if found is None:
            raise Unavailable(
                f"the coordinator of job {job} does not run at the moment", code="MR3012", hint="try again"
            )
        return found

    def _ask(self, reference: Any) -> Any:
        return self._session.answer(reference, ANSWER_S)
