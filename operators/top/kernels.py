"""Kernels of the bounded top-N: a few places a partition, in arrays. Imports Numba: import it when first needed."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def insert_rows(  # type: ignore[no-untyped-def]
    slots, codes, first, places, counts, numbers, kept_codes, marks, touched, old_counts, old_numbers
):
    """Put rows where they belong among the first `places` of their slot; answers how many slots changed.

    `codes` is rows by codes; row i is numbered `first` + i for now. What a changed slot (listed in `touched`)
    had before goes to `old_counts` and `old_numbers`; `marks` is 0 for slots that did not change.
    """
    width = codes.shape[1]
    changed = 0
    for i in range(len(slots)):
        slot = slots[i]
        base = slot * places
        count = counts[slot]
        if count == places:
            # Of equal rows the first to arrive stays.
            worst = base + places - 1
            better = False
            for c in range(width):
                if codes[i, c] != kept_codes[worst, c]:
                    better = codes[i, c] < kept_codes[worst, c]
                    break
            if not better:
                continue
        if marks[slot] == 0:
            touched[changed] = slot
            old_counts[changed] = count
            for j in range(count):
                old_numbers[changed, j] = numbers[base + j]
            changed += 1
            marks[slot] = changed
        at = base + min(count, places - 1)
        while at > base:
            less = False
            for c in range(width):
                if codes[i, c] != kept_codes[at - 1, c]:
                    less = codes[i, c] < kept_codes[at - 1, c]
                    break
            if not less:
                break
            numbers[at] = numbers[at - 1]
            for c in range(width):
                kept_codes[at, c] = kept_codes[at - 1, c]
            at -= 1
        numbers[at] = first + i
        for c in range(width):
            kept_codes[at, c] = codes[i, c]
        if count < places:
            counts[slot] = count + 1
    return changed


@njit(cache=True, nogil=True)
def mark_kept(touched, first, places, counts, numbers, marks, kept):  # type: ignore[no-untyped-def]
    """Set `kept` for the new rows that are among the first of changed slots, and clear these slots' marks."""
    for t in range(len(touched)):
        slot = touched[t]
        marks[slot] = 0
        for at in range(slot * places, slot * places + counts[slot]):
            if numbers[at] >= first:
                kept[numbers[at] - first] = 1


@njit(cache=True, nogil=True)
def renumber(touched, first, places, counts, numbers, given):  # type: ignore[no-untyped-def]
    """Give new rows of changed slots the numbers `given` to them."""
    for t in range(len(touched)):
        slot = touched[t]
        for at in range(slot * places, slot * places + counts[slot]):
            if numbers[at] >= first:
                numbers[at] = given[numbers[at] - first]


@njit(cache=True, nogil=True)
def evicted(touched, first, places, counts, numbers, old_counts, old_numbers, out):  # type: ignore[no-untyped-def]
    """Numbers of the rows that changed slots had and have no more; answers how many.

    Those that stay keep their order, and new ones are numbered from `first` on.
    """
    found = 0
    for t in range(len(touched)):
        at = touched[t] * places
        end = at + counts[touched[t]]
        for j in range(old_counts[t]):
            while at < end and numbers[at] >= first:
                at += 1
            if at < end and numbers[at] == old_numbers[t, j]:
                at += 1
            else:
                out[found] = old_numbers[t, j]
                found += 1
    return found


@njit(cache=True, nogil=True)
def moved(  # type: ignore[no-untyped-def]
    touched, places, counts, numbers, old_counts, old_numbers, out_numbers, out_places, in_numbers, in_places
):
    """(number, place) that no longer holds, and that holds now, of changed slots; answers how many of each."""
    out = 0
    into = 0
    for t in range(len(touched)):
        slot = touched[t]
        base = slot * places
        for j in range(counts[slot]):
            was = j < old_counts[t]
            if was and old_numbers[t, j] == numbers[base + j]:
                continue
            if was:
                out_numbers[out] = old_numbers[t, j]
                out_places[out] = j + 1
                out += 1
            in_numbers[into] = numbers[base + j]
            in_places[into] = j + 1
            into += 1
    return out, into
