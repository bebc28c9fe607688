"""Generated columns by Arrow type: each is a function from row numbers to an array. Knows no clock and no source."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid, Unsupported
from millrace.operators.connectors import randomness
from millrace.operators.connectors.datagen_rules import DISTRIBUTIONS, KINDS, Rule
from millrace.operators.connectors.randomness import Int64Array

Column = Callable[[Int64Array], pa.Array]
"""Row numbers → the column's values in those rows."""
Numbers = Callable[[Int64Array], Int64Array]

DEFAULT_START = "2024-01-01 00:00:00"
_HOUR_US = 3_600_000_000
_DAY_US = 86_400_000_000
_UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def column(
    field: pa.Field, parameters: Mapping[str, str], seed: int, step_us: int
) -> tuple[Column, int | None]:
    """The generator of a column, and after how many rows it ends (None: never).

    `step_us` is what times advance by in a row unless told otherwise. Raises Invalid MR1451–MR1453 for
    parameters that are unknown, wrong or without meaning here, Unsupported MR1961 for a type without a rule.
    """
    type_ = field.type
    if pa.types.is_struct(type_):
        return _struct(field, parameters, seed, step_us), None
    rule = Rule(field.name, parameters)
    key = randomness.stream(seed, field.name)
    default = "choice" if rule.has("values") else "constant" if rule.has("value") else "random"
    if pa.types.is_timestamp(type_) and default == "random" and not rule.has("min") and not rule.has("max"):
        default = "time"
    kind = rule.choice("kind", KINDS, default)
    rows = None
    if kind == "sequence":
        made, rows = _sequence(rule, field)
    elif kind == "choice":
        made = _choice(rule, type_, key)
    elif kind == "constant":
        made = _constant(rule, type_)
    elif kind == "uuid":
        made = _uuid(rule, type_, key)
    elif kind == "time":
        made = _time(rule, type_, key, step_us)
    else:
        made = _random(rule, field, key, seed)
    null_rate = rule.number("null_rate", 0.0, 0.0, 1.0)
    rule.finish(kind, type_)
    return (_with_nulls(made, null_rate, key ^ 0xA0761D6478BD642F) if null_rate else made), rows


def _with_nulls(made: Column, rate: float, key: int) -> Column:
    def nullable(rows: Int64Array) -> pa.Array:
        mask = randomness.uniform(rows, key) < rate
        return made(rows).take(pa.array(np.arange(len(rows)), mask=mask))

    return nullable


def _not_for(kind: str, rule: Rule, type_: pa.DataType, types: str) -> Invalid:
    return Invalid(
        f"column {rule.column!r} of type {type_} can not be generated as {kind}",
        code="MR1453",
        hint=f"that is for {types}",
    )


def _sequence(rule: Rule, field: pa.Field) -> tuple[Column, int | None]:
    type_ = field.type
    start, step = rule.integer("start", 0), rule.integer("step", 1)
    prefix = rule.text("prefix")
    rows = None
    if rule.has("end"):
        end = rule.integer("end", 0)
        if step == 0 or (end - start) // step < 0:
            raise rule.wrong("end", "the sequence never comes there")
        rows = (end - start) // step + 1
    if pa.types.is_string(type_):
        return lambda n: _prefixed(prefix, start + n * step), rows
    if not (pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)):
        raise _not_for("sequence", rule, type_, "numbers and text")
    least, greatest = _whole_limits(type_)
    if not least <= start <= greatest or (
        rows is not None and not least <= start + (rows - 1) * step <= greatest
    ):
        raise rule.wrong("end" if rule.has("end") else "start", f"{type_} holds {least} to {greatest}")
    if rows is None and step and greatest < 2**53:
        rows = ((greatest if step > 0 else least) - start) // step + 1
    return lambda n: _of_integers(start + n * step, type_, whole=True), rows


def _whole_limits(type_: pa.DataType) -> tuple[int, int]:
    """The least and the greatest whole number of a type, as far as 64 bits go."""
    if pa.types.is_integer(type_):
        return (0, 2**type_.bit_width - 1) if str(type_)[0] == "u" else _signed(type_.bit_width)
    if pa.types.is_decimal(type_) and type_.precision - type_.scale <= 18:
        limit = 10 ** (type_.precision - type_.scale) - 1
        return -limit, limit
    return _signed(64)


def _choice(rule: Rule, type_: pa.DataType, key: int) -> Column:
    texts = [text.strip() for text in rule.text("values").split(",")]
    try:
        choices = pa.array(texts, pa.string()).cast(type_)
    except (pa.ArrowException, TypeError) as error:
        raise rule.wrong("values", str(error).splitlines()[0]) from None
    pick = _picker(rule, 0, len(texts) - 1, key)
    return lambda n: choices.take(pa.array(pick(n)))


def _constant(rule: Rule, type_: pa.DataType) -> Column:
    try:
        value = pa.array([rule.text("value")], pa.string()).cast(type_)[0]
    except (pa.ArrowException, TypeError) as error:
        raise rule.wrong("value", str(error).splitlines()[0]) from None
    return lambda n: pa.repeat(value, len(n))


def _uuid(rule: Rule, type_: pa.DataType, key: int) -> Column:
    if not pa.types.is_string(type_):
        raise _not_for("uuid", rule, type_, "text")
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    places = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])

    def made(n: Int64Array) -> pa.Array:
        raw = np.stack([randomness.bits(n, key), randomness.bits(n, key ^ 1)], axis=1).view(np.uint8)
        raw[:, 6] = raw[:, 6] & 0x0F | 0x40
        raw[:, 8] = raw[:, 8] & 0x3F | 0x80
        text = np.full((len(n), 36), ord("-"), np.uint8)
        text[:, places[0::2]] = digits[raw >> 4]
        text[:, places[1::2]] = digits[raw & 15]
        return _fixed_text(text, pa.string())

    return made


def _time(rule: Rule, type_: pa.DataType, key: int, step_us: int) -> Column:
    """Times that advance by `step` a row, each late by up to `max_delay`."""
    start = rule.instant("start", DEFAULT_START)
    step = rule.duration("step", step_us)
    delay = rule.duration("max_delay", 0)
    if pa.types.is_int64(type_):
        ticks = 1_000
    elif pa.types.is_timestamp(type_):
        ticks = _UNIT_NS[type_.unit] // 1_000
    else:
        raise _not_for("time", rule, type_, "TIMESTAMP and BIGINT (epoch milliseconds)")

    def made(n: Int64Array) -> pa.Array:
        times = start + n * step
        if delay:
            times -= randomness.integers(n, key, 0, delay).view(np.int64)
        return _of_buffer(times // ticks if ticks else times * 1_000, type_)

    return made


def _picker(rule: Rule, low: int, high: int, key: int) -> Numbers:
    """Whole numbers from `low` to `high` under the rule's distribution."""
    distribution = rule.choice("distribution", DISTRIBUTIONS, "uniform")
    if distribution == "zipf":
        exponent = rule.number("exponent", 1.0, 0.0, 100.0)
        return lambda n: low + randomness.ranks(n, key, high - low + 1, exponent)
    if distribution == "normal":
        mean = rule.number("mean", (low + high) / 2)
        deviation = rule.number("stddev", (high - low) / 6, 0.0)
        # Clipped as numbers that a double holds exactly, so that the limits survive the conversion.
        top = min(high, 2**63 - 1024)
        return lambda n: np.clip(np.rint(mean + deviation * randomness.normal(n, key)), low, top).astype(
            np.int64
        )
    return lambda n: randomness.integers(n, key, low, high).view(np.int64)


def _bounds(rule: Rule, low: int, high: int, least: int, greatest: int) -> tuple[int, int]:
    """The rule's `min` and `max` within what the type holds; a default gives way to a bound beyond it."""
    floor = rule.integer("min", min(low, rule.integer("max", high)), least, greatest)
    ceiling = rule.integer("max", max(high, floor), least, greatest)
    if floor > ceiling:
        raise rule.wrong("max", f"it is below the least value {floor}")
    return floor, ceiling


def _random(rule: Rule, field: pa.Field, key: int, seed: int) -> Column:
    type_ = field.type
    if pa.types.is_boolean(type_):
        return lambda n: pa.array(randomness.bits(n, key) >> np.uint64(63) == 1)
    if pa.types.is_integer(type_):
        least, greatest = _whole_limits(type_)
        pick = _picker(rule, *_bounds(rule, 0, min(greatest, 999_999), least, greatest), key)
        return lambda n: _of_integers(pick(n), type_)
    if pa.types.is_floating(type_):
        return _random_float(rule, type_, key)
    if pa.types.is_decimal(type_):
        limit = 10 ** min(type_.precision, 18)
        low = rule.scaled("min", 0, type_.scale, limit)
        high = rule.scaled("max", max(low, min(limit, 10 ** (type_.scale + 6)) - 1), type_.scale, limit)
        if low > high:
            raise rule.wrong("max", "it is below the least value")
        pick = _picker(rule, low, high, key)
        return lambda n: _of_integers(pick(n), type_)
    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        return _random_text(rule, field, key)
    if pa.types.is_list(type_):
        return _random_list(rule, type_, key, seed)
    if pa.types.is_map(type_):
        return _random_map(rule, type_, key, seed)
    return _random_time(rule, type_, key)


def _signed(width: int) -> tuple[int, int]:
    return -(2 ** (width - 1)), 2 ** (width - 1) - 1


def _random_float(rule: Rule, type_: pa.DataType, key: int) -> Column:
    low = rule.number("min", 0.0)
    high = rule.number("max", max(1.0, low + 1.0))
    if low > high:
        raise rule.wrong("max", f"it is below the least value {low}")
    distribution = rule.choice("distribution", ("uniform", "normal"), "uniform")
    if distribution == "normal":
        mean = rule.number("mean", (low + high) / 2)
        deviation = rule.number("stddev", (high - low) / 6, 0.0)
        least, greatest = (low if rule.has("min") else -np.inf), (high if rule.has("max") else np.inf)
        return lambda n: pa.array(
            np.clip(mean + deviation * randomness.normal(n, key), least, greatest)
        ).cast(type_)
    return lambda n: pa.array(low + (high - low) * randomness.uniform(n, key)).cast(type_)


def _random_text(rule: Rule, field: pa.Field, key: int) -> Column:
    type_ = field.type
    if (field.metadata or {}).get(b"sql_type") == b"JSON":
        pick = _picker(rule, *_bounds(rule, 0, 999_999, *_signed(64)), key)
        return lambda n: pc.binary_join_element_wise('{"n":', pa.array(pick(n)).cast(pa.string()), "}", "")
    if pa.types.is_string(type_) and (rule.has("min") or rule.has("max") or rule.has("prefix")):
        pick = _picker(rule, *_bounds(rule, 0, 999_999, *_signed(64)), key)
        prefix = rule.text("prefix")
        return lambda n: _prefixed(prefix, pick(n))
    length = rule.integer("length", 10, 0, 1 << 16)
    letters = pa.types.is_string(type_)

    def made(n: Int64Array) -> pa.Array:
        words = [randomness.bits(n, key ^ (i << 48)) for i in range(-(-length // 8))]
        raw = np.stack(words, axis=1).view(np.uint8)[:, :length] if words else np.empty((len(n), 0), np.uint8)
        return _fixed_text(
            ((raw.astype(np.uint16) * 26 >> 8) + 97).astype(np.uint8) if letters else raw, type_
        )

    return made


def _random_list(rule: Rule, type_: pa.DataType, key: int, seed: int) -> Column:
    length = rule.integer("length", 3, 0, 10_000)
    item, _ = column(pa.field(f"{rule.column}.item", type_.value_type), {}, seed, 1_000)

    def made(n: Int64Array) -> pa.Array:
        numbers = (n[:, None] * length + np.arange(length)).ravel()
        return pa.ListArray.from_arrays(_offsets(len(n), length), item(numbers), type=type_)

    return made


def _random_map(rule: Rule, type_: pa.DataType, key: int, seed: int) -> Column:
    """`length` entries whose keys are those of a sequence, so that none comes twice in a row's map."""
    length = rule.integer("length", 3, 0, 10_000)
    if not (pa.types.is_string(type_.key_type) or pa.types.is_integer(type_.key_type)):
        raise Unsupported(
            f"datagen has no rule for {type_}",
            code="MR1961",
            hint="use a map whose keys are text or whole numbers",
        )
    prefix = {"prefix": "k"} if pa.types.is_string(type_.key_type) else {}
    keys, _ = column(pa.field("", type_.key_type), {"kind": "sequence", **prefix}, seed, 1_000)
    item, _ = column(pa.field(f"{rule.column}.value", type_.item_type), {}, seed, 1_000)

    def made(n: Int64Array) -> pa.Array:
        places = np.tile(np.arange(length), len(n))
        numbers = (n[:, None] * length + np.arange(length)).ravel()
        made = pa.MapArray.from_arrays(_offsets(len(n), length), keys(places), item(numbers))
        return made.cast(type_)

    return made


def _random_time(rule: Rule, type_: pa.DataType, key: int) -> Column:
    if pa.types.is_timestamp(type_):
        low = rule.instant("min", DEFAULT_START)
        high = (
            rule.instant("max", "2024-12-31 23:59:59.999999") if rule.has("max") else low + 366 * _DAY_US - 1
        )
        pick, ticks = _picker(rule, low, high, key), _UNIT_NS[type_.unit] // 1_000
        return lambda n: _of_buffer(pick(n) // ticks if ticks else pick(n) * 1_000, type_)
    if pa.types.is_date32(type_):
        low = rule.instant("min", DEFAULT_START) // _DAY_US
        high = rule.instant("max", "2024-12-31") // _DAY_US if rule.has("max") else low + 365
        pick = _picker(rule, low, high, key)
        return lambda n: _of_buffer(pick(n).astype(np.int32), type_)
    if pa.types.is_time64(type_):
        pick, ticks = _picker(rule, 0, _DAY_US - 1, key), _UNIT_NS[type_.unit] // 1_000
        return lambda n: _of_buffer(pick(n) if ticks else pick(n) * 1_000, type_)
    if pa.types.is_duration(type_):
        low, high = rule.duration("min", 0), rule.duration("max", _HOUR_US)
        pick, ticks = _picker(rule, low, high, key), _UNIT_NS[type_.unit] // 1_000
        return lambda n: _of_buffer(pick(n) // ticks if ticks else pick(n) * 1_000, type_)
    if pa.types.is_interval(type_):
        pick = _picker(rule, *_bounds(rule, 0, 11, 0, 2**31 - 1), key)
        return lambda n: _months(pick(n), type_)
    raise Unsupported(
        f"datagen has no rule for columns of type {type_}", code="MR1961", hint="leave the column out"
    )


def _struct(field: pa.Field, parameters: Mapping[str, str], seed: int, step_us: int) -> Column:
    """Members by their own rules: `fields.<struct>.<member>.<parameter>`."""
    members = [field.type.field(i) for i in range(field.type.num_fields)]
    mine: dict[str, dict[str, str]] = {member.name: {} for member in members}
    for name, text in parameters.items():
        member, dot, parameter = name.partition(".")
        if not dot or member not in mine:
            raise Invalid(
                f"column {field.name!r} has no member {member!r}",
                code="MR1450",
                hint=f"its members are {', '.join(mine)}: fields.{field.name}.<member>.<parameter>",
            )
        mine[member][parameter] = text
    columns = [
        column(pa.field(f"{field.name}.{m.name}", m.type, metadata=m.metadata), mine[m.name], seed, step_us)[
            0
        ]
        for m in members
    ]
    return lambda n: pa.StructArray.from_arrays([made(n) for made in columns], fields=members)


def _offsets(count: int, length: int) -> pa.Array:
    return pa.array(np.arange(count + 1, dtype=np.int32) * length)


def _prefixed(prefix: str, numbers: Int64Array) -> pa.Array:
    text = pa.array(numbers).cast(pa.string())
    return pc.binary_join_element_wise(prefix, text, "") if prefix else text


def _fixed_text(text: np.ndarray[tuple[int, int], np.dtype[np.uint8]], type_: pa.DataType) -> pa.Array:
    """Rows of a byte matrix as text or bytes."""
    count, length = text.shape
    offsets = np.arange(count + 1, dtype=np.int32) * length
    data = pa.py_buffer(np.ascontiguousarray(text))
    return pa.Array.from_buffers(type_, count, [None, pa.py_buffer(offsets), data], 0)


def _of_buffer(values: np.ndarray[tuple[int], np.dtype[np.signedinteger]], type_: pa.DataType) -> pa.Array:
    """Integers as an array of a type with the same layout."""
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))], 0)


def _of_integers(values: Int64Array, type_: pa.DataType, whole: bool = False) -> pa.Array:
    """Integers (two's complement in 64 bits) as numbers; for a decimal, `whole` ones or multiples of 10**-scale."""
    if pa.types.is_decimal(type_):
        if whole:
            return pa.array(values).cast(pa.decimal128(38, type_.scale)).cast(type_)
        if type_.bit_width == 64:
            return _of_buffer(values, type_)
        halves = np.stack([values, values >> 63], axis=1)
        return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(halves)], 0)
    if type_ == pa.uint64():
        return pa.array(values.view(np.uint64))
    return pa.array(values).cast(type_)


def _months(months: Int64Array, type_: pa.DataType) -> pa.Array:
    raw = np.zeros((len(months), 4), np.int32)
    raw[:, 0] = months
    return pa.Array.from_buffers(type_, len(months), [None, pa.py_buffer(raw)], 0)
