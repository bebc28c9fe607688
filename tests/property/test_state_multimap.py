"""The multimap behaves like a dict from slot to a list of entries."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Bug
from millrace.state.multimap import Multimap

steps = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(st.integers(0, 130), max_size=60)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 1000), max_size=60)),
        st.tuples(st.just("probe"), st.lists(st.integers(-1, 400), max_size=20)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_multimap_equals_lists(script: list[tuple[str, list[int]]]) -> None:
    real = Multimap()
    model: dict[int, list[int]] = defaultdict(list)
    for kind, numbers in script:
        if kind == "insert":
            entries = real.insert(np.array(numbers, np.int32)).tolist()
            alive = {entry for held in model.values() for entry in held}
            assert len(set(entries)) == len(entries) and not alive & set(entries)
            for slot, entry in zip(numbers, entries, strict=True):
                model[slot].append(entry)
        elif kind == "remove":
            alive_list = [(slot, entry) for slot, held in sorted(model.items()) for entry in held]
            gone = list(dict.fromkeys(alive_list[n % len(alive_list)] for n in numbers)) if alive_list else []
            assert real.owners(np.array([entry for _, entry in gone], np.int32)).tolist() == [
                s for s, _ in gone
            ]
            real.remove(np.array([entry for _, entry in gone], np.int32))
            for slot, entry in gone:
                model[slot].remove(entry)
        else:
            slots = np.array(numbers, np.int32)
            rows, entries_found = real.probe(slots)
            pairs = [(row, entry) for row, slot in enumerate(numbers) for entry in model.get(slot, [])]
            assert list(zip(rows.tolist(), entries_found.tolist(), strict=True)) == pairs
            assert real.sizes(slots).tolist() == [len(model.get(slot, [])) for slot in numbers]
        everything = sorted(entry for held in model.values() for entry in held)
        assert real.live().tolist() == everything
        assert len(real) == len(everything)
        assert real.high > max(everything, default=-1)


def test_memory_follows_what_lives() -> None:
    real = Multimap()
    entries = real.insert(np.zeros(100_000, np.int32))
    full = real.nbytes
    real.remove(entries[100:])
    assert real.high == 100
    assert real.nbytes < full / 20
    kept = real.probe(np.zeros(1, np.int32))[1]
    assert kept.tolist() == entries[:100].tolist()


def test_a_run_of_inserts_and_removals_stays_flat() -> None:
    real = Multimap()
    held = [real.insert(np.arange(1000, dtype=np.int32)) for _ in range(3)]
    for _ in range(50):
        real.remove(held.pop(0))
        held.append(real.insert(np.arange(1000, dtype=np.int32)))
    assert real.high <= 3000


def test_removing_a_free_entry_is_a_bug() -> None:
    real = Multimap()
    entries = real.insert(np.zeros(2, np.int32))
    real.remove(entries[:1])
    for wrong in (entries[:1], np.array([7]), np.array([-1])):
        with pytest.raises(Bug, match="not live"):
            real.remove(wrong)
