"""The elements of JSON arrays, and the members of JSON objects, as rows. Texts are parsed one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from millrace.operators.expansion.functions import Body, Chosen, Fields, Made, Types, define
from millrace.operators.functions import types as sql
from millrace.operators.functions.json_paths import json_text, parse_json, scalar_text
from millrace.operators.functions.row_error import BAD_VALUE, RowError

_JSON = {b"sql_type": b"JSON"}
Text = Callable[[Any], str | None]


def _choose(fields: Fields, types: Sequence[pa.DataType], literals: Sequence[bool]) -> Chosen | None:
    return ((sql.STRING,), fields) if len(types) == 1 and sql.is_string(types[0]) else None


def _build(name: str, kind: type[Any], text: Text, types: Types, fields: Fields) -> Body:
    """Rows for the elements of a list, or key and value for the members of a dict; NULL and JSON null give none."""

    def body(values: Sequence[pa.Array], rows: int) -> Made:
        counts = np.zeros(rows, np.int64)
        keys: list[str] = []
        found: list[str | None] = []
        bad = np.zeros(rows, np.bool_)
        for row, item in enumerate(values[0].to_pylist()):
            document: Any = None if item is None else parse_json(item)
            if document is None:
                continue
            if not isinstance(document, kind):
                bad[row] = True
                continue
            counts[row] = len(document)
            if isinstance(document, dict):
                keys += document.keys()
                document = document.values()
            found += map(text, document)
        if bad.any():
            what = "array" if kind is list else "object"
            raise RowError(BAD_VALUE, f"{name}: the text is no JSON {what}", bad)
        made = [pa.array(found, sql.STRING)]
        return Made([pa.array(keys, sql.STRING), *made] if kind is dict else made, counts)

    return body


_VALUE = pa.field("value", sql.STRING)
_DOCUMENT = _VALUE.with_metadata(_JSON)
_KEY = pa.field("key", sql.STRING)
for _name, _kind, _text, _fields, _what in (
    ("json_array_elements", list, json_text, (_DOCUMENT,), "a row for each element of a JSON array, as JSON"),
    (
        "json_array_elements_text",
        list,
        scalar_text,
        (_VALUE,),
        "a row for each element of a JSON array, as text",
    ),
    (
        "json_each",
        dict,
        json_text,
        (_KEY, _DOCUMENT),
        "a row for each member of a JSON object: key, value as JSON",
    ),
    (
        "json_each_text",
        dict,
        scalar_text,
        (_KEY, _VALUE),
        "a row for each member of a JSON object: key, value as text",
    ),
):
    define(_name, f"{_name}(JSON)", _what, partial(_choose, _fields))(partial(_build, _name, _kind, _text))
