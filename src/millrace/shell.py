"""The interactive shell: statements end with `;`, answers are tables. Knows no engine, only a database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.errors import MillraceError

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.document import Document

    from millrace.database import Database

KEYWORDS = [
    "CREATE",
    "SOURCE",
    "STREAM",
    "TABLE",
    "VIEW",
    "SINK",
    "MATERIALIZED",
    "AS",
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "HAVING",
    "EMIT",
    "CHANGES",
    "FINAL",
    "WATERMARK",
    "FOR",
    "INTERVAL",
    "SECOND",
    "MINUTE",
    "HOUR",
    "DAY",
    "TUMBLE",
    "HOP",
    "SESSION",
    "CUMULATE",
    "WITH",
    "FORMAT",
    "JSON",
    "CSV",
    "PARQUET",
    "INSERT",
    "INTO",
    "VALUES",
    "DROP",
    "SHOW",
    "SOURCES",
    "STREAMS",
    "TABLES",
    "SINKS",
    "FUNCTIONS",
    "DESCRIBE",
    "EXPLAIN",
    "UNION",
    "ALL",
    "DISTINCT",
    "OVER",
    "PARTITION",
    "ORDER",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS",
    "IN",
    "BETWEEN",
    "LIKE",
    "CAST",
    "COUNT",
    "SUM",
    "MIN",
    "MAX",
    "AVG",
    "FILTER",
]
HELP = r"""Statements end with ';'.  Ctrl-D or \q leaves, Ctrl-C drops the statement being typed.
  SHOW TABLES;  DESCRIBE t;  EXPLAIN SELECT …;  SHOW FUNCTIONS LIKE 'date%';
  SUBSCRIBE s;            rows as they come, until Ctrl-C
  \i FILE                 run a file"""


class Shell:
    """Reads statements, runs them, prints answers and errors."""

    def __init__(self, database: Database, variables: dict[str, str]) -> None:
        self._database = database
        self._variables = variables

    def execute(self, text: str) -> bool:
        """Run statements and print the answer; errors are printed, and answer False."""
        try:
            if text.strip().rstrip(";").upper().startswith("SUBSCRIBE"):
                self._follow(text.strip().rstrip(";"))
                return True
            answer = self._database.execute(text, self._variables)
        except MillraceError as error:
            print(f"error: {error}", file=sys.stderr)
            return False
        if answer.columns == ["status"]:
            print(answer.rows()[0]["status"])
        elif answer.columns == ["plan"]:
            print("\n".join(str(row["plan"]) for row in answer))
        else:
            print(answer)
        return True

    def interact(self) -> None:
        """Prompt until the end of input."""
        if not sys.stdin.isatty():
            self.execute(sys.stdin.read())
            return
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory
        from prompt_toolkit.lexers import PygmentsLexer
        from pygments.lexers.sql import SqlLexer

        history = Path.home() / ".millrace_history"
        session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)), completer=self._completer(), lexer=PygmentsLexer(SqlLexer)
        )
        print(r"Millrace. Statements end with ';', \h helps, Ctrl-D leaves.")
        pending = ""
        while True:
            try:
                line = session.prompt("      -> " if pending else "millrace> ")
            except KeyboardInterrupt:
                pending = ""
                continue
            except EOFError:
                return
            if not pending and line.strip().startswith("\\"):
                if line.strip() == "\\q":
                    return
                self._command(line.strip())
                continue
            pending = f"{pending}\n{line}" if pending else line
            if pending.rstrip().endswith(";"):
                self.execute(pending)
                pending = ""

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        if name == "\\i" and argument:
            try:
                text = Path(argument.strip()).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                print(f"error: can not read {argument.strip()}: {error}", file=sys.stderr)
                return
            self.execute(text)
        else:
            print(HELP)

    def _follow(self, text: str) -> None:
        with self._database.subscribe(text) as subscription:
            names = subscription.schema.names
            print("  ".join(names))
            try:
                for batch in subscription:
                    for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        print("  ".join(str(value) for value in row))
            except KeyboardInterrupt:
                print()

    def _completer(self) -> Completer:
        from prompt_toolkit.completion import Completer, Completion

        database = self._database

        class Names(Completer):
            def get_completions(self, document: Document, complete_event: object) -> Iterator[Completion]:
                word = document.get_word_before_cursor()
                if not word:
                    return
                for name in [*database.names(), *KEYWORDS]:
                    if name.lower().startswith(word.lower()):
                        yield Completion(name, start_position=-len(word))

        return Names()
