"""Millrace: streaming SQL, exactly once, embedded or on a Ray cluster.

Names are resolved on first use, so that `import millrace` stays cheap and the floors below can
import `millrace.errors` without dragging in the front door.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.database import Database, connect
    from millrace.errors import MillraceError
    from millrace.submitting import submit

__all__ = ["Database", "MillraceError", "connect", "submit"]
__version__ = "0.1.0"

_HOMES = {
    "Database": "millrace.database",
    "MillraceError": "millrace.errors",
    "connect": "millrace.database",
    "submit": "millrace.submitting",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'millrace' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
