"""Kernels of the multimap: circular linked lists of entries by slot. Knows no row.

`tails[slot]` is the slot's last entry or -1, and `following` of that its first. `previous` is kept from the first
removal on; before, it is empty. A free entry has owner -1 and its `following` is the next free one.
"""

from __future__ import annotations

from numba import njit

from millrace.state.memory_kernels import signed
from millrace.state.words import Int32s, Int64s, Slots

LIVE, FREE, USED = range(3)
"""Places in `counts`: live entries, first free entry or -1, entries ever used."""


@njit(cache=True, nogil=True)
def insert(
    slots: Slots,
    tails: Int32s,
    sizes: Int32s,
    following: Int32s,
    previous: Int32s,
    owners: Int32s,
    counts: Int64s,
    entries: Int32s,
) -> None:
    """Append one entry to each row's slot; the arrays have room."""
    both_ways = previous.shape[0] > 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        entry = counts[FREE]
        if entry >= 0:
            counts[FREE] = following[entry]
        else:
            entry = counts[USED]
            counts[USED] = entry + 1
        owners[entry] = slot
        last = tails[slot]
        tails[slot] = entry
        if last < 0:
            following[entry] = entry
            last = entry
        else:
            head = following[last]
            following[last] = entry
            following[entry] = head
            if both_ways:
                previous[head] = entry
        if both_ways:
            previous[entry] = last
        sizes[slot] += 1
        entries[i] = entry
    counts[LIVE] += slots.shape[0]


@njit(cache=True, nogil=True)
def link_back(following: Int32s, previous: Int32s, owners: Int32s, used: int) -> None:
    """Fill `previous` from `following`."""
    for entry in range(used):
        if owners[entry] >= 0:
            previous[following[entry]] = entry


@njit(cache=True, nogil=True)
def remove(
    entries: Int32s,
    tails: Int32s,
    sizes: Int32s,
    following: Int32s,
    previous: Int32s,
    owners: Int32s,
    counts: Int64s,
) -> int:
    """Unlink entries; returns how many before one that is not live, or all."""
    for i in range(entries.shape[0]):
        entry = entries[i]
        if entry < 0 or entry >= counts[USED] or owners[entry] < 0:
            return i
        slot = owners[entry]
        after, before = following[entry], previous[entry]
        if after == entry:
            tails[slot] = -1
        else:
            following[before] = after
            previous[after] = before
            if tails[slot] == entry:
                tails[slot] = before
        sizes[slot] -= 1
        owners[entry] = -1
        following[entry] = counts[FREE]
        counts[FREE] = entry
        counts[LIVE] -= 1
    return entries.shape[0]


@njit(cache=True, nogil=True)
def matches(slots: Slots, sizes: Int32s) -> int:
    """How many entries the slots have in all; a slot below 0 or beyond the arrays has none."""
    total = 0
    for i in range(slots.shape[0]):
        slot = signed(slots[i])
        if slot >= 0 and slot < sizes.shape[0]:
            total += signed(sizes[slot])
    return total


@njit(cache=True, nogil=True)
def probe(
    slots: Slots, tails: Int32s, sizes: Int32s, following: Int32s, rows: Int32s, entries: Int32s
) -> None:
    """Expand each row into one pair for each entry of its slot, in order of insertion."""
    n = 0
    for i in range(slots.shape[0]):
        slot = signed(slots[i])
        if slot < 0 or slot >= sizes.shape[0]:
            continue
        entry = tails[slot]
        for _ in range(sizes[slot]):
            entry = following[entry]
            rows[n] = i
            entries[n] = entry
            n += 1


@njit(cache=True, nogil=True)
def live_entries(owners: Int32s, used: int, out: Int32s) -> None:
    """Entries that are live, in ascending order; `out` has room for exactly those."""
    n = 0
    for entry in range(used):
        if owners[entry] >= 0:
            out[n] = entry
            n += 1


@njit(cache=True, nogil=True)
def relink_free(owners: Int32s, following: Int32s, used: int, counts: Int64s) -> None:
    """Drop free entries at the end, and chain the others lowest first."""
    while used > 0 and owners[used - 1] < 0:
        used -= 1
    free = -1
    for back in range(used):
        entry = used - 1 - back
        if owners[entry] < 0:
            following[entry] = free
            free = entry
    counts[FREE] = free
    counts[USED] = used
