"""How long arrays grow: where they are, in small steps, so that no call waits for a copy of all. Keeps no array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_DOUBLED = 1 << 16


def capacity_for(need: int, size: int) -> int:
    """The length for an array of `size` that has to have `need`: twice as long while small, then an eighth longer."""
    return max(need, size * 2 if size < _DOUBLED else size + (size >> 3))


def extend(array: npt.NDArray[np.generic], size: int) -> None:
    """Make the array longer where it is; what is new holds 0. Nobody may hold a view of it.

    Memory that the C library gets from the kernel moves without being copied.
    """
    array.resize(size, refcheck=False)
