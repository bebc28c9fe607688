"""String functions. Positions count characters from 1; NULL in gives NULL out but where said otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import text_scan
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import broadcast, by_row
from millrace.operators.functions.patterns import number_constant, text_constant
from millrace.operators.functions.registry import Binding, Literals, Types, define, scalar
from millrace.operators.functions.row_error import BAD_VALUE, Body, Value, ValueFault

MOST_CHARACTERS = 1 << 26


def row(form: str, *forms: str, description: str, aliases: Sequence[str] = (), can_fail: bool = False) -> Any:
    """Decorator: a Python function of one row's values, in the library."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @define(form, *forms, description=description, aliases=aliases, can_fail=can_fail)
        def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
            name = form.partition("(")[0]
            return lambda values, rows: by_row(function, values, rows, returns, name)

        return function

    return add


def arrow(form: str, function: Callable[[Value], Value], description: str, *aliases: str) -> None:
    """An Arrow function of one argument, in the library."""

    @define(form, description=description, aliases=aliases)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        def body(values: Sequence[Value], rows: int) -> Value:
            result = function(values[0])
            return result if result.type == returns else pc.cast(result, returns)

        return body


arrow("upper(STRING) -> STRING", pc.utf8_upper, "the text in upper case", "ucase")
arrow("lower(STRING) -> STRING", pc.utf8_lower, "the text in lower case", "lcase")
arrow("reverse(STRING) -> STRING", pc.utf8_reverse, "the characters in reverse order")
arrow(
    "length(STRING) -> INT",
    pc.utf8_length,
    "how many characters",
    "char_length",
    "character_length",
    "len",
    "strlen",
)


@define(
    "octet_length(STRING) -> INT",
    "octet_length(BYTES) -> INT",
    description="how many bytes",
    aliases=("byte_length",),
)
def _octet_length(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pc.cast(pc.binary_length(values[0]), returns)


@define("bit_length(STRING) -> INT", "bit_length(BYTES) -> INT", description="how many bits")
def _bit_length(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pc.multiply(
        pc.cast(pc.binary_length(values[0]), returns), pa.scalar(8, returns)
    )


def _define_trim(
    name: str, quick: Callable[..., Value], strip: Callable[[str, str], str], side: str, *aliases: str
) -> None:
    @define(
        f"{name}(STRING[, STRING]) -> STRING",
        description=f"the text without spaces (or given characters) {side}",
        aliases=aliases,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        characters = " " if len(types) == 1 else text_constant(literals, 1)
        if characters:
            return lambda values, rows: quick(values[0], characters=characters)
        return lambda values, rows: by_row(strip, values, rows, returns, name)


_define_trim("trim", pc.utf8_trim, lambda s, c: s.strip(c) if c else s, "at both ends", "btrim")
_define_trim("ltrim", pc.utf8_ltrim, lambda s, c: s.lstrip(c) if c else s, "at its start")
_define_trim("rtrim", pc.utf8_rtrim, lambda s, c: s.rstrip(c) if c else s, "at its end")


def _substring(text: str, start: int, length: int | None = None) -> str:
    if length is not None and length < 0:
        raise ValueFault(BAD_VALUE, f"negative length {length}")
    end = None if length is None else max(start - 1 + length, 0)
    return text[max(start - 1, 0) : end]


@define("substring(STRING, BIGINT[, BIGINT]) -> STRING", description="characters from a position on, at most so many",
        aliases=("substr", "mid"), can_fail=True)  # fmt: skip
def _substring_builder(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    start, length = number_constant(literals, 1), number_constant(literals, 2)
    if start is not None and len(types) == 2:
        return lambda values, rows: pc.utf8_slice_codeunits(values[0], max(start - 1, 0))
    if start is not None and length is not None and 0 <= length < 2**40 and abs(start) < 2**40:
        first, last = max(start - 1, 0), max(start - 1 + length, 0)
        return lambda values, rows: pc.utf8_slice_codeunits(values[0], first, max(last, first))
    return lambda values, rows: by_row(_substring, values, rows, returns, "substring")


def _left(text: str, count: int) -> str:
    return text[:count]


def _right(text: str, count: int) -> str:
    if count < 0:
        return text[-count:]
    return text[max(len(text) - count, 0) :]


@define(
    "left(STRING, BIGINT) -> STRING", description="the first n characters; all but the last -n where negative"
)
def _left_builder(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    count = number_constant(literals, 1)
    if count is not None and count >= 0:
        return lambda values, rows: pc.utf8_slice_codeunits(values[0], 0, min(count, 2**40))
    return lambda values, rows: by_row(_left, values, rows, returns, "left")


@define(
    "right(STRING, BIGINT) -> STRING",
    description="the last n characters; all but the first -n where negative",
)
def _right_builder(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: by_row(_right, values, rows, returns, "right")


def _bind_texts(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    return ((sql.STRING,) * len(types), sql.STRING) if types else None


@define("concat(ANY...) -> STRING", description="all arguments as text, one after the other; NULLs are left out",
        bind=_bind_texts, null_propagating=False)  # fmt: skip
def _concat(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pc.binary_join_element_wise(*values, pa.scalar(""), null_handling="replace")


@define("concat_ws(STRING, ANY...) -> STRING", description="arguments as text with a separator between; NULLs are left out",
        bind=_bind_texts, null_propagating=False)  # fmt: skip
def _concat_ws(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        if len(values) == 1:
            return pa.scalar("")
        parts = list(values[1:])
        nothing = pc.is_null(parts[0])
        for part in parts[1:]:
            nothing = pc.and_(nothing, pc.is_null(part))
        # Arrow leaves a row out altogether where all of its parts are skipped.
        parts[0] = pc.if_else(nothing, pa.scalar(""), parts[0])
        joined = pc.binary_join_element_wise(*parts, pc.fill_null(values[0], ""), null_handling="skip")
        return pc.if_else(pc.is_valid(values[0]), joined, pa.scalar(None, pa.string()))

    return body


def _bind_bars(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) < 2:
        return None
    if any(sql.is_list(t) for t in types):
        lists = [t if sql.is_list(t) or pa.types.is_null(t) else pa.list_(t) for t in types]
        common = sql.common_type(lists)
        return None if common is None else ((common,) * len(types), common)
    if all(sql.is_bytes(t) for t in types):
        return (sql.BYTES,) * len(types), sql.BYTES
    texts = any(sql.is_string(t) or pa.types.is_null(t) for t in types)
    return ((sql.STRING,) * len(types), sql.STRING) if texts else None


@define("||(STRING, STRING) -> STRING", "||(ARRAY<T>, ARRAY<T>) -> ARRAY<T>", description="one after the other",
        bind=_bind_bars)  # fmt: skip
def _bars(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_list(returns):
        return lambda values, rows: by_row(
            lambda *parts: [item for part in parts for item in part], values, rows, returns, "||"
        )
    empty = pa.scalar(b"" if sql.is_bytes(returns) else "", returns)
    return lambda values, rows: pc.binary_join_element_wise(*values, empty)


@define(
    "replace(STRING, STRING, STRING) -> STRING",
    description="every occurrence of the second replaced by the third",
)
def _replace(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    old, new = text_constant(literals, 1), text_constant(literals, 2)
    if old and new is not None:
        return lambda values, rows: pc.replace_substring(values[0], old, new)
    return lambda values, rows: by_row(
        lambda s, a, b: s.replace(a, b) if a else s, values, rows, returns, "replace"
    )


def _count(count: int, text: str) -> int:
    if count * len(text) > MOST_CHARACTERS:
        raise ValueFault(BAD_VALUE, f"a result of {count * len(text)} characters is too long")
    return max(count, 0)


@row("repeat(STRING, BIGINT) -> STRING", description="the text so many times", can_fail=True)
def _repeat(text: str, count: int) -> str:
    return text * _count(count, text)


@row("space(BIGINT) -> STRING", description="so many spaces", can_fail=True)
def _space(count: int) -> str:
    return " " * _count(count, " ")


def _fill(count: int, fill: str) -> str:
    return (fill * (count // len(fill) + 1))[:count] if fill and count > 0 else ""


@row(
    "lpad(STRING, BIGINT[, STRING]) -> STRING",
    description="filled at its start, or cut, to n characters",
    can_fail=True,
)
def _lpad(text: str, count: int, fill: str = " ") -> str:
    _count(count, " ")
    return (_fill(count - len(text), fill) + text)[: max(count, 0)]


@row(
    "rpad(STRING, BIGINT[, STRING]) -> STRING",
    description="filled at its end, or cut, to n characters",
    can_fail=True,
)
def _rpad(text: str, count: int, fill: str = " ") -> str:
    _count(count, " ")
    return (text + _fill(count - len(text), fill))[: max(count, 0)]


def _find(text: Value, part: Value, rows: int) -> Value:
    constant = isinstance(part, pa.Scalar) and part.is_valid and not isinstance(text, pa.Scalar)
    if constant and pc.all(pc.string_is_ascii(text)).as_py() is not False:
        return pc.cast(pc.add(pc.find_substring(text, part.as_py()), 1), pa.int32())
    return by_row(lambda s, p: s.find(p) + 1, [text, part], rows, pa.int32(), "strpos")


@scalar(
    "strpos(STRING, STRING) -> INT",
    description="where the second first occurs in the first, or 0",
    aliases=("instr",),
)
def _strpos(values: Sequence[Value], rows: int) -> Value:
    return _find(values[0], values[1], rows)


@define("position(STRING, STRING[, BIGINT]) -> INT", description="where the first first occurs in the second (from a position on), or 0",
        aliases=("locate", "charindex"))  # fmt: skip
def _position(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if len(types) == 2:
        return lambda values, rows: _find(values[1], values[0], rows)
    return lambda values, rows: by_row(
        lambda part, s, start: s.find(part, max(start - 1, 0)) + 1 if start > 0 else 0,
        values,
        rows,
        returns,
        "position",
    )


def _split_part(text: str, delimiter: str, number: int) -> str:
    if number == 0:
        raise ValueFault(BAD_VALUE, "parts are numbered from 1 (or from the end by -1)")
    parts = text.split(delimiter) if delimiter else [text]
    place = number - 1 if number > 0 else len(parts) + number
    return parts[place] if 0 <= place < len(parts) else ""


@define(
    "split_part(STRING, STRING, BIGINT) -> STRING",
    description="the n-th part (from 1; -1 is the last), or ''",
    can_fail=True,
)
def _split_part_builder(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    delimiter, number = text_constant(literals, 1), number_constant(literals, 2)
    if delimiter and number is not None and 0 < number < 2**31:
        return lambda values, rows: text_scan.split_part(
            broadcast(values[0], rows), delimiter, number - 1, missing_null=False
        )
    return lambda values, rows: by_row(_split_part, values, rows, returns, "split_part")


def _split_index(text: str, delimiter: str, index: int) -> str | None:
    parts = text.split(delimiter) if delimiter else [text]
    return parts[index] if 0 <= index < len(parts) else None


@define("split_index(STRING, STRING, BIGINT) -> STRING", description="the part at an index from 0, or NULL")
def _split_index_builder(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    delimiter, index = text_constant(literals, 1), number_constant(literals, 2)
    if delimiter and index is not None and 0 <= index < 2**31:
        return lambda values, rows: text_scan.split_part(
            broadcast(values[0], rows), delimiter, index, missing_null=True
        )
    return lambda values, rows: by_row(_split_index, values, rows, returns, "split_index")


@define("split(STRING, STRING) -> ARRAY<STRING>", description="the parts between delimiters",
        aliases=("string_split", "str_split", "string_to_array", "split_to_array"))  # fmt: skip
def _split(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    delimiter = text_constant(literals, 1)
    if delimiter:
        return lambda values, rows: pc.split_pattern(values[0], delimiter)
    return lambda values, rows: by_row(
        lambda s, d: s.split(d) if d else list(s), values, rows, returns, "split"
    )


@row("initcap(STRING) -> STRING", description="each word with a capital first letter")
def _initcap(text: str) -> str:
    return re.sub(r"[^\W_]+", lambda m: m[0][0].upper() + m[0][1:].lower(), text)


@row(
    "ascii(STRING) -> INT",
    description="the code point of the first character; 0 for ''",
    aliases=("unicode", "ord"),
)
def _ascii(text: str) -> int:
    return ord(text[0]) if text else 0


@row("chr(BIGINT) -> STRING", description="the character of a code point", aliases=("char",), can_fail=True)
def _chr(code: int) -> str:
    if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
        raise ValueFault(BAD_VALUE, f"{code} is no character")
    return chr(code)


def _define_match(
    name: str,
    quick: Callable[[Value, str], Value],
    test: Callable[[str, str], bool],
    description: str,
    *aliases: str,
) -> None:
    @define(f"{name}(STRING, STRING) -> BOOLEAN", description=description, aliases=aliases)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        part = text_constant(literals, 1)
        if part is not None:
            return lambda values, rows: quick(values[0], part)
        return lambda values, rows: by_row(test, values, rows, returns, name)


_define_match(
    "starts_with",
    pc.starts_with,
    str.startswith,
    "whether the first begins with the second",
    "startswith",
    "prefix",
    "^@",
)
_define_match(
    "ends_with", pc.ends_with, str.endswith, "whether the first ends with the second", "endswith", "suffix"
)


@row(
    "translate(STRING, STRING, STRING) -> STRING",
    description="each character of the second replaced by its partner in the third",
)
def _translate(text: str, source: str, target: str) -> str:
    table: dict[int, str | None] = {}
    for position, character in enumerate(source):
        table.setdefault(ord(character), target[position] if position < len(target) else None)
    return text.translate(table)


@row(
    "overlay(STRING, STRING, BIGINT[, BIGINT]) -> STRING",
    description="the text with characters from a position on replaced",
    can_fail=True,
)
def _overlay(text: str, new: str, start: int, length: int | None = None) -> str:
    if start < 1:
        raise ValueFault(BAD_VALUE, f"negative start {start}")
    width = len(new) if length is None else length
    return text[: start - 1] + new + text[max(start - 1 + width, 0) :]


@define("count_char(STRING, STRING) -> BIGINT", description="how often a character occurs in the text")
def _count_char(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    character = text_constant(literals, 1)
    if character is not None and len(character) == 1 and character.isascii():
        byte = ord(character)
        return lambda values, rows: text_scan.count_byte(broadcast(values[0], rows), byte)
    return lambda values, rows: by_row(
        lambda s, c: s.count(c) if c else 0, values, rows, returns, "count_char"
    )


@row(
    "levenshtein(STRING, STRING) -> BIGINT",
    description="how many edits lie between two texts",
    aliases=("edit_distance", "editdist3"),
)
def _levenshtein(left: str, right: str) -> int:
    before = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        now = [i]
        for j, b in enumerate(right, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (a != b)))
        before = now
    return before[-1]


def _bind_format(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    return (
        ((sql.STRING,) * len(types), sql.STRING)
        if types and (sql.is_string(types[0]) or pa.types.is_null(types[0]))
        else None
    )


@define("format(STRING, ANY...) -> STRING", description="a template whose %s, %L (quoted) and %I (name) are filled in",
        bind=_bind_format, can_fail=True, null_propagating=False)  # fmt: skip
def _format(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def fill(template: str | None, *items: str | None) -> str | None:
        if template is None:
            return None
        rest = list(items)

        def one(found: re.Match[str]) -> str:
            if found[0] == "%%":
                return "%"
            number = int(found[1]) - 1 if found[1] else None
            if (
                found[2] not in "sLI"
                or (number is None and not rest)
                or (number is not None and number >= len(items))
            ):
                raise ValueFault(BAD_VALUE, f"no argument for {found[0]!r} in {template!r}")
            item = rest.pop(0) if number is None else items[number]
            if found[2] == "L":
                return "NULL" if item is None else "'" + item.replace("'", "''") + "'"
            if found[2] == "I":
                plain = item is not None and re.fullmatch(r"[a-z_][a-z0-9_]*", item)
                return str(item) if plain else '"' + (item or "").replace('"', '""') + '"'
            return item or ""

        return re.sub(r"%(?:%|(?:(\d+)\$)?(.))", one, template)

    return lambda values, rows: by_row(fill, values, rows, returns, "format", nulls=True)
