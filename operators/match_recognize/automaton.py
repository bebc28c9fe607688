"""A row pattern as an automaton whose states are places in the pattern and whose ways on are in order of preference.

State 0 is the place before the pattern; every other state is a place of a variable, entered by a row of that
variable. This is the position automaton of Glushkov, with the order in which a backtracking matcher would try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from millrace.errors import Invalid, Unsupported
from millrace.operators.match_recognize.pattern import (
    Pattern,
    PatternChoice,
    PatternExclusion,
    PatternRepeat,
    PatternSequence,
    PatternVariable,
)

STATES_MAX = 2_000
WAYS_MAX = 100_000
ACCEPT = -1
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Automaton:
    """`ways[state]` are the states to try next, best first; ACCEPT ends the match there.

    `variables[state]` is the place of the state's variable among the names (-1 of state 0); `shown[state]` tells
    whether its row stands outside of exclusions.
    """

    variables: tuple[int, ...]
    shown: tuple[bool, ...]
    ways: tuple[tuple[int, ...], ...]

    def flat(self) -> tuple[Int32s, Int32s]:
        """All ways in one array, and where those of each state begin (one more entry for the end)."""
        begins = np.cumsum([0, *(len(way) for way in self.ways)]).astype(np.int32)
        return np.array([t for way in self.ways for t in way] or [0], np.int32), begins

    def reaches_end(self, start: int, avoided: frozenset[int]) -> bool:
        """Whether a match can go on from a state and end without a further row of the variables `avoided`."""
        seen = {start}
        open_ = [start]
        while open_:
            for target in self.ways[open_.pop()]:
                if target == ACCEPT:
                    return True
                if target not in seen and self.variables[target] not in avoided:
                    seen.add(target)
                    open_.append(target)
        return False


def build_automaton(pattern: Pattern, names: Sequence[str]) -> Automaton:
    """The automaton of a pattern of these variables.

    Raises Unsupported MR1902 for a pattern that is too large and Invalid MR1356 for one that matches no row at all.
    """
    steps = _Steps(names)
    steps.add(pattern, shown=True)
    steps.put("accept", 0, 0, True)
    automaton = steps.automaton()
    if ACCEPT in automaton.ways[0]:
        raise Invalid(
            f"the pattern ({pattern}) matches where there is no row",
            code="MR1356",
            hint="let it need one row at least: write + for *, or {1,n} for {0,n}",
        )
    return automaton


@dataclass(slots=True)
class _Steps:
    """The pattern as a program of a backtracking matcher: (what, first, second, shown)."""

    names: Sequence[str]
    steps: list[tuple[str, int, int, bool]] = field(default_factory=list)

    def put(self, what: str, first: int, second: int, shown: bool) -> int:
        if len(self.steps) >= 4 * STATES_MAX:
            raise Unsupported(
                f"the pattern has more than {STATES_MAX} places when its repetitions are written out",
                code="MR1902",
                hint="make the numbers in {n,m} smaller",
            )
        self.steps.append((what, first, second, shown))
        return len(self.steps) - 1

    def add(self, pattern: Pattern, *, shown: bool) -> None:
        match pattern:
            case PatternVariable():
                self.put("row", self.names.index(pattern.name), 0, shown)
            case PatternSequence():
                for part in pattern.parts:
                    self.add(part, shown=shown)
            case PatternExclusion():
                self.add(pattern.part, shown=False)
            case PatternChoice():
                self._choice(pattern.parts, shown)
            case PatternRepeat():
                self._repeat(pattern, shown)

    def _fork(self, at: int, ahead: int, beyond: int, reluctant: bool) -> None:
        first, second = (beyond, ahead) if reluctant else (ahead, beyond)
        self.steps[at] = ("fork", first, second, True)

    def _choice(self, parts: Sequence[Pattern], shown: bool) -> None:
        ends: list[int] = []
        for part in parts[:-1]:
            fork = self.put("fork", 0, 0, True)
            self.add(part, shown=shown)
            ends.append(self.put("jump", 0, 0, True))
            self._fork(fork, fork + 1, len(self.steps), False)
        self.add(parts[-1], shown=shown)
        for end in ends:
            self.steps[end] = ("jump", len(self.steps), 0, True)

    def _repeat(self, repeat: PatternRepeat, shown: bool) -> None:
        for _ in range(repeat.least):
            self.add(repeat.part, shown=shown)
        if repeat.most is None:
            fork = self.put("fork", 0, 0, True)
            self.add(repeat.part, shown=shown)
            self.put("jump", fork, 0, True)
            self._fork(fork, fork + 1, len(self.steps), repeat.reluctant)
            return
        forks: list[int] = []
        for _ in range(repeat.most - repeat.least):
            forks.append(self.put("fork", 0, 0, True))
            self.add(repeat.part, shown=shown)
        for fork in forks:
            self._fork(fork, fork + 1, len(self.steps), repeat.reluctant)

    def automaton(self) -> Automaton:
        rows = [at for at, step in enumerate(self.steps) if step[0] == "row"]
        if len(rows) > STATES_MAX:
            raise Unsupported(
                f"the pattern has {len(rows)} places when its repetitions are written out, more than {STATES_MAX}",
                code="MR1902",
                hint="make the numbers in {n,m} smaller",
            )
        state = {at: number for number, at in enumerate(rows, 1)}
        ways: list[tuple[int, ...]] = []
        total = 0
        for begin in (0, *(at + 1 for at in rows)):
            ways.append(self._ways(begin, state))
            total += len(ways[-1])
            if total > WAYS_MAX:
                raise Unsupported(
                    f"the pattern has more than {WAYS_MAX} ways from place to place",
                    code="MR1902",
                    hint="use fewer optional parts in a row",
                )
        return Automaton(
            (-1, *(self.steps[at][1] for at in rows)),
            (True, *(self.steps[at][3] for at in rows)),
            tuple(ways),
        )

    def _ways(self, begin: int, state: dict[int, int]) -> tuple[int, ...]:
        """The states reached from a step without a row. A step met again could only fail again."""
        found: list[int] = []
        seen: set[int] = set()
        open_ = [begin]
        while open_:
            at = open_.pop()
            if at in seen:
                continue
            seen.add(at)
            what, first, second, _ = self.steps[at]
            if what == "row":
                found.append(state[at])
            elif what == "accept":
                found.append(ACCEPT)
                break  # whatever is less preferred than the end is never tried
            elif what == "jump":
                open_.append(first)
            else:
                open_ += [second, first]
        return tuple(found)
