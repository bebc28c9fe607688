"""Every error a user can meet, by what the reader must do. Knows nothing of the floors that raise them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """A place in SQL text. `line` and `column` count from 1; `length` is in characters."""

    line: int
    column: int
    length: int = 1


class MillraceError(Exception):
    """The root. `code` is stable (`MR` + four digits), `message` says what is wrong, `hint` what to do.

    Every error pickles, keeps its attributes, and prints as `message [code]` with the hint behind it.
    """

    default_code = "MR0001"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        position: Position | None = None,
        source_text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.position = position
        self.source_text = source_text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))

    def __str__(self) -> str:
        where = f" at {self.position.line}:{self.position.column}" if self.position else ""
        text = f"{self.message}{where} [{self.code}]"
        excerpt = self.excerpt()
        if excerpt:
            text += f"\n{excerpt}"
        if self.hint:
            text += f"\nhint: {self.hint}"
        return text

    def excerpt(self) -> str:
        """The line that is wrong with a caret under it, or '' where there is none to show."""
        if self.position is None or self.source_text is None:
            return ""
        lines = self.source_text.splitlines()
        if not 0 < self.position.line <= len(lines):
            return ""
        line = lines[self.position.line - 1].replace("\t", " ")
        start = self.position.column - 1
        first = max(0, start - 60)
        shown = line[first : first + 120]
        caret = " " * (start - first) + "^" * max(1, min(self.position.length, len(shown) - (start - first)))
        gutter = f"{self.position.line:>5} | "
        return f"{gutter}{shown}\n{' ' * (len(gutter) - 2)}| {caret}"


def _rebuild(kind: type[MillraceError], message: str, attributes: dict[str, object]) -> MillraceError:
    error = kind(message)
    error.__dict__.update(attributes)
    return error


class Invalid(MillraceError):
    """The query, the setting or the call is wrong: mend it."""

    default_code = "MR1000"


class Unsupported(Invalid):
    """The text is understood, and Millrace does not run it (yet): use another form."""

    default_code = "MR1900"


class BadData(MillraceError):
    """Input that does not decode or compute, where the job asked to stop at it."""

    default_code = "MR2000"


class Unavailable(MillraceError):
    """Something outside did not answer: retry."""

    default_code = "MR3000"


class Fenced(MillraceError):
    """Another owner with a higher epoch took over: stop."""

    default_code = "MR4000"


class Corrupt(MillraceError):
    """Stored state does not match its checksum or its schema: restore an older checkpoint."""

    default_code = "MR5000"


class Bug(MillraceError):
    """Millrace broke its own rule: report it."""

    default_code = "MR9000"
