"""`millrace submit`, `jobs`, `status`, `stop`: SQL files as jobs on a Ray cluster. Leaves running to the cluster."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path

from millrace.cluster.functions import carried_functions
from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.jobs import Cluster
from millrace.errors import Invalid, Unsupported
from millrace.job_settings import take_job_settings
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.planner.plan import Plan
from millrace.planner.session import PlannedStatement, Planner
from millrace.planner.statements import SetVariable
from millrace.planner.user_functions import functions_in
from millrace.settings import GUARANTEES, Settings


def submit(
    sql: str,
    *,
    store: str,
    job: str,
    address: str = "auto",
    partitions: int = 1,
    checkpoint_interval: float = 1.0,
    variables: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    num_cpus: float = 1.0,
) -> Cluster:
    """Run the statements of `sql` as job `job` on the Ray cluster at `address`; it goes on when this process ends.

    Checkpoints are kept in `store`, every `checkpoint_interval` seconds. Only what sinks need is run. Raises Invalid
    for what a cluster can't run as asked.
    """
    spec = job_spec(
        sql,
        job=job,
        partitions=partitions,
        checkpoint_interval=checkpoint_interval,
        variables=variables or {},
        settings=settings or {},
    )
    cluster = Cluster(address)
    cluster.submit(spec, store, num_cpus=num_cpus)
    return cluster


def job_spec(
    sql: str,
    *,
    job: str,
    partitions: int,
    checkpoint_interval: float,
    variables: Mapping[str, str],
    settings: Mapping[str, str],
) -> JobSpec:
    """The job that `sql` says, with `SET` statements taken in."""
    if checkpoint_interval <= 0:
        raise Invalid(
            f"a checkpoint can not be taken every {checkpoint_interval} s",
            code="MR1553",
            hint="give seconds above zero",
        )
    planner = Planner(variables=dict(variables))
    values = dict(settings)
    planned: list[PlannedStatement] = []
    for statement in planner.parse(sql):
        if isinstance(statement, SetVariable):
            values[statement.name or ""] = statement.value or ""
            continue
        one = planner.plan(statement, sql)
        if one.command is not None:
            raise Unsupported(
                f"{type(statement).__name__} can not be part of a job",
                code="MR1390",
                position=statement.position,
                source_text=sql,
            )
        planned.append(one)
    guarantee = values.pop("guarantee", "exactly_once").strip().lower()
    if guarantee not in GUARANTEES:
        raise Invalid(
            f"guarantee can not be {guarantee!r}", code="MR1541", hint=f"one of {', '.join(GUARANTEES)}"
        )
    own = take_job_settings(values)
    known = Settings().with_values(values)
    plan = for_sinks(planner.extend(Plan(), *planned))
    return JobSpec(
        job,
        plan,
        partitions=partitions,
        vnodes=known.vnodes,
        batch_rows=known.batch_max_rows,
        stop_at_bad_rows=known.bad_rows == "fail",
        guarantee=guarantee,
        checkpoint_interval_s=checkpoint_interval,
        functions=carried_functions(plan, functions_in(planner.catalog)),
        **own,
    )


def job_name(file: Path) -> str:
    """The name of a job that was given none: that of its file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).strip(".-") or "job"


def list_jobs(address: str) -> list[str]:
    """One line a job."""
    found = Cluster(address).jobs()
    width = max((len(summary.job) for summary in found), default=0)
    return [
        f"{s.job:<{width}}  {'failed' if s.failed else 'running' if s.ended is None else 'ended'}"
        f"  {s.ended or ''}  {s.store}"
        for s in found
    ]


def show_status(address: str, job: str) -> list[str]:
    """A job and its partitions."""
    status = Cluster(address).status(job)
    lines = [f"{status.job}: {status.phase}, epoch {status.epoch}, last checkpoint {status.checkpoint}"]
    if status.holding:
        lines.append(f"  a checkpoint waits for {', '.join(f'partition {p}' for p in status.holding)}")
    lines += [
        f"  partition {p.partition} (epoch {p.epoch}) {p.phase}: {p.splits} splits, {p.rows_in:,} rows in, "
        f"{p.rows_out:,} out, {p.late_rows:,} late, {p.dead_rows:,} bad, {_watermark(p.watermark)}"
        for p in status.partitions
    ]
    return lines + [f"  problem: {problem}" for problem in status.problems]


def stop_job(address: str, job: str, timeout: float) -> str | None:
    """End a job at a last checkpoint; why it ended, or None where it takes longer than `timeout` seconds."""
    cluster = Cluster(address)
    cluster.stop(job)
    ended = cluster.wait(job, timeout)
    return None if ended is None else ended.ended


def _watermark(us: int) -> str:
    if us in (START_OF_TIME, END_OF_TIME):
        return "no watermark"
    return f"watermark {datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC):%Y-%m-%d %H:%M:%S}"
