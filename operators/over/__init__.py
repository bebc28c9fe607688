"""OVER windows and row buffers: frames and specs. Imports no kernel until an operator is built."""

from millrace.operators.over.frames import (
    WINDOW_FUNCTIONS,
    BufferEmission,
    Frame,
    FrameUnit,
    needs_whole_partition,
    window_function_type,
)
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate

__all__ = [
    "WINDOW_FUNCTIONS",
    "BufferEmission",
    "Frame",
    "FrameUnit",
    "OverAggregate",
    "RowBufferAggregate",
    "needs_whole_partition",
    "window_function_type",
]
