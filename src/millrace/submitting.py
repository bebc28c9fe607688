"""SQL files as jobs on a Ray cluster: submitted, resumed, upgraded. Leaves running to the cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from millrace.cluster.functions import carried_functions
from millrace.cluster.job import JobSpec, for_sinks, settled
from millrace.cluster.jobs import Cluster, Job
from millrace.cluster.upgrade import Upgrade
from millrace.errors import MillraceError, Unsupported
from millrace.job_settings import take_job_settings
from millrace.planner.annotations import JobDefaults, job_defaults
from millrace.planner.plan import Plan
from millrace.planner.session import PlannedStatement, Planner
from millrace.planner.statements import SetVariable
from millrace.planner.user_functions import functions_in
from millrace.submitted_settings import SubmittedSettings


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
) -> Job:
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
    return Cluster(address).submit(spec, store, num_cpus=num_cpus)


@dataclass(frozen=True, slots=True)
class NewPlan:
    """A plan that a job may go on with, and what it makes of the state; None: it is the one that made the checkpoint."""

    spec: JobSpec
    upgrade: Upgrade | None


def examine_upgrade(
    cluster: Cluster,
    job: str,
    sql: str,
    *,
    variables: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> NewPlan:
    """What running job `job` would make of new SQL. Nothing is changed. Raises Invalid for what can not be."""
    old, _, _ = cluster.running(job)
    spec = spec_after(old, sql, variables or {}, settings or {})
    return NewPlan(spec, cluster.examine(job, spec=spec))


def upgrade(
    sql: str,
    *,
    job: str,
    address: str = "auto",
    variables: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> Upgrade | None:
    """Let job `job` go on with new SQL from a savepoint; what it kept, dropped and started empty.

    Partitions, interval and CPUs stay. Raises Invalid for what can not be, and where the new plan does not start:
    then the job goes on as it was.
    """
    cluster = Cluster(address)
    new = examine_upgrade(cluster, job, sql, variables=variables, settings=settings)
    if new.upgrade is not None:
        Job(cluster, job).upgrade(new.spec, timeout)
    return new.upgrade


def spec_after(old: JobSpec, sql: str, variables: Mapping[str, str], settings: Mapping[str, str]) -> JobSpec:
    """The job `old` with other SQL. Queries it had are planned first, so that new ones do not change what they read."""
    found = job_spec(
        sql,
        job=old.job,
        partitions=old.partitions,
        checkpoint_interval=old.checkpoint_interval_s,
        variables=variables,
        settings={
            "vnodes": str(old.vnodes),
            "batch.max_rows": str(old.batch_rows),
            "liveness": f"{old.liveness_s} s",
            "lease": f"{old.lease_s} s",
            "placement": old.placement,
            **settings,
        },
        known=frozenset(output.name for output in old.plan.outputs),
    )
    found = replace(
        found,
        partitions=old.partitions,
        checkpoint_interval_s=old.checkpoint_interval_s,
        cpus=old.cpus,
        resources=found.resources or old.resources,
        exchange_tls=found.exchange_tls or old.exchange_tls,
    )
    return settled(found, old.incarnation)


def job_spec(
    sql: str,
    *,
    job: str,
    partitions: int,
    checkpoint_interval: float,
    variables: Mapping[str, str],
    settings: Mapping[str, str],
    known: frozenset[str] = frozenset(),
) -> JobSpec:
    """The job that `sql` says, with `SET` statements taken in. Outputs named `known` are planned before others."""
    planner = Planner(variables=dict(variables))
    given = SubmittedSettings(planner)
    given.take_all(settings)
    planned: list[PlannedStatement] = []
    for statement in planner.parse(sql):
        if isinstance(statement, SetVariable):
            try:
                given.take(statement.name, statement.value)
            except MillraceError as error:
                error.position, error.source_text = error.position or statement.position, sql
                raise
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
    plan = for_sinks(_plan(planner, planned, known))
    given.check_bad_rows(plan)
    own = given.known()
    return JobSpec(
        job,
        plan,
        partitions=given.partitions(partitions),
        vnodes=own.vnodes,
        batch_rows=own.batch_max_rows,
        stop_at_bad_rows=own.bad_rows == "fail",
        guarantee=given.guarantee(),
        checkpoint_interval_s=given.interval(checkpoint_interval),
        functions=carried_functions(plan, functions_in(planner.catalog)),
        **take_job_settings(given.values),
    )


def defaults_of(sql: str, variables: Mapping[str, str]) -> JobDefaults:
    """What the annotations of a script say of how it wants to be run. Raises the script's first error."""
    return job_defaults(Planner(variables=dict(variables)).parse(sql), sql)


def job_name(file: Path) -> str:
    """The name of a job that was given none: that of its file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).strip(".-") or "job"


def _plan(planner: Planner, planned: list[PlannedStatement], known: frozenset[str]) -> Plan:
    first = [one for one in planned if known & {output.name for output in one.outputs}]
    plan = planner.extend(Plan(), *first) if first else Plan()
    return planner.extend(plan, *(one for one in planned if one not in first))
