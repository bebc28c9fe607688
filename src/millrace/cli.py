"""The command line: run, validate, explain, a shell, and what there is. Imports an engine only when one is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.errors import BadData, Invalid, MillraceError, Position

if TYPE_CHECKING:
    from millrace.database import Database

app = typer.Typer(
    name="millrace",
    help="Streaming SQL, exactly once: the same file runs here and on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

EXIT_ERROR = 1
"""Something failed while running."""
EXIT_INVALID = 2
"""The SQL, a setting or an option is wrong; nothing ran."""
EXIT_BAD_ROWS = 3
"""The job was told to stop at bad rows, and met one."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; what was read until then has been published."""

File = Annotated[Path, typer.Argument(help="A file of SQL; - reads standard input.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="K=V", help="A setting (batch.max_rows=8192) or a value for ${K}; repeatable."
    ),
]


@app.command()
def run(
    file: File,
    set_: Assignments = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Keep checkpoints there (file:///…, s3://…) and go on from the last one."
        ),
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", help="The job's name in the store; the file's without.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
) -> None:
    """Run a SQL file to the end of its input, or until Ctrl-C.

    With --store the same command goes on where it was killed, and every row reaches a sink that commits exactly once.
    """
    from millrace.running import run_file
    from millrace.submitting import job_name

    settings, variables = _assignments(set_)
    if store is not None:
        settings = {"job": job or job_name(file), **settings, "checkpoint.store": store}
    raise typer.Exit(run_file(_read(file), settings, variables, quiet=quiet))


@app.command()
def validate(file: File, set_: Assignments = None) -> None:
    """Find every error of a SQL file without running it."""
    from millrace.planner.session import Planner

    settings, variables = _assignments(set_)
    _open(settings)
    text = _read(file)
    errors = Planner(variables=variables).validate(text)
    for error in errors:
        _complain(error, str(file))
    if errors:
        typer.echo(f"{len(errors)} error{'s' if len(errors) > 1 else ''}", err=True)
        raise typer.Exit(EXIT_INVALID)
    typer.echo(f"{file}: no errors")


@app.command()
def explain(
    file: File,
    set_: Assignments = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a tree.")] = False,
) -> None:
    """Show the plan of a SQL file and what was decided: emission, changelog, keys, state, exchange."""
    from millrace.planner.session import Planner

    _, variables = _assignments(set_)
    planner = Planner(variables=variables)
    text = _read(file)
    typer.echo(planner.explain_json(text) if json else planner.explain(text))


Address = Annotated[
    str, typer.Option("--address", help="The Ray cluster: auto, host:port or ray://host:10001.")
]


@app.command()
def submit(
    file: File,
    store: Annotated[str, typer.Option("--store", help="Where checkpoints are kept: file:///…, s3://…")],
    address: Address = "auto",
    job: Annotated[str | None, typer.Option("--job", help="The job's name; the file's without.")] = None,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="Copies of the dataflow.")] = 1,
    interval: Annotated[
        float, typer.Option("--checkpoint-interval", help="Seconds between checkpoints.")
    ] = 1.0,
    cpus: Annotated[float, typer.Option("--cpus", help="CPUs set aside for each partition.")] = 1.0,
    set_: Assignments = None,
) -> None:
    """Run a SQL file as a job on a Ray cluster; it goes on when this command has ended."""
    from millrace.submitting import job_name
    from millrace.submitting import submit as submit_job

    settings, variables = _assignments(set_)
    name = job or job_name(file)
    submit_job(
        _read(file),
        store=store,
        job=name,
        address=address,
        partitions=partitions,
        checkpoint_interval=interval,
        variables=variables,
        settings=settings,
        num_cpus=cpus,
    )
    typer.echo(f"job {name} is running; see: millrace status {name}")


@app.command()
def jobs(address: Address = "auto") -> None:
    """List the jobs of a Ray cluster."""
    from millrace.submitting import list_jobs

    for line in list_jobs(address):
        typer.echo(line)


@app.command()
def status(job: Annotated[str, typer.Argument(help="The job's name.")], address: Address = "auto") -> None:
    """Show where a job and its partitions stand."""
    from millrace.submitting import show_status

    for line in show_status(address, job):
        typer.echo(line)


@app.command()
def stop(
    job: Annotated[str, typer.Argument(help="The job's name.")],
    address: Address = "auto",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the end.")] = 60.0,
) -> None:
    """End a job in good order: a last checkpoint is taken and published."""
    from millrace.submitting import stop_job

    reason = stop_job(address, job, timeout)
    if reason is None:
        typer.echo(f"job {job} was told to stop and has not ended yet", err=True)
        raise typer.Exit(EXIT_ERROR)
    typer.echo(f"job {job} has ended: {reason}")


@app.command()
def scale(
    job: Annotated[str, typer.Argument(help="The job's name.")],
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", help="Copies of the dataflow there are to be.")
    ],
    address: Address = "auto",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait until they run.")] = 120.0,
) -> None:
    """Go on with more or fewer partitions: state and splits move, no row is lost or doubled."""
    from millrace.cluster.jobs import Cluster

    found = Cluster(address).job(job).scale(partitions, timeout)
    typer.echo(f"job {job} runs in {found.target} partitions from checkpoint {found.checkpoint} on")


@app.command()
def sql(
    file: Annotated[Path | None, typer.Argument(help="A SQL file to run first.")] = None,
    set_: Assignments = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="Run this SQL and leave.")] = None,
) -> None:
    """A shell: statements end with ';', history and completion included."""
    from millrace.shell import Shell

    settings, variables = _assignments(set_)
    with _open(settings) as database:
        shell = Shell(database, variables)
        if file is not None:
            shell.execute(_read(file))
        if command is not None:
            shell.execute(command)
        else:
            shell.interact()


@app.command()
def functions(
    pattern: Annotated[str, typer.Argument(help="Part of a name or description.")] = "",
) -> None:
    """List the functions that SQL may call."""
    from millrace.catalog_views import function_rows

    found = [row for row in function_rows() if pattern.lower() in " ".join(row).lower()]
    width = max((len(row[0]) for row in found), default=0)
    for signature, kind, description in sorted(found):
        typer.echo(f"{signature:<{min(width, 60)}}  {kind:<9}  {description}".rstrip())
    if not found:
        typer.echo(f"no function matches {pattern!r}", err=True)
        raise typer.Exit(EXIT_INVALID)


@app.command()
def version() -> None:
    """Print the version."""
    from millrace import __version__

    typer.echo(__version__)


def main() -> None:
    """The console script: coded errors become one message and an exit code."""
    try:
        app(prog_name="millrace", standalone_mode=True)
    except MillraceError as error:
        _complain(error)
        sys.exit(exit_code(error))


def exit_code(error: MillraceError) -> int:
    """The exit code that tells a script what kind of error it was."""
    if isinstance(error, BadData):
        return EXIT_BAD_ROWS
    return EXIT_INVALID if isinstance(error, Invalid) else EXIT_ERROR


def _open(settings: dict[str, str]) -> Database:
    from millrace.database import Database
    from millrace.settings import Settings

    return Database(Settings().with_values(settings))


def _read(file: Path) -> str:
    """The text of a script; like Python's own scripts, it finds the modules that lie beside it."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except OSError as error:
        raise Invalid(
            f"can not read {file}: {error.strerror}", code="MR1550", hint="give the path of a SQL file"
        ) from None
    except UnicodeDecodeError as error:
        raise Invalid(
            f"{file} is not UTF-8: byte {error.start}", code="MR1551", hint="save the file as UTF-8"
        ) from None
    sys.path.insert(0, str(file.absolute().parent))
    return text


def _assignments(texts: list[str] | None) -> tuple[dict[str, str], dict[str, str]]:
    """`--set` values as settings and as variables: a name with a dot or of a setting is a setting."""
    from millrace.settings import ELSEWHERE, NAMES

    settings: dict[str, str] = {}
    variables: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Invalid(f"--set takes name=value, not {text!r}", code="MR1552")
        (settings if name in NAMES or name in ELSEWHERE or "." in name else variables)[name] = value
    return settings, variables


def _complain(error: MillraceError, file: str | None = None) -> None:
    position: Position | None = error.position
    place = f"{file}:{position.line}:{position.column}: " if file and position else ""
    typer.secho(f"{place}error: {error}", fg=typer.colors.RED, err=True)
