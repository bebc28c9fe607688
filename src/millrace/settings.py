"""Settings of a job or database: one frozen record, read from `SET`, `connect` and `--set`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millrace.errors import Invalid, Unsupported

GUARANTEES = ("exactly_once", "at_least_once", "none")
BAD_ROWS = ("skip", "fail")


@dataclass(frozen=True, slots=True)
class Settings:
    """`batch_max_rows` rows are polled at once; `bad_rows` says what a row that does not compute does to the job.

    It is skip, fail, or the table that takes bad records of the sources which do not say.

    `state_ttl` is a duration after which joins forget keys that no row touched. With `checkpoint_store` (file:///…,
    s3://…) the database outlives its process: `job` is its name there, `state_dir` the folder of what is pushed.
    """

    vnodes: int = 256
    batch_max_rows: int = 65_536
    bad_rows: str = "skip"
    guarantee: str = "none"
    state_ttl: str = "never"
    checkpoint_store: str = ""
    checkpoint_interval: str = "1s"
    state_dir: str = ""
    job: str = "database"

    def __post_init__(self) -> None:
        _check_range("vnodes", self.vnodes, 1, 65_536)
        _check_range("batch.max_rows", self.batch_max_rows, 1, 1 << 24)
        if not self.bad_rows.replace(".", "_").isidentifier():
            raise Invalid(
                f"bad_rows can not be {self.bad_rows!r}",
                code="MR1541",
                hint="'skip', 'fail' or the name of a table that takes them",
            )
        if self.guarantee not in GUARANTEES:
            raise Invalid(
                f"guarantee can not be {self.guarantee!r}",
                code="MR1541",
                hint=f"one of {', '.join(GUARANTEES)}",
            )
        if self.guarantee != "none" and not self.checkpoint_store:
            raise Invalid(
                f"guarantee {self.guarantee!r} needs a place for checkpoints",
                code="MR1560",
                hint="give one: connect(checkpoint_store='file:///…'), or --set checkpoint.store=file:///…",
            )
        if not self.job or not all(c.isalnum() or c in "-_." for c in self.job) or self.job[0] == ".":
            raise Invalid(
                f"{self.job!r} can not name a job", code="MR1386", hint="letters, digits, '-', '_' and '.'"
            )

    def with_values(self, values: Mapping[str, str]) -> Settings:
        """These settings with some replaced; names as in `SET`, e.g. `batch.max_rows`.

        Raises Invalid MR1540 for an unknown name, MR1541 for a value that does not do; Unsupported MR1544 for a name
        that belongs elsewhere.
        """
        changes: dict[str, str | int] = {}
        for name, text in values.items():
            field = NAMES[known_name(name)]
            if isinstance(getattr(self, field), int):
                try:
                    changes[field] = int(text.replace("_", ""))
                except ValueError:
                    raise Invalid(f"{name} takes a whole number, not {text!r}", code="MR1541") from None
            else:
                kept = field in AS_WRITTEN and text.strip().lower() not in BAD_ROWS
                changes[field] = text.strip() if kept else text.strip().lower()
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def changed(self, name: str | None, value: str | None) -> Settings:
        """What SET makes of them, or, with value None, RESET of one (name None: of all that may change).

        Raises Invalid MR1540, MR1541, MR1542; Unsupported MR1544.
        """
        plain = dict(Settings().rows())
        if name is None:
            return self.with_values({n: plain[n] for n in NAMES if n not in FROM_THE_START})
        wanted = known_name(name)
        changed = self.with_values({wanted: plain[wanted] if value is None else value})
        self.check_change(changed)
        return changed

    def check_change(self, changed: Settings) -> None:
        """Raises Invalid MR1542 where `changed` differs in what a database is opened with."""
        for name in FROM_THE_START:
            if getattr(self, NAMES[name]) != getattr(changed, NAMES[name]):
                raise Invalid(
                    f"{name} can not be set while the database is open",
                    code="MR1542",
                    hint=f"connect({NAMES[name]}=…), or --set {name}=…",
                )

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of every setting."""
        return [(name, str(getattr(self, field))) for name, field in NAMES.items()]


NAMES = {
    "vnodes": "vnodes",
    "batch.max_rows": "batch_max_rows",
    "bad_rows": "bad_rows",
    "guarantee": "guarantee",
    "state.ttl": "state_ttl",
    "checkpoint.store": "checkpoint_store",
    "checkpoint.interval": "checkpoint_interval",
    "state.dir": "state_dir",
    "job": "job",
}
AS_WRITTEN = ("checkpoint_store", "state_dir", "job", "bad_rows")
FROM_THE_START = ("checkpoint.store", "checkpoint.interval", "state.dir", "job", "vnodes")
"""Settings that say how a database is opened, so that no statement can change them later."""


NO_DELAY = (
    "no row waits for others to fill a batch: one has what there is when it is polled, at most batch.max_rows"
)
ELSEWHERE = {
    "partitions": "a job on a cluster has them: millrace submit --partitions 4, or SET in what is submitted",
    "batch.max_delay": NO_DELAY,
}
"""Settings of jobs that an embedded database does not have, and what to know instead."""


def known_name(name: str, more: Sequence[str] = ()) -> str:
    """The name as in `NAMES` or `more`. Raises Invalid MR1540; Unsupported MR1544 where it belongs elsewhere."""
    wanted = name.strip().lower()
    found = next((n for n in (*NAMES, *more) if wanted in (n, n.replace(".", "_"))), None)
    if found is not None:
        return found
    if (dotted := wanted.replace("_", ".", 1)) in ELSEWHERE or (dotted := wanted) in ELSEWHERE:
        raise Unsupported(
            f"{dotted} is not a setting of a database in this process", code="MR1544", hint=ELSEWHERE[dotted]
        )
    known = [*NAMES, *more]
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"settings are {', '.join(known)}"
    raise Invalid(f"there is no setting {name!r}", code="MR1540", hint=hint)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Invalid(f"{name} must be from {low:,} to {high:,}, not {value:,}", code="MR1541")
