"""How long arrays grow: in small steps and where they are, so that no call waits for a copy of all. Keeps no array."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_DOUBLED = 1 << 16
_MAPPED_BYTES = 1 << 20
_READ_WRITE, _PRIVATE_ANONYMOUS, _MAY_MOVE, _HUGE_PAGES = 3, 0x22, 1, 14
_FAILED = ctypes.c_void_p(-1).value


def capacity_for(need: int, size: int) -> int:
    """The length for an array of `size` that has to have `need`: twice as long while small, then an eighth longer."""
    return max(need, size * 2 if size < _DOUBLED else size + (size >> 3))


def extended(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The array with room for `size`; what is new holds 0. `array` and views of it must not be used any more.

    Large ones lie in pages of their own, which the kernel moves without copying them.
    """
    assert size >= len(array) and array.ndim == 1
    if size * array.itemsize < _MAPPED_BYTES or not sys.platform.startswith("linux"):
        longer: npt.NDArray[Any] = np.zeros(size, array.dtype)
        longer[: len(array)] = array
        return longer
    if isinstance(array.base, _Pages):
        return np.asarray(array.base.moved(size))
    longer = np.asarray(_Pages.mapped(size, array.dtype))
    longer[: len(array)] = array
    return longer


class _Pages:
    """Memory of one array, given back when nobody reads it any more."""

    def __init__(self, address: int, size: int, dtype: np.dtype[Any]) -> None:
        self._address = address
        self._size = size
        self._dtype = dtype
        self._bytes = size * dtype.itemsize
        _libc().madvise(address, self._bytes, _HUGE_PAGES)

    @classmethod
    def mapped(cls, size: int, dtype: np.dtype[Any]) -> _Pages:
        """Fresh pages, all 0."""
        found = _libc().mmap(None, size * dtype.itemsize, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
        return cls(_checked(found), size, dtype)

    def moved(self, size: int) -> _Pages:
        """The same pages and more; these here are no more."""
        found = _libc().mremap(self._address, self._bytes, size * self._dtype.itemsize, _MAY_MOVE)
        pages = _Pages(_checked(found), size, self._dtype)
        self._address = 0
        return pages

    @property
    def __array_interface__(self) -> dict[str, object]:
        data = (self._address, False)
        return {"version": 3, "shape": (self._size,), "typestr": self._dtype.str, "data": data}

    def __del__(self) -> None:
        if self._address:
            _libc().munmap(self._address, self._bytes)


def _checked(address: int | None) -> int:
    if address is None or address == _FAILED:
        raise MemoryError
    return address


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = library.mremap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    library.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library
