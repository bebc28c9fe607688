"""Kernels over the bytes of JSON lines. Imports Numba: import this module on first use only."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def value_spans(data, line_starts, line_ends, key, starts, ends):  # type: ignore[no-untyped-def]
    """Where the value of a top-level key stands in each line.

    `data` holds lines that are valid JSON objects, from `line_starts` to `line_ends`; `key` is the bytes of the key.
    Writes the bounds of the value as it is written to `starts` and `ends`, -1 where the key is missing; the last one
    counts where it stands twice.
    """
    width = len(key)
    for row in range(len(line_starts)):
        starts[row] = -1
        ends[row] = -1
        i = line_starts[row]
        end = line_ends[row]
        depth = 0
        wanted = False
        is_key = False
        begin = -1
        last = -1
        while i < end:
            c = data[i]
            if c == 34:
                first = i + 1
                i += 1
                while i < end and data[i] != 34:
                    i += 2 if data[i] == 92 else 1
                if depth == 1 and is_key:
                    is_key = False
                    wanted = i - first == width
                    j = 0
                    while wanted and j < width:
                        wanted = data[first + j] == key[j]
                        j += 1
                elif begin < 0 and wanted:
                    begin = first - 1
                last = i + 1
            elif c == 58:
                pass
            elif c == 123 or c == 91:
                if depth == 1 and wanted and begin < 0:
                    begin = i
                depth += 1
                is_key = depth == 1
                last = i + 1
            elif c == 125 or c == 93:
                depth -= 1
                if depth == 0 and begin >= 0:
                    starts[row] = begin
                    ends[row] = last
                    begin = -1
                last = i + 1
            elif c == 44 and depth == 1:
                if begin >= 0:
                    starts[row] = begin
                    ends[row] = last
                    begin = -1
                wanted = False
                is_key = True
            elif c > 32:
                if depth == 1 and wanted and begin < 0:
                    begin = i
                last = i + 1
            i += 1


@njit(cache=True, nogil=True)
def copy_pieces(data, starts, ends, target):  # type: ignore[no-untyped-def]
    """Write the pieces of `data` from `starts` to `ends` to `target`, one behind the other; -1 marks none."""
    at = 0
    for row in range(len(starts)):
        for i in range(starts[row], ends[row]):
            target[at] = data[i]
            at += 1
