"""Kernels over the bytes of CSV text. Imports Numba: import this module on first use only."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def record_ends(data, delimiter, quote, escape, limit, ends):  # type: ignore[no-untyped-def]
    """Write the end (after the newline) of every whole record of `data` to `ends`; returns how many, and a flag.

    The flag says that somewhere text follows a closing quote, or that the last record has an open quote.

    A quote opens a quoted field only at its start. A quoted field still open `limit` bytes after its record began
    is taken for a stray quote: the record ends at its first newline. `escape` is -1 where there is none.
    """
    size = len(data)
    i = start = count = 0
    at_start = True
    quoted = False
    stray = False
    while i < size:
        c = data[i]
        if quoted:
            if i - start > limit:
                i = start
                while i < size and data[i] != 10:
                    i += 1
                i += 1
                ends[count] = min(i, size)
                count += 1
                start = i
                at_start = True
                quoted = False
            elif c == escape:
                i += 2
            elif c == quote:
                if i + 1 < size and data[i + 1] == quote:
                    i += 2
                else:
                    quoted = False
                    i += 1
                    if i < size and data[i] != delimiter and data[i] != 10 and data[i] != 13:
                        stray = True
            else:
                i += 1
            continue
        if c == 10:
            ends[count] = i + 1
            count += 1
            start = i + 1
            at_start = True
        elif c == delimiter:
            at_start = True
        elif c == quote and at_start:
            quoted = True
            at_start = False
        else:
            if c == escape:
                i += 1
            at_start = False
        i += 1
    return count, stray or quoted
