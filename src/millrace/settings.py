"""Settings of a job or database: one frozen record, read from `SET`, `connect` and `--set`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.errors import Invalid, Unsupported

GUARANTEES = ("exactly_once", "at_least_once", "none")
BAD_ROWS = ("skip", "fail")


@dataclass(frozen=True, slots=True)
class Settings:
    """`batch_max_rows` rows are polled at once; `bad_rows` says what a row that does not compute does to the job.

    `state_ttl` is a duration after which joins forget keys that no row touched.
    """

    vnodes: int = 256
    batch_max_rows: int = 65_536
    bad_rows: str = "skip"
    guarantee: str = "none"
    state_ttl: str = "never"

    def __post_init__(self) -> None:
        _check_range("vnodes", self.vnodes, 1, 65_536)
        _check_range("batch.max_rows", self.batch_max_rows, 1, 1 << 24)
        if self.bad_rows not in BAD_ROWS:
            raise Invalid(f"bad_rows can not be {self.bad_rows!r}", code="MR1541", hint="'skip' or 'fail'")
        if self.guarantee not in GUARANTEES:
            raise Invalid(
                f"guarantee can not be {self.guarantee!r}",
                code="MR1541",
                hint=f"one of {', '.join(GUARANTEES)}",
            )
        if self.guarantee != "none":
            raise Unsupported(
                f"guarantee {self.guarantee!r} needs checkpoints, which an embedded database does not take",
                code="MR1931",
                hint="SET guarantee = 'none'",
            )

    def with_values(self, values: Mapping[str, str]) -> Settings:
        """These settings with some replaced; names as in `SET`, e.g. `batch.max_rows`.

        Raises Invalid MR1540 for an unknown name, MR1541 for a value that does not do.
        """
        changes: dict[str, str | int] = {}
        for name, text in values.items():
            wanted = name.strip().lower()
            field = NAMES.get(wanted, wanted if wanted in NAMES.values() else None)
            if field is None:
                close = difflib.get_close_matches(name.lower(), list(NAMES), n=1)
                hint = f"did you mean {close[0]}?" if close else f"settings are {', '.join(NAMES)}"
                raise Invalid(f"there is no setting {name!r}", code="MR1540", hint=hint)
            if isinstance(getattr(self, field), int):
                try:
                    changes[field] = int(text.replace("_", ""))
                except ValueError:
                    raise Invalid(f"{name} takes a whole number, not {text!r}", code="MR1541") from None
            else:
                changes[field] = text.strip().lower()
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of every setting."""
        return [(name, str(getattr(self, field))) for name, field in NAMES.items()]


NAMES = {
    "vnodes": "vnodes",
    "batch.max_rows": "batch_max_rows",
    "bad_rows": "bad_rows",
    "guarantee": "guarantee",
    "state.ttl": "state_ttl",
}


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Invalid(f"{name} must be from {low:,} to {high:,}, not {value:,}", code="MR1541")
