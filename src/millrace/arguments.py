"""Arguments that several commands take: SQL files, settings and values, a cluster. Runs nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from millrace.errors import Invalid

File = Annotated[Path, typer.Argument(help="A file of SQL; - reads standard input.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="K=V", help="A setting (batch.max_rows=8192) or a value for ${K}; repeatable."
    ),
]
Address = Annotated[
    str, typer.Option("--address", help="The Ray cluster: auto, host:port or ray://host:10001.")
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]


def read_file(file: Path) -> str:
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


def assignments(texts: list[str] | None) -> tuple[dict[str, str], dict[str, str]]:
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
