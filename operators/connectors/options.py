"""Options of connectors: declared once, read strictly. Knows no particular connector."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from millrace.errors import Invalid


class Kind(enum.Enum):
    """How the text of an option is read."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "true|false"
    DURATION = "duration"
    """Text such as `250ms`, `10s`, `5 minutes`; in µs."""
    SIZE = "size"
    """Text such as `64MB` or `1GiB`; in bytes."""
    CHARACTER = "one character"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. A name that ends in `.*` stands for all names with that prefix (kept as text).

    `default` is text as the user would write it; None means not set. `choices` are compared in lower case.
    """

    name: str
    doc: str
    kind: Kind = Kind.TEXT
    default: str | None = None
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    required: bool = False


_DURATION_US = {
    "us": 1,
    "microsecond": 1,
    "ms": 1_000,
    "millisecond": 1_000,
    "s": 1_000_000,
    "sec": 1_000_000,
    "second": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "minute": 60_000_000,
    "h": 3_600_000_000,
    "hour": 3_600_000_000,
    "d": 86_400_000_000,
    "day": 86_400_000_000,
}
_SIZE_BYTES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "kib": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "mib": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
    "gib": 1 << 30,
    "t": 1 << 40,
    "tb": 1 << 40,
    "tib": 1 << 40,
}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_CHARACTERS = {
    "\\t": "\t",
    "tab": "\t",
    "\\n": "\n",
    "space": " ",
    "comma": ",",
    "pipe": "|",
    "semicolon": ";",
}
_ADDRESSING = frozenset({"connector", "type"})


def parse_duration(text: str) -> int:
    """Microseconds of `250ms`, `10s`, `5 minutes`; a bare number is milliseconds. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("expected a duration such as 250ms, 10s or 5 minutes")
    unit = match[2].lower() or "ms"
    scale = _DURATION_US.get(unit) or _DURATION_US.get(unit.removesuffix("s"))
    if scale is None:
        raise ValueError(f"unknown unit {match[2]!r}; use us, ms, s, m, h or d")
    return round(float(match[1]) * scale)


def parse_size(text: str) -> int:
    """Bytes of `64MB`, `1GiB` or a bare number; multiples of 1,024. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    scale = None if match is None else _SIZE_BYTES.get(match[2].lower())
    if match is None or scale is None:
        raise ValueError("expected a size such as 500KB, 64MB or 1GB")
    return round(float(match[1]) * scale)


def _parse(option: Option, text: str) -> str | int | float | bool:
    match option.kind:
        case Kind.TEXT:
            if option.choices and text.strip().lower() not in option.choices:
                raise ValueError(f"expected one of {', '.join(option.choices)}")
            return text.strip().lower() if option.choices else text
        case Kind.INTEGER:
            return int(text.replace("_", ""))
        case Kind.NUMBER:
            return float(text.replace("_", ""))
        case Kind.FLAG:
            lowered = text.strip().lower()
            if lowered in ("true", "yes", "on", "1"):
                return True
            if lowered in ("false", "no", "off", "0"):
                return False
            raise ValueError("expected true or false")
        case Kind.DURATION:
            return parse_duration(text)
        case Kind.SIZE:
            return parse_size(text)
        case Kind.CHARACTER:
            character = _CHARACTERS.get(text.lower(), text)
            if len(character) > 1:
                raise ValueError("expected one character")
            return character


class Options:
    """The values of a connector's options, by canonical name; what is not set and has no default is None."""

    def __init__(self, values: Mapping[str, str | int | float | bool], given: frozenset[str]) -> None:
        self._values = dict(values)
        self.given = given
        """Canonical names of what the user set."""

    def text(self, name: str) -> str | None:
        """A text option, or None."""
        value = self._values.get(name)
        assert value is None or isinstance(value, str), f"{name} is no text"
        return value

    def required(self, name: str) -> str:
        """A text option that is declared required or has a default."""
        value = self.text(name)
        assert value is not None, f"{name} is neither required nor has it a default"
        return value

    def integer(self, name: str) -> int | None:
        """An INTEGER, DURATION (µs) or SIZE (bytes) option, or None."""
        value = self._values.get(name)
        assert value is None or (isinstance(value, int) and not isinstance(value, bool)), (
            f"{name} is no integer"
        )
        return value

    def number(self, name: str) -> float | None:
        """A NUMBER option, or None."""
        value = self._values.get(name)
        return None if value is None else float(value)

    def flag(self, name: str) -> bool:
        """A FLAG option; False where not set."""
        return bool(self._values.get(name, False))

    def prefixed(self, prefix: str) -> dict[str, str]:
        """What a `prefix.*` option took in: the rest of the name to the text."""
        start = f"{prefix}."
        return {k.removeprefix(start): str(v) for k, v in self._values.items() if k.startswith(start)}


def read_options(connector: str, declared: Iterable[Option], given: Mapping[str, str]) -> Options:
    """The typed values of `given`; names are case-insensitive.

    Raises Invalid: MR1401 unknown option, MR1402 bad value, MR1403 missing option, MR1404 set twice.
    """
    options = list(declared)
    exact = {n.lower(): o for o in options for n in (o.name, *o.aliases) if not n.endswith(".*")}
    prefixes = {o.name[:-1].lower(): o for o in options if o.name.endswith(".*")}
    values: dict[str, str | int | float | bool] = {}
    source: dict[str, str] = {}
    for name, text in given.items():
        lowered = name.lower()
        if lowered in _ADDRESSING and lowered not in exact:
            continue
        option = exact.get(lowered)
        prefix = None if option else next((p for p in prefixes if lowered.startswith(p)), None)
        if option is None and prefix is None:
            raise _unknown(connector, name, list(exact))
        canonical = option.name if option else prefixes[prefix or ""].name[:-1] + name[len(prefix or "") :]
        if canonical in source:
            raise Invalid(
                f"connector '{connector}' is given '{canonical}' twice, as '{source[canonical]}' and '{name}'",
                code="MR1404",
                hint="keep one of them",
            )
        source[canonical] = name
        if option is None:
            values[canonical] = text
            continue
        try:
            values[canonical] = _parse(option, str(text))
        except ValueError as error:
            raise Invalid(
                f"option '{name}' of connector '{connector}' can not be '{text}': {error}",
                code="MR1402",
                hint=option.doc,
            ) from error
    for option in options:
        if option.name in values:
            continue
        if option.required:
            raise Invalid(
                f"connector '{connector}' needs option '{option.name}'", code="MR1403", hint=option.doc
            )
        if option.default is not None:
            values[option.name] = _parse(option, option.default)
    return Options(values, frozenset(source))


def _unknown(connector: str, name: str, known: list[str]) -> Invalid:
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'?" if close else f"it takes {', '.join(sorted(known))}"
    return Invalid(f"connector '{connector}' has no option '{name}'", code="MR1401", hint=hint)
