"""Scans of string arrays by kernels: counting, splitting, and regular expressions that are no more than that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.functions.buffers import validity


@lru_cache(maxsize=1)
def _kernels() -> ModuleType:
    # Deferred: Numba takes long to import, and this module is imported with the front door.
    from millrace.operators.functions import text_kernels

    return text_kernels


def _views(text: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    _, offsets, data = text.buffers()
    if offsets is None or len(text) == 0:
        return np.zeros(len(text) + 1, np.int32), np.zeros(0, np.uint8)
    numbers = np.frombuffer(offsets, np.int32, len(text) + 1 + text.offset)[text.offset :]
    return numbers, np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


def count_byte(text: pa.Array, byte: int) -> pa.Array:
    """How often an ASCII character occurs in each string."""
    offsets, data = _views(text)
    out = np.empty(len(text), np.int64)
    _kernels().count_byte(offsets, data, np.uint8(byte), out)
    return pa.Array.from_buffers(pa.int64(), len(text), [validity([text], len(text)), pa.py_buffer(out)])


def _extract(text: pa.Array, fill: Callable[..., int], *arguments: Any, missing_null: bool) -> pa.Array:
    offsets, data = _views(text)
    rows = len(text)
    out_offsets = np.zeros(rows + 1, np.int32)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    found = np.empty(rows, np.uint8)
    size = fill(offsets, data, *arguments, out_offsets, out, found)
    bitmap = validity([text], rows)
    if missing_null:
        here = np.packbits(found, bitorder="little")
        if bitmap is not None:
            here &= np.frombuffer(bitmap, np.uint8)[: len(here)]
        bitmap = pa.py_buffer(here)
    if 2 * size < len(out):
        out = out[:size].copy()
    return pa.Array.from_buffers(
        pa.string(), rows, [bitmap, pa.py_buffer(out_offsets), pa.py_buffer(out[:size])]
    )


def split_part(text: pa.Array, delimiter: str, index: int, *, missing_null: bool) -> pa.Array:
    """Part `index` (from 0); where there are fewer parts it is NULL or ''."""
    mark = delimiter.encode()
    if len(mark) == 1:
        return _extract(text, _kernels().split_byte, np.uint8(mark[0]), index, missing_null=missing_null)
    pattern = np.frombuffer(mark, np.uint8)
    return _extract(text, _kernels().split_bytes, pattern, index, missing_null=missing_null)


@dataclass(frozen=True, slots=True)
class Behind:
    """A regular expression of the form `(&|^)name=([^&]*)`: text behind a literal, up to certain characters."""

    literal: bytes
    before: bytes
    at_start: bool
    stops: bytes
    shortest: int
    group: int

    def extract(self, text: pa.Array) -> pa.Array:
        """The captured text of the first match in each string, NULL where there is none."""
        tables = [np.frombuffer(table, np.uint8) for table in (self.literal, self.before, self.stops)]
        literal, before, stops = tables
        return _extract(
            text,
            _kernels().extract_behind,
            literal,
            before,
            self.at_start,
            stops,
            self.shortest,
            missing_null=True,
        )


_SHAPE = re.compile(
    r"(?P<prefix>\((?:\?:)?(?P<choices>(?:\\?[^\\()\[\]]\|)*\\?[^\\()\[\]])\)|\[(?P<class>[^\]\\^-]+)\])?"
    r"(?P<literal>(?:[A-Za-z0-9_=:/&#@%,;<>!~\" '-]|\\[.?/=&:+*$|\[\](){}-])+)"
    r"\((?P<body>\[\^?(?:[^\]\\\[]|\\[dws.\-/?&])+\]|\\[dw]|\.)(?P<times>[*+])\)"
)


def recognise(pattern: str) -> Behind | None:
    """The scan that a regular expression amounts to, where it has that shape."""
    match = _SHAPE.fullmatch(pattern)
    if match is None or not pattern.isascii():
        return None
    before, at_start = np.ones(256, np.uint8), True
    if match["prefix"]:
        before, at_start = np.zeros(256, np.uint8), False
        marks = list(match["class"]) if match["class"] else match["choices"].split("|")
        for mark in marks:
            if mark == "^" and not match["class"]:
                at_start = True
            elif len(mark) == 1 and (match["class"] or mark not in ".$*+?^"):
                before[ord(mark)] = 1
            elif len(mark) == 2 and mark[1] in ".?$*+^|/&=-":
                before[ord(mark[1])] = 1
            else:
                return None
    stops = _stops(match["body"])
    if stops is None:
        return None
    capturing = bool(match["choices"]) and not match["prefix"].startswith("(?:")
    literal = re.sub(r"\\(.)", r"\1", match["literal"]).encode()
    return Behind(
        literal,
        before.tobytes(),
        at_start,
        stops.tobytes(),
        int(match["times"] == "+"),
        2 if capturing else 1,
    )


def _stops(body: str) -> npt.NDArray[np.uint8] | None:
    """The bytes that end a capture by a character class; None for classes that bytes can not decide."""
    stops = np.zeros(256, np.uint8)
    if body == ".":
        stops[ord("\n")] = 1
        return stops
    negated = body.startswith("[^")
    if negated and re.search(r"\\[dws]", body):
        return None
    if "[:" in body or (not negated and not body.isascii()):
        return None
    try:
        one = re.compile(body, re.ASCII)
    except re.error:
        return None
    for code in range(128):
        stops[code] = one.fullmatch(chr(code)) is None
    stops[128:] = 0 if negated else 1
    return stops
