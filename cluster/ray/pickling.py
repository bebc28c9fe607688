"""Functions of users as bytes, by value: with the modules they are from, which other nodes do not have. Calls none."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from ray import cloudpickle

from millrace.errors import Invalid

_INSTALLED = tuple(
    str(Path(path).resolve())
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def pickled(name: str, body: Callable[..., object]) -> bytes:
    """The function (or class) and all of its own modules; packages that are installed are only named.

    Raises Invalid MR1391 where something it holds can't be pickled.
    """
    own = [module for module in list(sys.modules.values()) if _is_own(module)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        data: bytes = cloudpickle.dumps(body)
    except Exception as error:
        raise Invalid(
            f"function {name} can not be carried to the workers of a cluster: {type(error).__name__}: {error}",
            code="MR1391",
            hint="make what it holds (connections, locks, files) when it is called, not when it is defined",
        ) from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
    return data


def unpickled(data: bytes) -> Callable[..., object]:
    """What `pickled` was given."""
    body: Callable[..., object] = cloudpickle.loads(data)
    return body


def _is_own(module: object) -> bool:
    """Whether a module is neither ours nor installed, so that another node does not have it."""
    if not isinstance(module, ModuleType) or module.__name__ in ("__main__", "__mp_main__"):
        return False
    root = module.__name__.partition(".")[0]
    if root == "millrace" or root in sys.builtin_module_names:
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        # made by hand, such as those of functions whose source stands in SQL
        return getattr(module, "__spec__", None) is None and not hasattr(module, "__path__")
    return not str(Path(file).resolve()).startswith(_INSTALLED)
