"""What SET and --set say of a job that is submitted: each setting heeded, or refused with where it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millrace.errors import Invalid, Unsupported
from millrace.job_settings import is_job_setting
from millrace.operators.side import DeadLetters
from millrace.planner.dialect.durations import parse_duration
from millrace.planner.plan import Plan
from millrace.planner.session import Planner
from millrace.settings import BAD_ROWS, GUARANTEES, NO_DELAY, Settings, known_name

OF_THE_COMMAND = {
    "checkpoint.store": "millrace submit --store file:///…",
    "job": "millrace submit --job orders",
    "state.dir": "what is pushed is kept by databases in one process; a job reads what can be read again",
    "batch.max_delay": NO_DELAY,
}
"""Settings that a script which is submitted can not have, and what to do instead."""
PARTITIONS, INTERVAL, GUARANTEE = "partitions", "checkpoint.interval", "guarantee"


@dataclass(slots=True)
class SubmittedSettings:
    """The settings in force while a script is planned; those that concern planning are handed on to `planner`."""

    planner: Planner
    values: dict[str, str] = field(default_factory=dict)
    """By their names, as in SET."""

    def take(self, name: str | None, value: str | None) -> None:
        """Heed one SET; value None: RESET, of all where `name` is None.

        Raises Invalid MR1540, MR1541; Unsupported MR1544 for what belongs elsewhere.
        """
        if name is None:
            for one in list(self.values):
                self.take(one, None)
            return
        known = name.lower() if is_job_setting(name) else known_name(name, (PARTITIONS, *OF_THE_COMMAND))
        if known in OF_THE_COMMAND:
            raise Unsupported(
                f"{known} can not be set in what is submitted", code="MR1544", hint=OF_THE_COMMAND[known]
            )
        self.values.pop(known, None)
        if value is not None:
            self.values[known] = value
        self.known()
        self.planner.set(known, value)

    def take_all(self, values: Mapping[str, str]) -> None:
        """The same for several."""
        for name, value in values.items():
            self.take(name, value)

    def known(self) -> Settings:
        """Those that a database has too."""
        apart = (PARTITIONS, INTERVAL, GUARANTEE)
        own = {n: v for n, v in self.values.items() if n not in apart and not is_job_setting(n)}
        return Settings().with_values(own)

    def guarantee(self) -> str:
        """The guarantee. Raises Invalid MR1541."""
        wanted = self.values.get(GUARANTEE, "exactly_once").strip().lower()
        if wanted not in GUARANTEES:
            raise Invalid(
                f"guarantee can not be {wanted!r}", code="MR1541", hint=f"one of {', '.join(GUARANTEES)}"
            )
        return wanted

    def partitions(self, default: int) -> int:
        """The number of partitions. Raises Invalid MR1541."""
        text = self.values.get(PARTITIONS)
        if text is None:
            return default
        if not text.strip().isdecimal():
            raise Invalid(
                f"partitions takes a whole number, not {text!r}", code="MR1541", hint="SET partitions = 4"
            )
        return int(text)

    def interval(self, default: float) -> float:
        """Seconds between checkpoints. Raises Invalid MR1030, MR1553."""
        text = self.values.get(INTERVAL)
        seconds = default if text is None else parse_duration(text) / 1e6
        if seconds <= 0:
            raise Invalid(
                f"a checkpoint can not be taken every {seconds} s",
                code="MR1553",
                hint="give seconds above zero",
            )
        return seconds

    def check_bad_rows(self, plan: Plan) -> None:
        """Raises Unsupported MR1394 where bad records would go to a table that nothing in the job reads."""
        table = self.known().bad_rows
        if table in BAD_ROWS or any(isinstance(node.spec, DeadLetters) for node in plan.nodes):
            return
        raise Unsupported(
            f"nothing reads the table {table}, to which bad_rows sends bad records",
            code="MR1394",
            hint=f"INSERT INTO a sink SELECT * FROM {table}, or SET bad_rows = 'skip'",
        )
