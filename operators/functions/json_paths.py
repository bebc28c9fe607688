"""JSON functions. Text is parsed once an array by Python's C parser and walked row by row.

`json_value`, `json_query` and `json_exists` take malformed text for nothing there (as SQL/JSON does by default);
the others make it a row error.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import by_row
from millrace.operators.functions.json_text import plain, to_json_text
from millrace.operators.functions.registry import Binding, Literals, Types, define
from millrace.operators.functions.row_error import BAD_VALUE, Body, Value, ValueFault

Step = str | int
_STEP = re.compile(r"""\.([^.\[\]"*]+)|\."([^"]*)"|\[(-?\d+)\]|\[['"]([^'"]*)['"]\]|(\.\*|\[\*\])""")
_MISSING = object()
_MALFORMED = object()


class _Number(float):
    """A JSON number with a point, which keeps the text it was written as."""

    __slots__ = ("text",)

    text: str

    def __init__(self, text: str) -> None:
        self.text = text


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_float=_Number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _MALFORMED


class _Documents:
    """Parsed documents by the identity of their array, as long as that lives."""

    def __init__(self) -> None:
        self._last: tuple[weakref.ref[Any], list[Any]] | None = None

    def of(self, text: pa.Array) -> list[Any]:
        """The parsed documents of `text`; None for NULL, a marker where malformed."""
        if self._last is not None and self._last[0]() is text:
            return self._last[1]
        documents = [None if item is None else _parse(item) for item in text.to_pylist()]
        self._last = (weakref.ref(text), documents)
        return documents


_DOCUMENTS = _Documents()


@lru_cache(maxsize=1024)
def parse_path(path: str) -> tuple[Step, ...]:
    """The steps of `$.a.b[0]`, `a.b` or `/a/b`. Raises ValueFault."""
    if path.startswith("/"):
        parts = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
        return tuple(int(part) if part.isdigit() else part for part in parts)
    body = re.sub(r"^(lax|strict)\s+", "", path.strip()).removeprefix("$")
    if body and body[0] not in ".[":
        body = "." + body
    steps: list[Step] = []
    position = 0
    while position < len(body):
        found = _STEP.match(body, position)
        if found is None or found[5]:
            raise ValueFault(BAD_VALUE, f"{path!r} is no path that can be followed")
        steps.append(
            int(found[3]) if found[3] is not None else next(g for g in found.groups()[:4] if g is not None)
        )
        position = found.end()
    return tuple(steps)


def follow(document: Any, steps: Sequence[Step]) -> Any:
    """What lies at the end of the steps, or the marker for nothing."""
    for step in steps:
        if isinstance(step, int) and isinstance(document, list):
            if not -len(document) <= step < len(document):
                return _MISSING
            document = document[step]
        elif isinstance(document, dict):
            document = document.get(str(step), _MISSING)
            if document is _MISSING:
                return _MISSING
        else:
            return _MISSING
    return document


def parse_json(text: str) -> Any:
    """The document as Python values; something that is none of JSON's where the text is malformed."""
    return _parse(text)


def scalar_text(value: Any) -> str | None:
    """A scalar as plain text, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, _Number):
        return value.text
    return json_text(value)


def json_text(value: Any) -> str:
    return value.text if isinstance(value, _Number) else to_json_text(value)


def _define(
    form: str, *forms: str, description: str, finish: Callable[[Any], Any], strict: bool, aliases: Sequence[str] = (),
    key: bool = False,
) -> None:  # fmt: skip
    name = form.partition("(")[0]

    @define(form, *forms, description=description, aliases=aliases, can_fail=True)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        def one(document: Any, path: str | int | None) -> Any:
            if document is _MALFORMED:
                if strict:
                    raise ValueFault(BAD_VALUE, "malformed JSON")
                return finish(_MISSING)
            steps = (
                ()
                if path is None
                else (path,)
                if isinstance(path, int) or (key and not _is_path(path))
                else parse_path(path)
            )
            return finish(follow(document, steps))

        def body(values: Sequence[Value], rows: int) -> Value:
            path = values[1] if len(values) > 1 else None
            return _over_documents(one, values[0], path, rows, returns, name)

        return body


def _is_path(path: str) -> bool:
    return path.startswith(("$", "/"))


def _over_documents(
    one: Callable[[Any, Any], Any],
    text: Value,
    path: Value | None,
    rows: int,
    returns: pa.DataType,
    name: str,
) -> Value:
    if isinstance(text, pa.Scalar):
        return by_row(
            lambda t, *p: one(_parse(t), p[0] if p else None),
            [text] if path is None else [text, path],
            rows,
            returns,
            name,
        )
    documents = _DOCUMENTS.of(text)
    places = pa.array(
        range(rows), mask=None if not text.null_count else text.is_null().to_numpy(zero_copy_only=False)
    )
    if path is None:
        return by_row(lambda place: one(documents[place], None), [places], rows, returns, name)
    return by_row(lambda place, p: one(documents[place], p), [places, path], rows, returns, name)


def _scalar_text(value: Any) -> str | None:
    if value is _MISSING or isinstance(value, (dict, list)):
        return None
    return scalar_text(value)


def _json(value: Any) -> str | None:
    return None if value is _MISSING else "null" if value is None else json_text(value)


def _json_or_none(value: Any) -> str | None:
    return json_text(value) if isinstance(value, (dict, list)) else None


def _any_text(value: Any) -> str | None:
    return None if value is _MISSING else scalar_text(value)


def _type_name(value: Any) -> str | None:
    if value is _MISSING:
        return None
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


_define("json_value(STRING, STRING) -> STRING", description="the scalar at a path as text, or NULL", finish=_scalar_text,
        strict=False, aliases=("json_extract_scalar",))  # fmt: skip
_define(
    "json_query(STRING, STRING) -> STRING",
    description="the object or array at a path as JSON, or NULL",
    finish=_json_or_none,
    strict=False,
)
_define("json_exists(STRING, STRING) -> BOOLEAN", description="whether there is something at a path",
        finish=lambda value: value is not _MISSING, strict=False)  # fmt: skip
_define("json_extract(STRING, STRING) -> STRING", "json_extract(STRING, BIGINT) -> STRING", description="what is at a path, as JSON",
        finish=_json, strict=True, aliases=("json_get", "->", "json_extract_path"), key=True)  # fmt: skip
_define("json_extract_string(STRING, STRING) -> STRING", "json_extract_string(STRING, BIGINT) -> STRING", description="what is at a path, as text",
        finish=_any_text, strict=True, aliases=("json_get_text", "->>", "json_extract_path_text", "get_json_object"), key=True)  # fmt: skip
_define("json_array_length(STRING[, STRING]) -> BIGINT", description="how many elements the array (at a path) has",
        finish=lambda value: len(value) if isinstance(value, list) else None if value is _MISSING else 0, strict=True,
        aliases=("json_length",))  # fmt: skip
_define("json_keys(STRING[, STRING]) -> ARRAY<STRING>", description="the keys of the object (at a path)",
        finish=lambda value: list(value) if isinstance(value, dict) else None, strict=True, aliases=("json_object_keys",))  # fmt: skip
_define("json_type(STRING[, STRING]) -> STRING", description="object, array, string, number, boolean or null",
        finish=_type_name, strict=True, aliases=("json_typeof",))  # fmt: skip


@define(
    "is_json(STRING) -> BOOLEAN", description="whether the text is JSON", aliases=("json_valid", "is json")
)
def _is_json(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: by_row(
        lambda text: _parse(text) is not _MALFORMED, values, rows, returns, "is_json"
    )


def _bind_pairs(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    good = len(types) % 2 == 0 and all(sql.is_string(t) for t in types[::2])
    return (tuple(types), sql.STRING) if good else None


@define("json_object(STRING, ANY, …) -> STRING", description="a JSON object of keys and values", bind=_bind_pairs,
        aliases=("json_build_object",), null_propagating=False, can_fail=True)  # fmt: skip
def _json_object(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def make(*items: Any) -> str:
        if any(key is None for key in items[::2]):
            raise ValueFault(BAD_VALUE, "a key of a JSON object is NULL")
        return to_json_text(dict(zip(items[::2], map(plain, items[1::2]), strict=True)))

    return lambda values, rows: _rows(make, values, rows, returns, "json_object")


def _rows(
    function: Callable[..., Any], values: Sequence[Value], rows: int, returns: pa.DataType, name: str
) -> Value:
    if not values:
        return pa.scalar(function(), returns)
    return by_row(function, values, rows, returns, name, nulls=True)


@define("json_array(ANY, …) -> STRING", description="a JSON array of the arguments", aliases=("json_build_array",),
        bind=lambda types, marks: (tuple(types), sql.STRING), null_propagating=False)  # fmt: skip
def _json_array(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: _rows(
        lambda *items: to_json_text([plain(item) for item in items]), values, rows, returns, "json_array"
    )


@define("to_json(ANY) -> STRING", description="the value as JSON", aliases=("json_string", "json_quote"))
def _to_json(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: by_row(to_json_text, values, rows, returns, "to_json")
