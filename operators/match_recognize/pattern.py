"""A row pattern as a tree: what stands in PATTERN (…). Matches nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from millrace.operators.spec import serialisable


@serialisable
@dataclass(frozen=True, slots=True)
class PatternVariable:
    """One row that meets the variable's condition."""

    name: str

    def __str__(self) -> str:
        return self.name


@serialisable
@dataclass(frozen=True, slots=True)
class PatternSequence:
    """Parts one behind the other."""

    parts: tuple[Pattern, ...]

    def __str__(self) -> str:
        return " ".join(f"({part})" if isinstance(part, PatternChoice) else str(part) for part in self.parts)


@serialisable
@dataclass(frozen=True, slots=True)
class PatternChoice:
    """One of the parts; the first that leads to a match is preferred."""

    parts: tuple[Pattern, ...]

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.parts)


@serialisable
@dataclass(frozen=True, slots=True)
class PatternRepeat:
    """`part` from `least` to `most` times (None: any number); as often as can be, or (`reluctant`) as seldom."""

    part: Pattern
    least: int
    most: int | None
    reluctant: bool = False

    def __str__(self) -> str:
        inner = str(self.part)
        if isinstance(self.part, PatternSequence | PatternChoice | PatternRepeat):
            inner = f"({inner})"
        marks = {(0, None): "*", (1, None): "+", (0, 1): "?"}
        mark = marks.get((self.least, self.most))
        if mark is None and self.least == self.most:
            mark = f"{{{self.least}}}"
        elif mark is None:
            mark = f"{{{self.least},{'' if self.most is None else self.most}}}"
        return f"{inner}{mark}{'?' if self.reluctant else ''}"


@serialisable
@dataclass(frozen=True, slots=True)
class PatternExclusion:
    """Rows that belong to the match, but are not shown among ALL ROWS PER MATCH."""

    part: Pattern

    def __str__(self) -> str:
        return f"{{- {self.part} -}}"


Pattern = PatternVariable | PatternSequence | PatternChoice | PatternRepeat | PatternExclusion


def variables_of(pattern: Pattern) -> Iterator[str]:
    """The names of its variables in order, again for every place they stand at."""
    match pattern:
        case PatternVariable():
            yield pattern.name
        case PatternSequence() | PatternChoice():
            for part in pattern.parts:
                yield from variables_of(part)
        case PatternRepeat() | PatternExclusion():
            yield from variables_of(pattern.part)
