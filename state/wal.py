"""An append-only log on local disk of what was handed over and can not be read again. Knows no row.

A log is a folder of segments, each named after its first entry. An entry is `<length><checksum><number>` and the
payload; numbers rise by one from 1. What `sync` has returned for is on disk. One process owns a log at a time.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO

from millrace.errors import Corrupt, Invalid, Unavailable

SEGMENT_BYTES = 64 << 20
"""A segment that has grown to this is followed by another, so that what is no longer needed can be removed."""
_MAGIC = b"MRWAL01\n"
_HEAD = struct.Struct("<IIQ")
_SUFFIX = ".wal"


class IngestLog:
    """The log in one folder. Every method may be called from any thread.

    Invariant: segments follow each other without a gap; only the last one may end in the middle of an entry, and
    such an end is cut off on opening: nobody was told that it was kept.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open or create. Raises Invalid MR1563 where another process owns it, Corrupt MR5031 or MR5032."""
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._owner = own(folder)
        try:
            self._next = self._recover()
            self._file = self._append_to_last()
        except BaseException:
            self._owner.close()
            raise
        self._synced = self._next - 1
        self._broken: OSError | None = None

    @property
    def next_number(self) -> int:
        """The number that the next entry gets."""
        with self._lock:
            return self._next

    def append(self, payload: bytes) -> int:
        """Add an entry and answer its number; it is durable after `sync`. Raises Unavailable MR3012."""
        with self._lock:
            self._check()
            if self._file.tell() >= self._segment_bytes:
                self._roll()
            number = self._next
            try:
                self._file.write(_HEAD.pack(len(payload), _checksum(number, payload), number))
                self._file.write(payload)
                self._file.flush()
            except OSError as error:
                raise self._failed(error) from error
            self._next = number + 1
            return number

    def sync(self, number: int | None = None) -> None:
        """Wait until entry `number` (all, without one) is on disk; threads that wait share a write."""
        with self._syncing:
            with self._lock:
                self._check()
                upto = self._next - 1
                if self._synced >= (upto if number is None else number):
                    return
                handle = os.dup(self._file.fileno())
            try:
                os.fsync(handle)
            except OSError as error:
                raise self._failed(error) from error
            finally:
                os.close(handle)
            with self._lock:
                self._synced = max(self._synced, upto)

    def read(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Entries from number `first` to the last one of now; raises Corrupt MR5033 where older ones are gone."""
        with self._lock:
            last = self._next - 1
        segments = self._segments()
        if first <= last and segments[0][0] > first:
            raise Corrupt(
                f"{self.folder} begins with entry {segments[0][0]:,}; entry {first:,} was removed",
                code="MR5033",
                hint="restore a later checkpoint",
            )
        ends = [*(begin for begin, _ in segments[1:]), last + 1]
        for (begin, path), end in zip(segments, ends, strict=True):
            if end <= first:
                continue
            for number, payload, _ in _entries(path, begin):
                if first <= number <= last:
                    yield number, payload

    def trim(self, keep_from: int) -> int:
        """Remove segments whose entries all have lower numbers; answers how many."""
        with self._lock:
            segments = self._segments()
            gone = [path for (_, path), (following, _) in pairwise(segments) if following <= keep_from]
            for path in gone:
                path.unlink()
            return len(gone)

    def close(self) -> None:
        """Write to disk what was appended, and let another process own the log."""
        with self._syncing, self._lock:
            if self._file.closed:
                return
            try:
                if self._broken is None:
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()
                self._owner.close()

    def _segments(self) -> list[tuple[int, Path]]:
        return sorted((int(path.stem), path) for path in self.folder.glob("*" + _SUFFIX))

    def _recover(self) -> int:
        """Check all segments; the number of the next entry."""
        number = 1
        segments = self._segments()
        for at, (first, path) in enumerate(segments):
            if at == 0:
                number = first
            if first != number:
                raise Corrupt(
                    f"{path} follows entry {number - 1:,}: a segment is missing",
                    code="MR5032",
                    hint="put it back, or restore a later checkpoint",
                )
            end = len(_MAGIC)
            try:
                for found, _, stop in _entries(path, first):
                    number, end = found + 1, stop
            except _Torn as torn:
                if at < len(segments) - 1:
                    raise Corrupt(
                        f"{path} ends in the middle of entry {number:,} at byte {torn.at:,}, and others follow",
                        code="MR5031",
                        hint="put the file back, or restore a later checkpoint",
                    ) from None
                end = torn.at
            if at == len(segments) - 1 and end < path.stat().st_size:
                with path.open("r+b") as file:
                    file.truncate(end)
                    os.fsync(file.fileno())
        return number

    def _append_to_last(self) -> IO[bytes]:
        segments = self._segments()
        if segments and segments[-1][1].stat().st_size >= len(_MAGIC):
            return segments[-1][1].open("ab")
        return self._create()

    def _create(self) -> IO[bytes]:
        file = (self.folder / f"{self._next:016d}{_SUFFIX}").open("wb")
        file.write(_MAGIC)
        file.flush()
        os.fsync(file.fileno())
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def _roll(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._synced = self._next - 1
            self._file.close()
            self._file = self._create()
        except OSError as error:
            raise self._failed(error) from error

    def _check(self) -> None:
        if self._broken is not None:
            raise self._failed(self._broken)
        if self._file.closed:
            raise Invalid(f"the log in {self.folder} is closed", code="MR1564", hint="open it again")

    def _failed(self, error: OSError) -> Unavailable:
        # After a failed write or fsync nobody knows what is on disk, so nothing more is promised.
        self._broken = error
        return Unavailable(
            f"the log in {self.folder} can not be written: {error.strerror or error}",
            code="MR3012",
            hint="make room or mend the disk, then open the database again",
        )


class _Torn(Exception):
    """A segment ends within an entry that begins at byte `at`."""

    def __init__(self, at: int) -> None:
        self.at = at


def _entries(path: Path, first: int) -> Iterator[tuple[int, bytes, int]]:
    """Number, payload and end (bytes) of each entry. Raises _Torn at a cut-off end, Corrupt MR5031 before it."""
    data = path.read_bytes()
    if len(data) < len(_MAGIC):
        raise _Torn(0)
    if not data.startswith(_MAGIC):
        raise _corrupt(path, 0, "it does not begin as a log does")
    at, number = len(_MAGIC), first
    while at < len(data):
        begin = at + _HEAD.size
        if begin > len(data):
            raise _Torn(at)
        length, checksum, found = _HEAD.unpack_from(data, at)
        end = begin + length
        payload = data[begin:end]
        if end > len(data) or checksum != _checksum(found, payload) or found != number:
            if _valid_entry_follows(data, at + 1, number):
                raise _corrupt(path, at, f"entry {number:,} does not match its checksum")
            raise _Torn(at)
        yield number, payload, end
        at, number = end, number + 1


def _valid_entry_follows(data: bytes, start: int, number: int) -> bool:
    """Whether a later entry stands behind a damaged one: then it is damage, not an unfinished write."""
    for later in range(number, number + 1024):
        mark = struct.pack("<Q", later)
        at = data.find(mark, start + 8)
        while at >= 0:
            length, checksum, _ = _HEAD.unpack_from(data, at - 8)
            payload = data[at + 8 : at + 8 + length]
            if len(payload) == length and checksum == _checksum(later, payload):
                return True
            at = data.find(mark, at + 1)
    return False


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QI", number, len(payload))))


def _corrupt(path: Path, at: int, what: str) -> Corrupt:
    return Corrupt(
        f"{path} is damaged at byte {at:,}: {what}",
        code="MR5031",
        hint="put the file back, or restore a later checkpoint",
    )


def own(folder: Path) -> IO[str]:
    """Make this process the only owner of `folder` until the answer is closed. Raises Invalid MR1563."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "owner").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise Invalid(
            f"{folder} belongs to {owner}",
            code="MR1563",
            hint="end that process first: two that take rows into one log would lose some",
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()}")
    file.flush()
    return file
