"""LIKE, SIMILAR TO and regular expressions. Constant patterns run in RE2 (or as scans), others row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.functions import text_scan
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import broadcast, by_row
from millrace.operators.functions.registry import Literals, Types, define
from millrace.operators.functions.row_error import BAD_VALUE, Body, Value, ValueFault


def text_constant(literals: Literals, position: int) -> str | None:
    """The string at that argument position, where it is a constant that is not NULL."""
    if position >= len(literals):
        return None
    literal = literals[position]
    return literal.as_py() if literal is not None and literal.is_valid else None


def number_constant(literals: Literals, position: int) -> int | None:
    """The integer at that argument position, where it is a constant that is not NULL."""
    if position >= len(literals):
        return None
    literal = literals[position]
    return int(literal.as_py()) if literal is not None and literal.is_valid else None


def like_regex(pattern: str, escape: str) -> str:
    """The regular expression that matches what a LIKE pattern matches."""
    out, i = [], 0
    while i < len(pattern):
        c = pattern[i]
        if escape and c == escape:
            if i + 1 == len(pattern):
                raise ValueFault(BAD_VALUE, f"pattern {pattern!r} ends in its escape character")
            out.append(re.escape(pattern[i + 1]))
            i += 1
        else:
            out.append(".*" if c == "%" else "." if c == "_" else re.escape(c))
        i += 1
    return "".join(out)


def similar_regex(pattern: str, escape: str) -> str:
    """The regular expression for SQL's SIMILAR TO: `%` and `_` among | * + ? {} () []."""
    out, i = [], 0
    while i < len(pattern):
        c = pattern[i]
        if escape and c == escape and i + 1 < len(pattern):
            out.append(re.escape(pattern[i + 1]))
            i += 1
        elif c in ".^$\\":
            out.append("\\" + c)
        else:
            out.append(".*" if c == "%" else "." if c == "_" else c)
        i += 1
    return "".join(out)


@lru_cache(maxsize=1024)
def python_regex(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """The compiled expression; ValueFault where it is none."""
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ValueFault(BAD_VALUE, f"{pattern!r} is no regular expression: {error}") from None


def checked(pattern: str) -> str:
    """The pattern, if RE2 takes it. Raises Invalid (MR1214)."""
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise Invalid(
            f"{pattern!r} is no regular expression: {error}",
            code="MR1214",
            hint="RE2 syntax is taken: no look-around and no back references",
        ) from error
    return pattern


def _like_body(pattern: str, escape: str, ignore_case: bool) -> Body:
    plain = re.fullmatch(r"(%?)([^%_]*)(%?)", pattern)
    if plain and not ignore_case and (not escape or escape not in pattern):
        front, text, back = plain.groups()
        if front and back:
            return lambda values, rows: pc.match_substring(values[0], text)
        if front and text:
            return lambda values, rows: pc.ends_with(values[0], text)
        if back and text:
            return lambda values, rows: pc.starts_with(values[0], text)
        if not front and not back:
            return lambda values, rows: pc.equal(values[0], text)
    flags = "(?si)" if ignore_case else "(?s)"
    regex = f"{flags}^(?:{like_regex(pattern, escape)})$"
    return lambda values, rows: pc.match_substring_regex(values[0], regex)


def _define_like(name: str, ignore_case: bool) -> None:
    @define(
        f"{name}(STRING, STRING[, STRING]) -> BOOLEAN",
        description="whether the text matches a pattern of % and _" + (" in any case" if ignore_case else ""),
        can_fail=True,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        pattern = text_constant(literals, 1)
        escape = text_constant(literals, 2) if len(types) > 2 else "\\"
        if pattern is not None and escape is not None:
            try:
                return _like_body(pattern, escape, ignore_case)
            except ValueFault as fault:
                raise Invalid(str(fault), code="MR1214", hint="double the escape character") from fault
        flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)

        def match(text: str, wanted: str, mark: str = "\\") -> bool:
            return python_regex(like_regex(wanted, mark), flags).fullmatch(text) is not None

        return lambda values, rows: by_row(match, values, rows, returns, name)


_define_like("like", ignore_case=False)
_define_like("ilike", ignore_case=True)


@define("similar to(STRING, STRING[, STRING]) -> BOOLEAN", description="whether the whole text matches an SQL regex",
        aliases=("similar_to",), can_fail=True)  # fmt: skip
def _similar(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    pattern = text_constant(literals, 1)
    escape = text_constant(literals, 2) if len(types) > 2 else "\\"
    if pattern is not None and escape is not None:
        regex = checked(f"(?s)^(?:{similar_regex(pattern, escape)})$")
        return lambda values, rows: pc.match_substring_regex(values[0], regex)

    def match(text: str, wanted: str, mark: str = "\\") -> bool:
        return python_regex(similar_regex(wanted, mark), re.DOTALL).fullmatch(text) is not None

    return lambda values, rows: by_row(match, values, rows, returns, "similar to")


def _flags(options: str) -> str:
    """Flags as an RE2 group: i, s, n or m; c and g are no flags of the pattern."""
    letters = "".join(sorted({{"i": "i", "s": "s", "m": "m", "n": "m"}.get(o, "") for o in options}))
    return f"(?{letters})" if letters else ""


@define("regexp_like(STRING, STRING[, STRING]) -> BOOLEAN", description="whether a part of the text matches a regex",
        aliases=("regexp_matches", "regexp", "rlike"), can_fail=True)  # fmt: skip
def _regexp_like(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    pattern, options = text_constant(literals, 1), text_constant(literals, 2) if len(types) > 2 else ""
    if pattern is not None and options is not None:
        regex = checked(_flags(options) + pattern)
        return lambda values, rows: pc.match_substring_regex(values[0], regex)

    def match(text: str, wanted: str, flags: str = "") -> bool:
        return python_regex(_flags(flags) + wanted).search(text) is not None

    return lambda values, rows: by_row(match, values, rows, returns, "regexp_like")


@define("~*(STRING, STRING) -> BOOLEAN", description="whether a part of the text matches a regex in any case",
        aliases=("regexp_ilike",), can_fail=True)  # fmt: skip
def _regexp_ilike(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    body = _regexp_like((*types, sql.STRING), returns, (*literals, pa.scalar("i")))
    return lambda values, rows: body([*values, pa.scalar("i")], rows)


def _named(pattern: str) -> tuple[str, list[str]]:
    """The pattern with every capturing group named g1, g2, … (Arrow extracts named groups only)."""
    out: list[str] = []
    names: list[str] = []
    i, inside = 0, False
    while i < len(pattern):
        c = pattern[i]
        if c == "\\" and i + 1 < len(pattern):
            out.append(pattern[i : i + 2])
            i += 2
            continue
        if c == "[" and not inside:
            inside = True
            if pattern[i + 1 : i + 2] == "]":
                out.append("[]")
                i += 2
                continue
        elif c == "]":
            inside = False
        named = re.match(r"\(\?P?<\w+>", pattern[i:]) if c == "(" and not inside else None
        plain = c == "(" and not inside and pattern[i + 1 : i + 2] != "?"
        if named or plain:
            names.append(f"g{len(names) + 1}")
            out.append(f"(?P<{names[-1]}>")
            i += len(named[0]) if named else 1
            continue
        out.append(c)
        i += 1
    return "".join(out), names


@define("regexp_extract(STRING, STRING[, INT]) -> STRING",
        description="the part (or the group of it) that first matches a regex; NULL where none does",
        aliases=("regexp_substr",), can_fail=True)  # fmt: skip
def _regexp_extract(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    pattern = text_constant(literals, 1)
    group = number_constant(literals, 2) if len(types) > 2 else 0
    if pattern is None or group is None:

        def extract(text: str, wanted: str, number: int = 0) -> str | None:
            found = python_regex(wanted).search(text)
            return None if found is None else _group(found, number)

        return lambda values, rows: by_row(extract, values, rows, returns, "regexp_extract")
    checked(pattern)
    scan = text_scan.recognise(pattern)
    if scan is not None and scan.group == group:
        return lambda values, rows: scan.extract(broadcast(values[0], rows))
    regex, names = _named(f"({pattern})")
    if not 0 <= group < len(names):
        raise Invalid(f"{pattern!r} has {len(names) - 1} groups, not {group}", code="MR1214",
                      hint="groups are numbered from 1; 0 is the whole match")  # fmt: skip
    return lambda values, rows: pc.struct_field(pc.extract_regex(values[0], regex), group)


def _group(found: re.Match[str], number: int) -> str:
    try:
        return found.group(number) or ""
    except IndexError:
        raise ValueFault(BAD_VALUE, f"there is no group {number}") from None


@define("regexp_replace(STRING, STRING, STRING[, STRING]) -> STRING",
        description="the text with the first match replaced (all with flag g)", can_fail=True)  # fmt: skip
def _regexp_replace(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    pattern, replacement = text_constant(literals, 1), text_constant(literals, 2)
    options = text_constant(literals, 3) if len(types) > 3 else ""
    if pattern is not None and replacement is not None and options is not None:
        regex = checked(_flags(options) + pattern)
        limit = None if "g" in options else 1
        written = replacement.replace("\\&", "\\0")
        return lambda values, rows: pc.replace_substring_regex(
            values[0], regex, written, max_replacements=limit
        )

    def replace(text: str, wanted: str, new: str, flags: str = "") -> str:
        expanded = re.sub(r"\\([0-9])", r"\\g<\1>", new.replace("\\&", "\\0"))
        return python_regex(_flags(flags) + wanted).sub(expanded, text, count=0 if "g" in flags else 1)

    return lambda values, rows: by_row(replace, values, rows, returns, "regexp_replace")


@define(
    "regexp_count(STRING, STRING) -> BIGINT",
    description="how many matches of a regex there are",
    can_fail=True,
)
def _regexp_count(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    pattern = text_constant(literals, 1)
    if pattern is not None:
        regex = checked(pattern)
        return lambda values, rows: pc.cast(pc.count_substring_regex(values[0], regex), pa.int64())
    return lambda values, rows: by_row(
        lambda text, wanted: sum(1 for _ in python_regex(wanted).finditer(text)),
        values,
        rows,
        returns,
        "regexp_count",
    )


@define("regexp_split_to_array(STRING, STRING) -> ARRAY<STRING>", description="the text cut at the matches of a regex",
        aliases=("string_split_regex", "str_split_regex", "regexp_split"), can_fail=True)  # fmt: skip
def _regexp_split(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    pattern = text_constant(literals, 1)
    if pattern:
        regex = checked(pattern)
        return lambda values, rows: pc.split_pattern_regex(values[0], regex)
    return lambda values, rows: by_row(
        lambda text, wanted: python_regex(wanted).split(text), values, rows, returns, "regexp_split_to_array"
    )


@define("regexp_extract_all(STRING, STRING[, INT]) -> ARRAY<STRING>", description="all matches of a regex (or a group)",
        can_fail=True)  # fmt: skip
def _regexp_extract_all(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def extract(text: str, wanted: str, number: int = 0) -> list[Any]:
        return [_group(found, number) for found in python_regex(wanted).finditer(text)]

    def body(values: Sequence[Value], rows: int) -> Value:
        return by_row(extract, values, rows, returns, "regexp_extract_all")

    return body
