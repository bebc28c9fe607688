"""Small records as checked bytes: mark, kind, version, checksum, msgpack. Knows no record."""

from __future__ import annotations

import hashlib
from typing import Any

import msgpack

from millrace.errors import Corrupt

_MAGIC = b"MRREC1\n"
_HINT = "restore an older checkpoint"


def seal(kind: str, version: int, content: object) -> bytes:
    """`content` (numbers, text, bytes, lists) as bytes that say what they are and whether they are whole."""
    body = msgpack.packb([kind, version, content])
    assert body is not None
    return _MAGIC + _checksum(body) + body


def unseal(kind: str, versions: range, data: bytes, name: str) -> tuple[int, Any]:
    """Version and content of sealed bytes; raises `Corrupt` naming the object where they are not that."""
    start = len(_MAGIC) + 16
    if len(data) < start or data[: len(_MAGIC)] != _MAGIC:
        raise Corrupt(
            f"{name} has {len(data)} bytes and is not a {kind}: cut short or something else",
            code="MR5011",
            hint=_HINT,
        )
    body = data[start:]
    if _checksum(body) != data[len(_MAGIC) : start]:
        raise Corrupt(f"{name} does not match its checksum", code="MR5012", hint=_HINT)
    found, version, content = msgpack.unpackb(body, strict_map_key=False, use_list=False)
    if found != kind:
        raise Corrupt(f"{name} is a {found}, not a {kind}", code="MR5013", hint=_HINT)
    if version not in versions:
        raise Corrupt(
            f"{name} was written as version {version} of a {kind}; up to {versions.stop - 1} is read here",
            code="MR5014",
            hint="run the version of Millrace that wrote it, or a later one",
        )
    return int(version), content


def checksum(data: bytes) -> bytes:
    """The checksum of an object's bytes, 16 bytes of BLAKE2b, as references to it hold."""
    return _checksum(data)


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
