"""Windows in every spelling: functions in FROM, calls in GROUP BY, and WINDOW clauses, checked once for all."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from millrace.errors import Position
from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.durations import at_duration, parse_duration, read_duration
from millrace.planner.dialect.nodes import (
    Call,
    GroupWindow,
    Interval,
    NamedArgument,
    WindowTable,
    position_of,
)
from millrace.planner.dialect.tokens import Token


@dataclass(frozen=True, slots=True)
class Spelling:
    """A window function's kind and the order of its durations; the last of `order` may be left out if optional."""

    kind: str
    order: tuple[str, ...]
    optional: int = 0


SPELLINGS = {
    "tumble": Spelling("tumble", ("size", "offset"), 1),
    "tumbling": Spelling("tumble", ("size", "offset"), 1),
    "hop": Spelling("hop", ("slide", "size", "offset"), 1),
    "slide": Spelling("hop", ("size", "slide", "offset"), 1),
    "sliding": Spelling("hop", ("size", "slide", "offset"), 1),
    "session": Spelling("session", ("gap",)),
    "cumulate": Spelling("cumulate", ("step", "size", "offset"), 1),
}
CALLED = frozenset(("tumble", "hop", "slide", "session", "cumulate"))
"""What may stand in GROUP BY and FROM."""

_CLAUSED = ("TUMBLING", "SLIDING", "SESSION", "TUMBLE")
_CHECKED = ("size", "slide", "step", "gap")


def window_fields(
    cursor: Cursor,
    name: str,
    durations: dict[str, int],
    places: dict[str, Position],
    at: Position | Token | None,
) -> dict[str, object]:
    """The arguments of a WindowTable or GroupWindow but for `time`.

    Raises Invalid: MR1040 for durations missing, MR1032 for none positive, MR1041 and MR1042 for sizes that do not fit.
    """
    spelling = SPELLINGS[name]
    for field in spelling.order[: len(spelling.order) - spelling.optional]:
        if field not in durations:
            cursor.fail(f"{name.upper()} has no {field}", "MR1040", hint=_signature(name), at=at)
    for field in _CHECKED:
        if field in durations and durations[field] <= 0:
            cursor.fail(f"the {field} of a window must be positive", "MR1032", at=places.get(field) or at)
    size, slide, step = durations.get("size", 0), durations.get("slide"), durations.get("step")
    if slide is not None and slide > size:
        cursor.fail(
            f"the slide of {spoken(slide)} is larger than the size of {spoken(size)}",
            "MR1041",
            hint=f"{_signature(name)}; rows between the windows would be lost",
            at=places.get("slide") or at,
        )
    if step is not None and size % step:
        cursor.fail(
            f"the size of {spoken(size)} is no multiple of the step of {spoken(step)}",
            "MR1042",
            hint=_signature(name),
            at=places.get("size") or at,
        )
    period = slide or size
    offset = durations.get("offset", 0) % period if period else 0
    fields: dict[str, object] = {
        "kind": spelling.kind,
        **{f: durations[f] for f in _CHECKED if f in durations},
    }
    if offset:
        fields["offset"] = offset
    return fields


def _signature(name: str) -> str:
    order = SPELLINGS[name].order
    return f"{name.upper()} takes {', then '.join(f'the {field}' for field in order if field != 'offset')}"


def spoken(us: int) -> str:
    """A duration as people say it: `5 minutes`."""
    for unit, length in (
        ("day", 86_400_000_000),
        ("hour", 3_600_000_000),
        ("minute", 60_000_000),
        ("second", 1_000_000),
    ):
        if us and us % length == 0:
            return f"{us // length} {unit}{'' if us == length else 's'}"
    return f"{us // 1000} ms" if us % 1000 == 0 else f"{us} µs"


def is_window_call(node: object) -> bool:
    return isinstance(node, Call) and node.args["this"] in CALLED


def group_window(cursor: Cursor, call: Call) -> GroupWindow:
    """The window that a call such as `HOP(ts, INTERVAL …, INTERVAL …)` in GROUP BY means. Raises as window_fields."""
    name = str(call.args["this"])
    at = position_of(call)
    for modifier in ("distinct", "order", "filter", "nulls"):
        if call.args.get(modifier):
            cursor.fail(f"{name.upper()} is a window: it takes no {modifier.upper()}", "MR1040", at=at)
    arguments: list[exp.Expression] = list(call.args.get("expressions") or ())
    time: exp.Expression | None = None
    if arguments and not _is_duration(arguments[0]):
        time = _checked_time(cursor, name, arguments.pop(0))
    fields = window_fields(cursor, name, *_called_durations(cursor, name, arguments), at)
    return GroupWindow(**fields, time=time)


def _is_duration(node: exp.Expression) -> bool:
    return isinstance(node, (Interval, NamedArgument)) or (isinstance(node, exp.Literal) and node.is_string)


def _checked_time(cursor: Cursor, name: str, node: exp.Expression) -> exp.Expression:
    if isinstance(node, Call) and node.args["this"] == "descriptor" and len(node.expressions) == 1:
        node = node.expressions[0]
    if isinstance(node, exp.Column) or (isinstance(node, Call) and node.args["this"] == "proctime"):
        return node.copy()
    cursor.fail(
        f"{name.upper()} needs a time column",
        "MR1040",
        hint="name a column (or PROCTIME()); compute others in a subquery",
        at=position_of(node),
    )


def _called_durations(
    cursor: Cursor, name: str, arguments: list[exp.Expression]
) -> tuple[dict[str, int], dict[str, Position]]:
    order = SPELLINGS[name].order
    if len(arguments) > len(order):
        at = position_of(arguments[len(order)])
        cursor.fail(f"{name.upper()} has too many arguments", "MR1040", hint=_signature(name), at=at)
    durations: dict[str, int] = {}
    places: dict[str, Position] = {}
    for field, node in zip(order, arguments, strict=False):
        place = position_of(node)
        if isinstance(node, NamedArgument):
            field, node = str(node.args["this"]), node.args["expression"]
        if field not in order or field in durations:
            cursor.fail(f"{name.upper()} takes no {field} here", "MR1040", hint=_signature(name), at=place)
        durations[field] = constant_us(cursor, node, f"the {field}")
        if place is not None:
            places[field] = place
    return durations, places


def constant_us(cursor: Cursor, node: exp.Expression, what: str) -> int:
    """µs of an Interval or a string; MR1030 for anything else, MR1031 for months."""
    if isinstance(node, Interval):
        if node.months:
            hint = "a month has no fixed length: say it in days"
            cursor.fail(f"{what} can not be in months or years", "MR1031", hint=hint, at=position_of(node))
        return node.us
    if isinstance(node, exp.Literal) and node.is_string:
        return parse_duration(node.name)
    hint = "write INTERVAL '5' MINUTE, '5 minutes', 5m, 10s or 250ms"
    cursor.fail(f"{what} must be a constant duration", "MR1030", hint=hint, at=position_of(node))


# In FROM


def at_window_table(cursor: Cursor) -> bool:
    return cursor.here.word.lower() in CALLED and cursor.ahead().word == "("


def read_window_table(cursor: Cursor) -> WindowTable:
    """`TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL …)` and its kind, without TABLE(…) around and without alias."""
    token = cursor.advance()
    name = token.word.lower()
    order = SPELLINGS[name].order
    cursor.expect("(")
    _named(cursor, "DATA")
    this, partition_by = _windowed_input(cursor)
    cursor.expect(",")
    _named(cursor, "TIMECOL")
    if cursor.at("PARTITION", "BY"):
        partition_by = _partition(cursor)
        cursor.expect(",")
    time: exp.Expression | None = None
    if not at_duration(cursor):
        time = _checked_time(cursor, name, cursor.expression())
        cursor.expect(",")
    durations: dict[str, int] = {}
    places: dict[str, Position] = {}
    while True:
        here = cursor.here
        rest = [field for field in order if field not in durations]
        if not rest:
            cursor.fail(f"{name.upper()} has too many arguments", "MR1040", hint=_signature(name))
        field = rest[0]
        if cursor.ahead().word == "=>":
            field = here.text.lower()
            if field not in rest:
                cursor.fail(f"{name.upper()} takes no {field} here", "MR1040", hint=_signature(name))
            cursor.advance(2)
        places[field] = cursor.here.position
        durations[field] = read_duration(cursor, f"the {field}", -(2**62) if field == "offset" else 1)
        if not cursor.take(","):
            break
    cursor.expect(")")
    fields = window_fields(cursor, name, durations, places, token)
    if partition_by and SPELLINGS[name].kind != "session":
        cursor.fail(f"PARTITION BY is for sessions, not for {name.upper()}", "MR1040", at=token)
    node = WindowTable(this=this, **fields, time=time, partition_by=partition_by or None)
    return cursor.placed(node, token)


def _named(cursor: Cursor, name: str) -> None:
    if cursor.at(name, "=>"):
        cursor.advance(2)


def _windowed_input(cursor: Cursor) -> tuple[exp.Expression, list[exp.Expression]]:
    token = cursor.here
    wrapped = cursor.take("TABLE") and cursor.at("(") and not cursor.at_query() and cursor.take("(")
    this: exp.Expression
    if cursor.at("("):
        cursor.advance()
        this = exp.Subquery(this=cursor.query())
        cursor.expect(")")
    elif at_window_table(cursor):
        this = read_window_table(cursor)
    else:
        this = read_table_name(cursor)
    if wrapped:
        cursor.expect(")")
    partition_by = _partition(cursor) if cursor.at("PARTITION", "BY") else []
    if cursor.at("ORDER", "BY"):
        cursor.fail("a window's input takes no ORDER BY", "MR1040", hint="event time orders the rows")
    return cursor.placed(this, token), partition_by


def _partition(cursor: Cursor) -> list[exp.Expression]:
    """`PARTITION BY (a, b)`, or keys up to DESCRIPTOR; with no DESCRIPTOR behind, a comma ends the only key."""
    cursor.expect("PARTITION", "BY")
    if cursor.at("("):
        return cursor.wrapped(cursor.expression)
    keys = [cursor.expression()]
    while cursor.at(",") and cursor.ahead().word != "DESCRIPTOR" and _descriptor_follows(cursor):
        cursor.advance()
        keys.append(cursor.expression())
    return keys


def _descriptor_follows(cursor: Cursor) -> bool:
    count = 1
    while cursor.ahead(count).word not in ("DESCRIPTOR", ")", "INTERVAL", "TIMECOL", ""):
        count += 1
    return cursor.ahead(count).word == "DESCRIPTOR"


def read_table_name(cursor: Cursor) -> exp.Table:
    """A dotted table name of at most three parts."""
    token = cursor.here
    parts = [cursor.identifier("a table")]
    while cursor.at("."):
        cursor.advance()
        parts.append(cursor.label("a table"))
    if len(parts) > 3:
        cursor.fail("a table's name has at most three parts", "MR1010", at=token)
    return cursor.placed(
        exp.Table(**dict(zip(("this", "db", "catalog"), reversed(parts), strict=False))), token
    )


# WINDOW clauses


@dataclass(frozen=True, slots=True)
class WindowClause:
    """`WINDOW TUMBLING(…)` and what it adds to GROUP BY besides the window."""

    window: GroupWindow
    keys: tuple[exp.Expression, ...]
    position: Position


def at_window_clause(cursor: Cursor) -> bool:
    return cursor.at("WINDOW") and cursor.ahead(2).word != "AS"


def read_window_clause(cursor: Cursor) -> WindowClause:
    """`WINDOW TUMBLING(1m)`, `WINDOW SLIDING(ts, 5m, 1m)`, `WINDOW SESSION(ts, 30s, k)`,
    `WINDOW TUMBLING PARTITION BY k EVERY 5 MINUTES`."""
    cursor.expect("WINDOW")
    token = cursor.here
    if token.word in ("HOPPING", "HOP"):
        hint = "write WINDOW SLIDING(size, slide)"
        cursor.fail(f"WINDOW {token.word} is not clear about which duration comes first", "MR1047", hint=hint)
    name = cursor.expect_any(_CLAUSED).lower()
    keys: list[exp.Expression] = []
    time: exp.Expression | None = None
    durations: dict[str, int] = {}
    places: dict[str, Position] = {}
    if cursor.take("("):
        if not at_duration(cursor):
            time = _checked_time(cursor, name, cursor.expression())
            cursor.expect(",")
        order = SPELLINGS[name].order
        while True:
            if len(durations) < len(order) and at_duration(cursor):
                field = order[len(durations)]
                places[field] = cursor.here.position
                durations[field] = read_duration(cursor, f"the {field}", -(2**62) if field == "offset" else 1)
            elif durations and name == "session":
                keys.append(cursor.expression())
            else:
                cursor.fail(
                    f"expected the {order[min(len(durations), len(order) - 1)]}, found {cursor.here.shown()}",
                    "MR1040",
                    hint=_signature(name),
                )
            if not cursor.take(","):
                break
        cursor.expect(")")
    if cursor.take("PARTITION", "BY"):
        keys += cursor.commas(cursor.expression)
    if not durations:
        cursor.expect("EVERY" if name != "session" else "GAP")
        places["size"] = cursor.here.position
        durations["gap" if name == "session" else "size"] = read_duration(cursor, "the size")
    fields = window_fields(cursor, name, durations, places, token)
    window = cursor.placed(GroupWindow(**fields, time=time), token)
    return WindowClause(window, tuple(keys), token.position)
