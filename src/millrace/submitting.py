"""`millrace submit`, `jobs`, `status`, `stop`: SQL files as jobs on a Ray cluster. Leaves running to the cluster."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from millrace.cluster.functions import carried_functions
from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.jobs import Cluster
from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.operators.side import DeadLetters
from millrace.planner.dialect.durations import parse_duration
from millrace.planner.plan import Plan
from millrace.planner.session import PlannedStatement, Planner
from millrace.planner.statements import SetVariable
from millrace.planner.user_functions import functions_in
from millrace.settings import BAD_ROWS, GUARANTEES, NO_DELAY, Settings, known_name


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
    planner = Planner(variables=dict(variables))
    values: dict[str, str] = {}
    for name, value in settings.items():
        _take(planner, values, name, value)
    planned: list[PlannedStatement] = []
    for statement in planner.parse(sql):
        if isinstance(statement, SetVariable):
            with _placed(statement, sql):
                _take(planner, values, statement.name, statement.value)
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
    partitions = _count(values.pop("partitions", partitions))
    every = values.pop("checkpoint.interval", None)
    checkpoint_interval = checkpoint_interval if every is None else parse_duration(every) / 1e6
    if checkpoint_interval <= 0:
        raise Invalid(
            f"a checkpoint can not be taken every {checkpoint_interval} s",
            code="MR1553",
            hint="give seconds above zero",
        )
    known = Settings().with_values(values)
    plan = for_sinks(planner.extend(Plan(), *planned))
    _check_bad_rows(known.bad_rows, plan)
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
    )


_OF_THE_COMMAND = {
    "checkpoint.store": "millrace submit --store file:///…",
    "job": "millrace submit --job orders",
    "state.dir": "what is pushed is kept by databases in one process; a job reads what can be read again",
    "batch.max_delay": NO_DELAY,
}
"""Settings that a script which is submitted can not have, and what to do instead."""


def _take(planner: Planner, values: dict[str, str], name: str | None, value: str | None) -> None:
    """Heed one SET (value None: RESET; name None: of all). Raises Invalid MR1540, MR1541; Unsupported MR1543."""
    if name is None:
        for one in list(values):
            _take(planner, values, one, None)
        return
    known = known_name(name, ("partitions", *_OF_THE_COMMAND))
    if known in _OF_THE_COMMAND:
        raise Unsupported(
            f"{known} can not be set in what is submitted", code="MR1543", hint=_OF_THE_COMMAND[known]
        )
    if value is None:
        values.pop(known, None)
    else:
        values[known] = value
        if known not in ("partitions", "guarantee"):
            Settings().with_values({known: value})
    planner.set(known, value)


def _count(partitions: int | str) -> int:
    try:
        return int(partitions)
    except ValueError:
        raise Invalid(
            f"partitions takes a whole number, not {partitions!r}", code="MR1541", hint="SET partitions = 4"
        ) from None


def _check_bad_rows(setting: str, plan: Plan) -> None:
    """Raises Unsupported MR1394 where bad records would go to a table that nothing in the job reads."""
    if setting in BAD_ROWS or any(isinstance(node.spec, DeadLetters) for node in plan.nodes):
        return
    raise Unsupported(
        f"nothing reads the table {setting}, to which bad_rows sends bad records",
        code="MR1394",
        hint=f"INSERT INTO a sink SELECT * FROM {setting}, or SET bad_rows = 'skip'",
    )


@contextmanager
def _placed(statement: SetVariable, sql: str) -> Iterator[None]:
    """Gives errors raised inside the place of the statement."""
    try:
        yield
    except MillraceError as error:
        error.position, error.source_text = error.position or statement.position, sql
        raise


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
