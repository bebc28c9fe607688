"""Arrays that grow where they are keep what they hold, and give their memory back."""

import numpy as np
import pytest

from millrace.state.columns import SlotColumn
from millrace.state.growth import capacity_for, extended


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.uint64, np.float64])
def test_a_growing_array_keeps_its_values_and_is_zero_behind_them(dtype: type) -> None:
    array = np.ones(100, dtype)
    for size in (200, 300_000, 300_100, 1_000_000, 9_000_000):
        known = len(array)
        array = extended(array, size)
        assert len(array) == size and array.dtype == dtype
        assert array[:known].all() and not array[known:].any()
        array[:] = 1


def test_small_steps_once_it_is_large() -> None:
    assert capacity_for(65, 64) == 128
    assert capacity_for(10_000_001, 10_000_000) == 11_250_000
    assert capacity_for(300, 64) == 300


def test_a_view_of_a_column_outlives_its_growth() -> None:
    column = SlotColumn(np.int64, fill=-1)
    column.grow(400_000)
    column.values[:] = 7
    view = column.values[:1000]
    column.grow(40_000_000)
    column.values[:] = 8
    assert (view == 7).all()
    assert column.values[-1] == 8


def test_memory_comes_back() -> None:
    def mapped() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = mapped()
    for _ in range(20):
        extended(extended(np.ones(10, np.int64), 1_000_000), 4_000_000)[:] = 1
    assert mapped() - before < 64 << 20
