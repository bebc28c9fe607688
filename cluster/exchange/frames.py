"""What travels on an exchange: rows, watermarks, idleness and barriers, each numbered. Opens no connection."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa

from millrace.errors import Corrupt
from millrace.operators.batch import Batch

_HEAD = struct.Struct("<BqqqB")
_WEIGHTS, _MARKS = 1, 2


class Kind(IntEnum):
    """What a frame is."""

    ROWS = 0
    WATERMARK = 1
    BARRIER = 2
    IDLE = 3


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One thing on a channel; `value` is a watermark (µs), a checkpoint number, or 1 for idle and 0 for not; `batch` has rows."""

    kind: Kind
    value: int = 0
    batch: Batch | None = None

    @property
    def size(self) -> int:
        """Bytes that it holds in memory, about."""
        return 64 if self.batch is None else int(self.batch.data.nbytes) + 64


def encode_head(frame: Frame, epoch: int, sequence: int) -> bytes:
    """The metadata that goes with a frame: epoch of the sender, number on the channel, weights and row watermarks."""
    weights = marks = b""
    flags = 0
    if frame.batch is not None and frame.batch.weights is not None:
        weights = frame.batch.weights.tobytes()
        flags |= _WEIGHTS
    if frame.batch is not None and frame.batch.row_watermarks is not None:
        marks = frame.batch.row_watermarks.tobytes()
        flags |= _MARKS
    return _HEAD.pack(frame.kind, epoch, sequence, frame.value, flags) + weights + marks


def decode_frame(head: memoryview, data: pa.RecordBatch | None, epoch: int, sequence: int) -> Frame:
    """The frame that was sent; raises `Corrupt` where it is not number `sequence` of an owner under `epoch`."""
    kind, found_epoch, found, value, flags = _HEAD.unpack_from(head)
    if (found_epoch, found) != (epoch, sequence):
        raise Corrupt(
            f"an exchange delivered frame {found} of epoch {found_epoch} instead of {sequence} of {epoch}",
            code="MR5030",
            hint="the partitions start again from the last checkpoint",
        )
    if kind != Kind.ROWS:
        return Frame(Kind(kind), value)
    assert data is not None
    place = _HEAD.size
    arrays = []
    for flag in (_WEIGHTS, _MARKS):
        array = None
        if flags & flag:
            array = np.frombuffer(head, np.int64, data.num_rows, place)
            place += array.nbytes
        arrays.append(array)
    return Frame(Kind.ROWS, 0, Batch(data, *arrays))
