"""The command line: run, validate, explain, a shell, and what there is. Imports an engine only when one is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.arguments import Assignments, File, assignments, read_file
from millrace.errors import BadData, Invalid, MillraceError, Position
from millrace.job_commands import register

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
        str | None,
        typer.Option(
            "--job", help="The job's name in the store; without it that of @job_name, or the file's."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, max=65535, help="Serve metrics for Prometheus there."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
) -> None:
    """Run a SQL file to the end of its input, or until Ctrl-C.

    With --store the same command goes on where it was killed, and every row reaches a sink that commits exactly once.
    """
    from millrace.running import run_file
    from millrace.submitting import defaults_of, job_name

    settings, variables = assignments(set_)
    text = read_file(file)
    if store is not None:
        settings = {
            "job": job or defaults_of(text, variables).job_name or job_name(file),
            **settings,
            "checkpoint.store": store,
        }
    raise typer.Exit(run_file(text, settings, variables, quiet=quiet, metrics_port=metrics_port))


@app.command()
def validate(file: File, set_: Assignments = None) -> None:
    """Find every error of a SQL file without running it."""
    from millrace.planner.session import Planner

    settings, variables = assignments(set_)
    _open(settings)
    text = read_file(file)
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

    _, variables = assignments(set_)
    planner = Planner(variables=variables)
    text = read_file(file)
    typer.echo(planner.explain_json(text) if json else planner.explain(text))


@app.command()
def sql(
    file: Annotated[Path | None, typer.Argument(help="A SQL file to run first.")] = None,
    set_: Assignments = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="Run this SQL and leave.")] = None,
) -> None:
    """A shell: statements end with ';', history and completion included."""
    from millrace.shell import Shell

    settings, variables = assignments(set_)
    with _open(settings) as database:
        shell = Shell(database, variables)
        if file is not None:
            shell.execute(read_file(file))
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


register(app)


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


def _complain(error: MillraceError, file: str | None = None) -> None:
    position: Position | None = error.position
    place = f"{file}:{position.line}:{position.column}: " if file and position else ""
    typer.secho(f"{place}error: {error}", fg=typer.colors.RED, err=True)
