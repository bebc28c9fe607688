"""What the options `fields.<name>.<parameter>` of `datagen` say. Generates nothing."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.options import parse_duration

PARAMETERS = {
    "kind": "random, sequence, choice, uuid, constant or time",
    "min": "the least value",
    "max": "the greatest value",
    "length": "characters of text, bytes, or items of an array",
    "values": "what to choose from, separated by commas",
    "value": "the value of a constant",
    "prefix": "text before a number",
    "null_rate": "the share of NULLs, 0 to 1",
    "start": "the first number of a sequence, or the first time",
    "end": "the last number of a sequence, after which the rows end",
    "step": "how far a sequence or the time advances a row",
    "max_delay": "how far times may be behind, e.g. 5s",
    "distribution": "uniform, zipf or normal",
    "exponent": "of zipf, 1 by default",
    "mean": "of normal",
    "stddev": "of normal",
}
KINDS = ("random", "sequence", "choice", "uuid", "constant", "time")
DISTRIBUTIONS = ("uniform", "zipf", "normal")
_ALIASES = {"null-rate": "null_rate", "std": "stddev", "std_dev": "stddev", "max-delay": "max_delay"}


class Rule:
    """The parameters of one column, read with their types. `finish` refuses those that nobody asked for."""

    def __init__(self, column: str, parameters: Mapping[str, str]) -> None:
        self.column = column
        self._given: dict[str, str] = {}
        self._read: set[str] = set()
        for name, text in parameters.items():
            known = _ALIASES.get(name.lower(), name.lower())
            if known not in PARAMETERS:
                close = difflib.get_close_matches(known, PARAMETERS, n=1)
                raise Invalid(
                    f"datagen has no parameter {name!r} for column {column!r}",
                    code="MR1451",
                    hint=f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(PARAMETERS)}",
                )
            self._given[known] = text

    def has(self, name: str) -> bool:
        """Whether the user set it."""
        return name in self._given

    def text(self, name: str, default: str = "") -> str:
        """A parameter as it was written."""
        self._read.add(name)
        return self._given.get(name, default)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """A parameter that is one of `choices`."""
        text = self.text(name, default).strip().lower()
        if text not in choices:
            raise self.wrong(name, f"expected one of {', '.join(choices)}")
        return text

    def integer(self, name: str, default: int, low: int = -(2**63), high: int = 2**64 - 1) -> int:
        """A whole number from `low` to `high`."""
        text = self.text(name, str(default))
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise self.wrong(name, "expected a whole number") from None
        if not low <= value <= high:
            raise self.wrong(name, f"expected {low} to {high}")
        return value

    def number(self, name: str, default: float, low: float = -1.8e308, high: float = 1.8e308) -> float:
        """A number from `low` to `high`."""
        text = self.text(name, repr(default))
        try:
            value = float(text)
        except ValueError:
            raise self.wrong(name, "expected a number") from None
        if not low <= value <= high:
            raise self.wrong(name, f"expected {low:g} to {high:g}")
        return value

    def scaled(self, name: str, default: int, scale: int, limit: int) -> int:
        """An exact decimal as an integer of 10**-scale, below `limit` either way."""
        if not self.has(name):
            return default
        try:
            value = int(Decimal(self.text(name)).scaleb(scale).to_integral_exact())
        except (InvalidOperation, ValueError, OverflowError):
            raise self.wrong(name, "expected a decimal number") from None
        if abs(value) >= limit:
            raise self.wrong(name, "it has too many digits")
        return value

    def duration(self, name: str, default_us: int) -> int:
        """A duration in µs."""
        if not self.has(name):
            return default_us
        try:
            return parse_duration(self.text(name))
        except ValueError as error:
            raise self.wrong(name, str(error)) from None

    def instant(self, name: str, default: str) -> int:
        """An ISO time in µs since the epoch; UTC where it names no zone."""
        try:
            time = datetime.datetime.fromisoformat(self.text(name, default).strip())
        except ValueError:
            raise self.wrong(name, "expected a time such as 2024-01-31 12:00:00") from None
        zone = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
        return (zone - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
            microseconds=1
        )

    def wrong(self, name: str, reason: str) -> Invalid:
        """The error for a value that does not do."""
        return Invalid(
            f"parameter {name!r} of column {self.column!r} can not be {self._given.get(name, '')!r}: {reason}",
            code="MR1452",
            hint=PARAMETERS[name],
        )

    def finish(self, kind: str, type_: pa.DataType) -> None:
        """All was asked for that a column of this kind and type takes; refuse the rest."""
        rest = sorted(set(self._given) - self._read)
        if rest:
            raise Invalid(
                f"parameter {rest[0]!r} says nothing about column {self.column!r}, {kind} values of type {type_}",
                code="MR1453",
                hint=f"it takes {', '.join(sorted(self._read))}",
            )
