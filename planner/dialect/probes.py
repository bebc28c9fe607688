"""TEMPORAL PROBE JOIN: what stands behind its right side. Reads no relation."""

from __future__ import annotations

from sqlglot import exp

from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.durations import read_duration
from millrace.planner.dialect.nodes import Probe
from millrace.planner.dialect.tokens import Kind

MOST = 1000
"""How many offsets a probe may have."""
_EVER = 2**62


def read_probe(cursor: Cursor, node: exp.Join) -> None:
    """`ON (keys) | ON condition [TIMESTAMPS (left, right)] RANGE FROM a TO b STEP c | LIST (a, …)` for `node`."""
    token = cursor.here
    if cursor.take("USING"):
        node.set("using", cursor.wrapped(lambda: cursor.identifier("a column")))
    else:
        cursor.expect("ON")
        keys = _keys(cursor)
        if keys is None:
            node.set("on", cursor.expression())
        else:
            node.set("using", keys)
    probe = Probe()
    if cursor.take("TIMESTAMPS"):
        at = cursor.here
        times = cursor.wrapped(cursor.expression)
        if len(times) != 2:
            cursor.fail("TIMESTAMPS takes the time of the left and of the right side", "MR1044", at=at)
        probe.set("times", times)
    at = cursor.here
    if cursor.take("RANGE"):
        probe.set("offsets", _range(cursor))
    elif cursor.take("LIST"):
        probe.set("offsets", cursor.wrapped(lambda: _offset(cursor)))
    else:
        cursor.unexpected("RANGE", "LIST")
    if len(probe.args["offsets"]) > MOST:
        cursor.fail(f"a probe has {MOST} offsets at most", "MR1055", hint="take a larger STEP", at=at)
    node.set("probe", cursor.placed(probe, token))


def _keys(cursor: Cursor) -> list[exp.Identifier] | None:
    """`(a, b)`, columns that both sides have; None where a condition stands there."""
    begin = cursor.index
    if cursor.take("("):
        keys: list[exp.Identifier] = []
        while cursor.here.kind in (Kind.WORD, Kind.QUOTED):
            word = cursor.here
            if cursor.ahead().word not in (",", ")"):
                break
            keys.append(cursor.identifier("a column"))
            if cursor.take(")"):
                return keys
            assert cursor.take(","), word
    cursor.rewind(begin)
    return None


def _range(cursor: Cursor) -> list[int]:
    token = cursor.here
    cursor.expect("FROM")
    first = _offset(cursor)
    cursor.expect("TO")
    last = _offset(cursor)
    cursor.expect("STEP")
    step = read_duration(cursor, "the step")
    if last < first:
        cursor.fail("the RANGE of a probe ends before it begins", "MR1055", at=token)
    return list(range(first, min(last, first + MOST * step) + 1, step))


def _offset(cursor: Cursor) -> int:
    token = cursor.here
    sign = -1 if cursor.take("-") else 1
    us = sign * read_duration(cursor, "an offset", -_EVER)
    if us % 1000:
        cursor.fail("an offset must be in whole milliseconds", "MR1055", at=token)
    return us
