"""Compressed files as streams of what they hold."""

from __future__ import annotations

import pyarrow as pa

from millrace.operators.connectors.files.storage import ByteStream

_CODECS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".lz4": "lz4",
    ".br": "brotli",
}
NAMES = ("auto", "none", "gzip", "zstd", "bz2", "lz4", "brotli")


def codec_of(name: str, compression: str) -> str | None:
    """The codec of a file: as declared, or by the end of its name; None where it is not compressed."""
    if compression == "none":
        return None
    if compression != "auto":
        return compression
    return next((codec for end, codec in _CODECS.items() if name.lower().endswith(end)), None)


def plain_name(name: str) -> str:
    """The name without the ending of a codec."""
    end = next((end for end in _CODECS if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)]


class PlainStream:
    """Reads what a compressed stream holds. `read` raises OSError where it is corrupt or ends too early."""

    def __init__(self, stream: ByteStream, codec: str, offset: int) -> None:
        self._raw = pa.PythonFile(stream, mode="r")
        self._stream = pa.CompressedInputStream(self._raw, codec)
        self._skip = offset

    def read(self, count: int = -1, /) -> bytes:
        while self._skip > 0:
            passed = len(self._stream.read(min(self._skip, 1 << 20)))
            if passed == 0:
                self._skip = 0
                return b""
            self._skip -= passed
        return bytes(self._stream.read(count))

    def close(self) -> None:
        self._stream.close()
        self._raw.close()
