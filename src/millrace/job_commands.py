"""Commands for jobs on a Ray cluster. Imports Ray and an engine only when one of them runs."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.arguments import Address, AsJson, Assignments, File, JobName, assignments, read_file
from millrace.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from millrace.cluster.coordination import JobStatus
    from millrace.cluster.jobs import Cluster
    from millrace.cluster.upgrade import Upgrade

FOLLOW_S = 0.5
PAGE_WIDTH = 160
"""Columns of a table that no terminal shows."""
Store = Annotated[str, typer.Option("--store", help="Where checkpoints are kept: file:///…, s3://…")]
KnownStore = Annotated[
    str | None,
    typer.Option("--store", help="Where checkpoints are kept; the cluster's word where it knows the job."),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the end of it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would become of state, and change nothing.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (submit, jobs, status, logs, top, scale, savepoint, stop, checkpoints, resume, upgrade):
        app.command()(command)


def submit(
    file: File,
    store: Store,
    address: Address = "auto",
    job: Annotated[
        str | None, typer.Option("--job", help="The job's name; without it that of @job_name, or the file's.")
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", "-p", help="Copies of the dataflow; without it @num_partitions, or 1."),
    ] = None,
    interval: Annotated[
        float, typer.Option("--checkpoint-interval", help="Seconds between checkpoints.")
    ] = 1.0,
    cpus: Annotated[float, typer.Option("--cpus", help="CPUs set aside for each partition.")] = 1.0,
    set_: Assignments = None,
) -> None:
    """Run a SQL file as a job on a Ray cluster; it goes on when this command has ended."""
    from millrace.submitting import defaults_of, job_name
    from millrace.submitting import submit as submit_job

    settings, variables = assignments(set_)
    text = read_file(file)
    wanted = defaults_of(text, variables)
    name = job or wanted.job_name or job_name(file)
    submit_job(
        text,
        store=store,
        job=name,
        address=address,
        partitions=partitions or wanted.partitions or 1,
        checkpoint_interval=interval,
        variables=variables,
        settings={**wanted.settings, **settings},
        num_cpus=cpus,
    )
    typer.echo(f"job {name} is running; see: millrace status {name}")


def jobs(address: Address = "auto", as_json: AsJson = False) -> None:
    """List the jobs of a Ray cluster."""
    from millrace.job_views import summary_json, summary_lines

    found = _cluster(address).jobs()
    _show(summary_json(found), summary_lines(found), as_json)


def status(
    job: JobName,
    address: Address = "auto",
    as_json: AsJson = False,
    splits: Annotated[bool, typer.Option(help="Where every split stands.")] = True,
) -> None:
    """Show where a job and its partitions stand, and who holds a checkpoint up."""
    from millrace.job_views import status_json, status_lines

    found = _cluster(address).job(job)
    stands = found.status()
    detail = found.splits() if splits else {}
    _show(status_json(stands, detail), status_lines(stands, detail), as_json)


def logs(
    job: JobName,
    address: Address = "auto",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, or Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Show at most so many old lines.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show what the processes of a job have logged."""
    import dataclasses

    from millrace.cluster.jobs import UnknownJob
    from millrace.cluster.logbook import shown

    cluster = _cluster(address)
    found = cluster.job(job).log()[-lines:]
    after = 0
    try:
        while True:
            for line in found:
                after = line.number
                typer.echo(json.dumps(dataclasses.asdict(line)) if as_json else shown(line))
            if not follow or cluster.summary(job).ended is not None:
                return
            time.sleep(FOLLOW_S)
            found = ()
            with contextlib.suppress(Unavailable, UnknownJob):  # an actor is being restarted
                found = cluster.log(job, after)
    except KeyboardInterrupt:
        return


def top(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job; all without.")] = None,
    address: Address = "auto",
    once: Annotated[bool, typer.Option("--once", help="Show the table once and leave.")] = False,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between looks.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """A table of all partitions that keeps itself up to date, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from millrace.job_views import status_json, top_table

    cluster = _cluster(address)
    if as_json:
        _show([status_json(one, {}) for one in _statuses(cluster, job)], [], as_json)
    elif once:
        console = Console()
        Console(width=None if console.is_terminal else PAGE_WIDTH).print(top_table(_statuses(cluster, job)))
    else:
        try:
            with Live(top_table(_statuses(cluster, job)), screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(interval)
                    live.update(top_table(_statuses(cluster, job)), refresh=True)
        except KeyboardInterrupt:
            return


def scale(
    job: JobName,
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", help="Copies of the dataflow there are to be.")
    ],
    address: Address = "auto",
    timeout: Timeout = 120.0,
) -> None:
    """Go on with more or fewer partitions: state and splits move, no row is lost or doubled."""
    found = _cluster(address).job(job).scale(partitions, timeout)
    typer.echo(f"job {job} runs in {found.target} partitions from checkpoint {found.checkpoint} on")


def savepoint(
    job: JobName,
    name: Annotated[str | None, typer.Option("--name", help="What it is called; a date without.")] = None,
    drop: Annotated[str | None, typer.Option("--drop", help="Keep this one no longer instead.")] = None,
    address: Address = "auto",
    timeout: Timeout = 60.0,
) -> None:
    """Take a checkpoint that is kept until it is dropped."""
    found = _cluster(address).job(job)
    if drop is not None:
        if name is not None:
            raise Invalid("--name and --drop do not go together", code="MR1554", hint="give one of them")
        found.drop_savepoint(drop)
        typer.echo(f"savepoint {drop} of job {job} is kept no longer")
        return
    taken = found.savepoint(name, timeout)
    typer.echo(f"savepoint {taken.label} of job {job} is checkpoint {taken.number}")


def stop(
    job: JobName,
    savepoint: Annotated[bool, typer.Option("--savepoint", help="Keep the last checkpoint.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="What the savepoint is called.")] = None,
    address: Address = "auto",
    timeout: Timeout = 60.0,
) -> None:
    """End a job in good order: a last checkpoint is taken and published."""
    from millrace.cluster.jobs import new_label

    label = (name or new_label("stopped")) if savepoint or name is not None else None
    reason = _cluster(address).job(job).stop(timeout, savepoint=label)
    typer.echo(f"job {job} has ended: {reason}" + (f"; savepoint {label} is kept" if label else ""))


def checkpoints(
    job: JobName,
    store: Store,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all that they need, and name what is damaged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what a job can be resumed from, as its store says; no cluster is asked."""
    from millrace.cluster.resuming import kept_in
    from millrace.job_views import kept_json, kept_line
    from millrace.state.store import open_store

    found = kept_in(open_store(store), job, verify=verify)
    _show(
        [{**kept_json(kept), "damaged": wrong} for kept, wrong in found],
        [line for kept, wrong in found for line in (kept_line(kept), *(f"  damaged: {w}" for w in wrong))],
        as_json,
    )
    if any(wrong for _, wrong in found):
        raise typer.Exit(1)


def resume(
    what: Annotated[str, typer.Argument(metavar="SQL_FILE|JOB", help="The job's SQL, or its name alone.")],
    store: KnownStore = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="A savepoint, or a checkpoint's number; the last one without."),
    ] = None,
    job: Annotated[str | None, typer.Option("--job", help="The job's name; the file's without.")] = None,
    address: Address = "auto",
    dry_run: DryRun = False,
    yes: Yes = False,
    set_: Assignments = None,
) -> None:
    """Let a job that has ended or failed go on from a checkpoint, with the same SQL or with other."""
    from millrace.submitting import job_name, spec_after

    cluster = _cluster(address)
    spec = None
    name = job or what
    if what.endswith(".sql") or Path(what).is_file():
        name = job or job_name(Path(what))
        settings, variables = assignments(set_)
        old, _, _ = cluster.running(name, store)
        spec = spec_after(old, read_file(Path(what)), variables, settings)
    found = cluster.examine(name, store, spec=spec, wanted=from_)
    if found is not None and not _agreed(name, found, dry_run=dry_run, yes=yes):
        return
    if dry_run:
        typer.echo("the plan is the same: all state is kept")
        return
    cluster.resume(name, store, spec=spec, wanted=from_)
    typer.echo(f"job {name} goes on; see: millrace status {name}")


def upgrade(
    job: JobName,
    file: File,
    address: Address = "auto",
    dry_run: DryRun = False,
    yes: Yes = False,
    timeout: Timeout = 120.0,
    set_: Assignments = None,
) -> None:
    """Let a running job go on with new SQL; says first what state is kept, dropped and starts empty."""
    from millrace.cluster.jobs import Job
    from millrace.submitting import examine_upgrade

    settings, variables = assignments(set_)
    cluster = _cluster(address)
    new = examine_upgrade(cluster, job, read_file(file), variables=variables, settings=settings)
    if new.upgrade is None:
        typer.echo("the plan is the same: nothing is to be done")
        return
    if _agreed(job, new.upgrade, dry_run=dry_run, yes=yes):
        label = Job(cluster, job).upgrade(new.spec, timeout)
        typer.echo(f"job {job} goes on with the new plan; savepoint {label} has the state from before")


def _agreed(job: str, found: Upgrade, *, dry_run: bool, yes: bool) -> bool:
    for line in found.lines():
        typer.echo(line)
    if dry_run:
        return False
    return yes or typer.confirm(f"Let job {job} go on so?")


def _statuses(cluster: Cluster, job: str | None) -> list[JobStatus]:
    """The status of one job, or of all that answer."""
    if job is not None:
        return [cluster.status(job)]
    found = []
    for summary in cluster.jobs():
        try:
            found.append(cluster.status(summary.job))
        except Unavailable:
            continue
    return found


def _show(plain: Any, lines: list[str], as_json: bool) -> None:
    for line in [json.dumps(plain, indent=2)] if as_json else lines:
        typer.echo(line)


def _cluster(address: str) -> Cluster:
    from millrace.cluster.jobs import Cluster

    return Cluster(address)
