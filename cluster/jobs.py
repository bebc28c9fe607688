"""Jobs on a cluster, as a client sees them: submit, list, look at, scale, stop. Ray is behind it."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from millrace.cluster.job import JobSpec, check_job, check_store, settled
from millrace.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from millrace.cluster.coordination import JobStatus
    from millrace.cluster.logbook import LogLine
    from millrace.cluster.partition import SplitStatus
    from millrace.cluster.resuming import KeptCheckpoint
    from millrace.cluster.upgrade import Upgrade
    from millrace.state.checkpoints.number import CheckpointNumber

Answer = TypeVar("Answer")

ANSWER_S = 60.0
RETRY_S = 0.2
POLL_S = 0.2
STOPPED = "stopped by a user"


def new_label(prefix: str = "savepoint") -> str:
    """A name for a savepoint that was given none."""
    return f"{prefix}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


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
        self, spec: JobSpec, store: str, options: Mapping[str, str] | None = None, *, num_cpus: float = 1.0
    ) -> Job:
        """Start a job whose checkpoints are kept in `store`; `num_cpus` are set aside for each partition.

        Returns once its coordinator is being made. Raises Invalid for what the cluster does not run.
        """
        spec = settled(spec)
        check_job(spec)
        check_store(store)
        given = replace(spec, cpus=num_cpus)
        self._ask(self._metadata().submit.remote(given, store, dict(options or {})))
        return Job(self, spec.job)

    def resume(
        self,
        job: str,
        store: str | None = None,
        options: Mapping[str, str] | None = None,
        *,
        spec: JobSpec | None = None,
        wanted: str | None = None,
    ) -> Job:
        """Let a job go on that nobody leads, with what it ran before or with `spec`.

        `wanted` is a savepoint or the number of a checkpoint ("3.17"); None: the last one. What was published after it
        is published again. Without `store` the job must be known here. Raises Invalid for what can not be
        (MR1590 … MR1596), Corrupt where the checkpoint is damaged.
        """
        if spec is not None:
            check_job(spec)
        url, known = self._home(job, store, options)
        check_store(url)
        self._ask(self._metadata().resume.remote(job, url, known, spec, wanted))
        return Job(self, job)

    def examine(
        self,
        job: str,
        store: str | None = None,
        options: Mapping[str, str] | None = None,
        *,
        spec: JobSpec | None = None,
        wanted: str | None = None,
    ) -> Upgrade | None:
        """What `resume` with the same arguments would keep, drop and start empty; None: the plan is the same."""
        if spec is not None:
            check_job(spec)
        url, known = self._home(job, store, options)
        found: Upgrade | None = self._ask(self._metadata().examine.remote(job, url, known, spec, wanted))
        return found

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

    def ask(self, job: str, method: str, *arguments: object) -> None:
        """Ask the coordinator of a job for something that may be asked for twice. Raises what it refuses.

        One that is being restarted is waited for, up to `ANSWER_S` seconds.
        """
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                self._entry(job)
                return self._ask(getattr(self._coordinator(job), method).remote(*arguments))
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_S)

    def running(
        self, job: str, store: str | None = None, options: Mapping[str, str] | None = None
    ) -> tuple[JobSpec, str, CheckpointNumber | None]:
        """What a job runs or ran last, the name of that in its store, and its last checkpoint."""
        url, known = self._home(job, store, options)
        found: tuple[JobSpec, str, CheckpointNumber | None] = self._ask(
            self._metadata().running.remote(job, url, known)
        )
        return found

    def roll_back(self, job: str, program: str, number: CheckpointNumber) -> bool:
        """Let a job go on with its former plan, unless a checkpoint after `number` was decided; whether it does."""
        url, options = self._home(job, None, None)
        done: bool = self._ask(self._metadata().roll_back.remote(job, url, options, program, number))
        return done

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

    def splits(self, job: str) -> dict[int, tuple[SplitStatus, ...]]:
        """The splits of each partition that answers, by partition."""
        found: dict[int, tuple[SplitStatus, ...]] = self._ask(self._coordinator(job).splits.remote())
        return found

    def log(self, job: str, after: int = 0) -> tuple[LogLine, ...]:
        """What the job's processes have logged of late, above a line's number; of one that has ended, the last lines."""
        entry = self._entry(job)
        if entry.ended is not None:
            return tuple(line for line in entry.log if line.number > after)
        found: tuple[LogLine, ...] = self._ask(self._coordinator(job).log.remote(after))
        return found

    def processes(self, job: str) -> dict[str, int]:
        """The process number of the job's coordinator and of each partition, by role."""
        found: dict[str, int] = self._ask(self._coordinator(job).pids.remote())
        return found

    def _home(
        self, job: str, store: str | None, options: Mapping[str, str] | None
    ) -> tuple[str, Mapping[str, str]]:
        """The store of a job and how it is opened: as given, or as the cluster knows."""
        if store is not None:
            return store, dict(options or {})
        entry = self._entry(job)
        return entry.store, entry.options

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

    def splits(self) -> dict[int, tuple[SplitStatus, ...]]:
        """Where every split stands, by partition; none once the job has ended."""
        if self.cluster.summary(self.name).ended is not None:
            return {}
        return self.cluster.splits(self.name)

    def log(self, after: int = 0) -> tuple[LogLine, ...]:
        """What the job's processes have logged of late, above a line's number."""
        return self.cluster.log(self.name, after)

    def scale(self, partitions: int, timeout: float = 120.0) -> JobStatus:
        """Go on with so many partitions, from a checkpoint that stops; returns once they all run.

        Raises Invalid or Unsupported for a number that can not be, Unavailable where it takes longer than `timeout`
        seconds (it may still be done later).
        """

        def scaled() -> JobStatus | None:
            status = self.status()
            if status.target != partitions:
                self.cluster.ask(self.name, "scale", partitions)
                return None
            return status if status.phase == "running" and len(status.partitions) == partitions else None

        return self._until(scaled, timeout, f"run in {partitions} partitions")

    def checkpoint(self) -> None:
        """Take a checkpoint now; returns at once."""
        self.cluster.ask(self.name, "checkpoint")

    def savepoint(self, name: str | None = None, timeout: float = 60.0) -> KeptCheckpoint:
        """Take a checkpoint that is kept under `name` until it is dropped; returns once it is decided.

        Raises Invalid MR1598 where the job has one by that name, Unavailable where it takes longer than `timeout` s.
        """
        label = name or new_label()
        self.cluster.ask(self.name, "save", label)

        def saved() -> KeptCheckpoint | None:
            found = next((k for k in self.status().kept if k.label == label), None)
            if found is None:
                self._insist("save", label)
            return found

        return self._until(saved, timeout, f"come to savepoint {label}")

    def drop_savepoint(self, name: str) -> None:
        """Keep a savepoint no longer; returns at once."""
        self.cluster.ask(self.name, "drop", name)

    def stop(self, timeout: float = 60.0, *, savepoint: str | None = None) -> str:
        """End the job at a last checkpoint, kept as `savepoint` if one is named; why it ended.

        Raises Unavailable where it takes longer than `timeout` s.
        """
        self.cluster.ask(self.name, "stop", STOPPED, savepoint)
        return self.wait(timeout)

    def upgrade(self, spec: JobSpec, timeout: float = 120.0) -> str:
        """Go on with another plan from a savepoint, whose name is answered; `Cluster.examine` tells first what is kept.

        The job goes on as it was, and Invalid MR1597 is raised, where the new plan has not decided a checkpoint within
        `timeout` seconds or is given up before.
        """
        self.cluster.examine(self.name, spec=spec)
        _, program, _ = self.cluster.running(self.name)
        label = new_label("before-upgrade")
        self.cluster.ask(self.name, "stop", f"upgraded from savepoint {label}", label)
        self.wait(timeout)
        _, _, stopped_at = self.cluster.running(self.name)
        assert stopped_at is not None
        self.cluster.resume(self.name, spec=spec)
        if (reason := self._why_not_started(str(stopped_at), timeout)) is not None and self.cluster.roll_back(
            self.name, program, stopped_at
        ):
            raise Invalid(
                f"job {self.name} goes on as it was, for the new plan did not start: {reason}",
                code="MR1597",
                hint=f"see its logs; savepoint {label} is kept",
            )
        return label

    def _why_not_started(self, before: str, timeout: float) -> str | None:
        """None once a checkpoint after `before` is decided, or all is read."""
        deadline = time.monotonic() + timeout
        problem = f"it has decided no checkpoint within {timeout:g} s"
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable, UnknownJob):
                summary = self.cluster.summary(self.name)
                if summary.ended is not None:
                    return summary.ended if summary.failed else None
                status = self.status()
                if status.checkpoint not in ("none", before):
                    return None
                if status.phase == "running":
                    self.checkpoint()
                if status.problems:
                    problem = status.problems[-1]
            time.sleep(POLL_S)
        return problem

    def _insist(self, method: str, label: str) -> None:
        """Ask again: a coordinator that was replaced has forgotten. That it is done by now is no error."""
        with contextlib.suppress(Invalid):
            self.cluster.ask(self.name, method, label)

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
