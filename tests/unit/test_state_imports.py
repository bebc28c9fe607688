"""State modules do not bring Numba in before a kernel is needed."""

from __future__ import annotations

import subprocess
import sys


def test_no_state_module_imports_numba() -> None:
    code = (
        "import sys, millrace.state.snapshot, millrace.state.columns, millrace.state.multimap\n"
        "from millrace.state.key_index import KeyIndex\n"
        "import pyarrow as pa\n"
        "KeyIndex([pa.string(), pa.list_(pa.int64())])\n"
        "assert 'numba' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
