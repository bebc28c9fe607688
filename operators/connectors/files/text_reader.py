"""Reads one file of text records block by block, from a byte offset, as it grows if asked to."""

from __future__ import annotations

from collections.abc import Callable

from millrace.operators.batch import Batch
from millrace.operators.connectors.files.compression import PlainStream
from millrace.operators.connectors.files.storage import ByteStream, Storage
from millrace.operators.formats.csv_lines import header_names
from millrace.operators.formats.lines import LineDecoder
from millrace.operators.formats.records import (
    CORRUPT_BLOCK,
    PAYLOAD_BYTES_MAX,
    REWRITTEN,
    TOO_LONG,
    BadRow,
    Decoded,
    RecordError,
)
from millrace.operators.source import BadRecord, Polled, Position, SplitReader

RECORD_BYTES_MAX = 16 << 20
"""A record longer than this is bad; it is passed over without being held."""
_BLOCK_BYTES_MIN = 64 << 10
_BLOCK_BYTES_MAX = 8 << 20
_BOM = b"\xef\xbb\xbf"

DecoderFactory = Callable[["list[str] | None"], LineDecoder]
"""Makes the decoder of a file; takes the names in its header, or None."""


class TextReader(SplitReader):
    """Rows of one file of records.

    The position is the offset of a block in the (decompressed) file and how many of the rows and bad records from
    there on were given out. It does not depend on how blocks are cut: decoding from an offset gives the same rows
    and the same bad records in the same order.
    """

    def __init__(
        self,
        split: str,
        storage: Storage,
        codec: str | None,
        decoder: DecoderFactory,
        *,
        header: bool,
        follow: bool,
        ready: Callable[[], bool],
        position: Position | None,
    ) -> None:
        self.split = split
        self._storage = storage
        self._codec = codec
        self._new_decoder = decoder
        self._header = header
        self._follow = follow and codec is None
        self._ready = ready
        at = position or {}
        self._offset = int(at.get("offset", 0))
        self._line = int(at.get("line", 1))
        self._skip_rows = int(at.get("rows", 0))
        self._skip_bad = int(at.get("bad", 0))
        self._identity = str(at.get("identity", ""))
        self._decoder: LineDecoder | None = None
        self._stream: ByteStream | None = None
        self._buffer = b""
        self._block: Decoded | None = None
        self._block_bytes = self._block_lines = 0
        self._rows_taken = self._bad_taken = 0
        self._row_bytes = 64.0
        self._too_long = bool(at.get("passing", 0))
        self._waiting = False
        self._ended = False
        self._notices: list[BadRecord] = []

    @property
    def ended(self) -> bool:
        return self._ended and self._block is None and not self._notices

    @property
    def position(self) -> Position:
        at: Position = {"offset": self._offset, "line": self._line}
        rows, bad = self._rows_taken + self._skip_rows, self._bad_taken + self._skip_bad
        if rows:
            at["rows"] = rows
        if bad:
            at["bad"] = bad
        if self._too_long:
            at["passing"] = 1
        if self._follow and self._identity:
            at["identity"] = self._identity
        return at

    def poll(self, max_rows: int) -> Polled | None:
        if self._block is None and not self._ended:
            if self._waiting and not self._ready():
                return None
            self._waiting = False
            self._next_block(max_rows)
        bad = self._notices
        self._notices = []
        block = self._block
        if block is None:
            return Polled(None, bad) if bad else None
        bad += self._take_bad(block)
        batch = self._take_rows(block, max_rows)
        if self._rows_taken >= block.batch.num_rows:
            self._leave_block()
        if batch is None and not bad:
            return None if self._ended else Polled(None)
        return Polled(batch, bad)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _take_bad(self, block: Decoded) -> list[BadRecord]:
        left = block.bad[self._bad_taken :]
        skipped = min(self._skip_bad, len(left))
        self._skip_bad -= skipped
        self._bad_taken = len(block.bad)
        return [self._record(row) for row in left[skipped:]]

    def _record(self, row: BadRow) -> BadRecord:
        where = f"line {self._line + row.line}, offset {self._offset + row.offset}"
        return BadRecord(row.code, row.reason, self.split, where, row.payload)

    def _take_rows(self, block: Decoded, max_rows: int) -> Batch | None:
        rows = block.batch.num_rows
        skipped = min(self._skip_rows, rows - self._rows_taken)
        self._skip_rows -= skipped
        self._rows_taken += skipped
        count = min(max_rows, rows - self._rows_taken)
        if count <= 0:
            return None
        batch = block.batch if count == rows else block.batch.slice(self._rows_taken, count)
        self._rows_taken += count
        return batch

    def _leave_block(self) -> None:
        self._offset += self._block_bytes
        self._line += self._block_lines
        self._rows_taken = self._bad_taken = 0
        self._block = None

    def _next_block(self, max_rows: int) -> None:
        if self._decoder is None and not self._prepare():
            return
        assert self._decoder is not None
        want = int(min(max(self._row_bytes * max_rows * 0.97, _BLOCK_BYTES_MIN), _BLOCK_BYTES_MAX))
        while True:
            chunk = self._read(want - len(self._buffer)) if want > len(self._buffer) else b""
            final = not chunk and want > len(self._buffer)
            data = self._buffer + chunk if self._buffer else chunk
            self._buffer = b""
            if self._too_long:
                data = self._pass_over(data, final)
            size = self._decoder.complete(data)
            if final and not self._follow:
                size = len(data)
            if size:
                self._buffer = data[size:]
                self._decode(data[:size])
                return
            self._buffer = data
            if final:
                self._at_end()
                return
            if len(data) >= RECORD_BYTES_MAX:
                self._give_up(data)
            want = max(want, min(len(self._buffer) * 2, RECORD_BYTES_MAX)) if self._buffer else want

    def _decode(self, block: bytes) -> None:
        assert self._decoder is not None
        self._block = self._decoder.decode(block)
        self._block_bytes = len(block)
        self._block_lines = block.count(b"\n")
        if self._block.batch.num_rows:
            self._row_bytes = max(1.0, len(block) / self._block.batch.num_rows)

    def _give_up(self, data: bytes) -> None:
        """The record that begins here is longer than any may be: report it and pass over the rest of its line."""
        newline = data.find(b"\n")
        size = newline + 1 if newline >= 0 else len(data)
        reason = f"record is longer than {RECORD_BYTES_MAX} bytes"
        if self._skip_bad:
            self._skip_bad -= 1
        else:
            where = f"line {self._line}, offset {self._offset}"
            self._notices.append(BadRecord(TOO_LONG, reason, self.split, where, data[:PAYLOAD_BYTES_MAX]))
        self._buffer = data[size:]
        self._offset += size
        self._too_long = newline < 0
        self._line += newline >= 0

    def _pass_over(self, data: bytes, final: bool) -> bytes:
        newline = data.find(b"\n")
        if newline < 0:
            self._offset += len(data)
            return b""
        self._too_long = False
        self._offset += newline + 1
        self._line += 1
        return data[newline + 1 :]

    def _at_end(self) -> None:
        if not self._follow:
            self._ended = True
            self.close()
            return
        self._waiting = True
        state = self._storage.state(self.split)
        if state is None:
            return
        read = self._offset + len(self._buffer)
        if state.size < read or (self._identity and state.identity != self._identity):
            self._start_over(state.identity, state.size, read)

    def _start_over(self, identity: str, size: int, read: int) -> None:
        assert self._decoder is not None
        how = f"has only {size} bytes, {read} were read" if size < read else "was replaced by another file"
        reason = f"the file {how}; it is read again from its start"
        self._notices.append(
            BadRecord(REWRITTEN, reason, self.split, f"offset {read}", self._buffer[:PAYLOAD_BYTES_MAX])
        )
        self.close()
        self._buffer = b""
        self._identity = identity
        self._offset, self._line = 0, 1
        self._skip_rows = self._skip_bad = 0
        self._decoder = None
        self._waiting = False

    def _prepare(self) -> bool:
        """Open the file, read its header if it has one, and go to the offset; False where it must be waited for."""
        state = self._storage.state(self.split)
        if self._follow and state is not None:
            self._check_identity(state.size, state.identity)
        elif state is not None and self._codec is None and state.size < self._offset:
            reason = f"the file has only {state.size} bytes, {self._offset} were read before"
            self._notices.append(BadRecord(REWRITTEN, reason, self.split, f"offset {self._offset}", b""))
            self._ended = True
            return False
        self._stream = self._open(0)
        found = self._read_header() if self._header else (None, self._bom(), 0)
        self.close()
        if found is None:
            return False
        names, begin, lines = found
        self._decoder = self._new_decoder(names)
        if self._offset < begin:
            self._line += lines
            self._offset = begin
        self._stream = self._open(self._offset)
        return True

    def _check_identity(self, size: int, identity: str) -> None:
        changed = self._identity and identity != self._identity
        if size < self._offset or changed:
            read = self._offset
            self._decoder = self._new_decoder([])
            self._start_over(identity, size, read)
        self._identity = identity

    def _bom(self) -> int:
        return len(_BOM) if self._read(3) == _BOM else 0

    def _read_header(self) -> tuple[list[str] | None, int, int] | None:
        """Names in the header, offset and line at which the records begin; None where there is none (yet)."""
        probe = self._new_decoder([])
        data = b""
        while True:
            chunk = self._read(64 << 10)
            data += chunk
            starts, ends = probe.split(data)
            size = probe.complete(data)
            if len(starts) and (size > starts[0] or not chunk or len(data) > RECORD_BYTES_MAX):
                if not chunk and size <= starts[0] and self._follow:
                    self._waiting = True
                    return None
                break
            if not chunk:
                self._ended = not self._follow
                self._waiting = self._follow
                return None
        start, end = int(starts[0]), int(ends[0])
        newline = data.find(b"\n", end)
        begin = len(data) if newline < 0 else newline + 1
        lines = data.count(b"\n", 0, begin)
        try:
            return header_names(data[start:end], probe.layout), begin, lines
        except RecordError as error:
            if self._offset == 0:
                payload = data[start:end][:PAYLOAD_BYTES_MAX]
                self._notices.append(
                    BadRecord(error.code, error.reason, self.split, "line 1, offset 0", payload)
                )
            return [], begin, lines

    def _open(self, offset: int) -> ByteStream:
        if self._codec is None:
            return self._storage.open(self.split, offset)
        return PlainStream(self._storage.open(self.split), self._codec, offset)

    def _read(self, count: int) -> bytes:
        assert self._stream is not None
        if self._codec is None:
            return self._stream.read(count)
        try:
            return self._stream.read(count)
        except (OSError, EOFError, ValueError) as error:
            where = f"offset {self._offset + len(self._buffer)}"
            reason = f"compressed data is corrupt or ends too early: {error}"
            self._notices.append(BadRecord(CORRUPT_BLOCK, reason, self.split, where, b""))
            self._codec_failed()
            return b""

    def _codec_failed(self) -> None:
        self.close()
        self._stream = _Nothing()


class _Nothing:
    """A stream at its end."""

    def read(self, _count: int = -1, /) -> bytes:
        return b""

    def close(self) -> None:
        return
