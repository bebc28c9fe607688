"""Digests, encodings of bytes, and parts of URLs; row by row in Python over C libraries."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from urllib.parse import parse_qs, quote, unquote, urlsplit

from millrace.operators.functions.row_error import BAD_VALUE, ValueFault
from millrace.operators.functions.strings import row


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _define_digest(name: str, algorithm: str) -> None:
    @row(
        f"{name}(STRING) -> STRING", f"{name}(BYTES) -> STRING", description=f"the {algorithm} digest in hex"
    )
    def digest(value: str | bytes) -> str:
        return hashlib.new(algorithm, _bytes(value), usedforsecurity=False).hexdigest()


for _name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"):
    _define_digest(_name, _name)


@row("crc32(STRING) -> BIGINT", "crc32(BYTES) -> BIGINT", description="the CRC-32 checksum")
def _crc32(value: str | bytes) -> int:
    return zlib.crc32(_bytes(value))


@row("to_hex(BIGINT) -> STRING", "to_hex(STRING) -> STRING", "to_hex(BYTES) -> STRING",
     description="a number or bytes in hex", aliases=("hex",))  # fmt: skip
def _to_hex(value: int | str | bytes) -> str:
    if isinstance(value, int):
        return f"{value & (2**64 - 1):x}"
    return _bytes(value).hex()


@row(
    "from_hex(STRING) -> BYTES",
    description="the bytes that hex digits stand for",
    aliases=("unhex",),
    can_fail=True,
)
def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text)


@row(
    "to_base64(STRING) -> STRING",
    "to_base64(BYTES) -> STRING",
    description="text or bytes in base64",
    aliases=("base64",),
)
def _to_base64(value: str | bytes) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueFault(BAD_VALUE, f"{text!r} is no base64: {error}") from None


@row("from_base64(STRING) -> STRING", description="the text that base64 stands for", can_fail=True)
def _from_base64(text: str) -> str:
    return _decoded(text).decode()


@row("unbase64(STRING) -> BYTES", description="the bytes that base64 stands for", can_fail=True)
def _unbase64(text: str) -> bytes:
    return _decoded(text)


@row("encode(STRING[, STRING]) -> BYTES", "encode(BYTES, STRING) -> STRING",
     description="text as bytes of an encoding; bytes as base64, hex or escape text", can_fail=True)  # fmt: skip
def _encode(value: str | bytes, form: str = "utf-8") -> str | bytes:
    if isinstance(value, bytes):
        return value.hex() if form.lower() == "hex" else _to_base64(value)
    try:
        return value.encode(form)
    except LookupError:
        raise ValueFault(BAD_VALUE, f"unknown encoding {form!r}") from None


@row("decode(BYTES[, STRING]) -> STRING", description="bytes of an encoding as text", can_fail=True)
def _decode(value: bytes, form: str = "utf-8") -> str:
    try:
        return value.decode(form)
    except LookupError:
        raise ValueFault(BAD_VALUE, f"unknown encoding {form!r}") from None


@row("url_encode(STRING) -> STRING", description="the text with reserved characters as %XX")
def _url_encode(text: str) -> str:
    return quote(text, safe="-_.~")


@row("url_decode(STRING) -> STRING", description="the text with %XX and + decoded")
def _url_decode(text: str) -> str:
    return unquote(text.replace("+", " "))


def _part(url: str, part: str, key: str | None = None) -> str | None:
    pieces = urlsplit(url)
    match part.upper():
        case "HOST":
            return pieces.hostname
        case "PATH":
            return pieces.path
        case "QUERY" if key is None:
            return pieces.query or None
        case "QUERY" | "PARAMETER":
            found = parse_qs(pieces.query, keep_blank_values=True).get(key or "")
            return found[0] if found else None
        case "REF" | "FRAGMENT":
            return pieces.fragment or None
        case "PROTOCOL":
            return pieces.scheme or None
        case "PORT":
            return None if pieces.port is None else str(pieces.port)
        case "AUTHORITY":
            return pieces.netloc or None
        case "FILE":
            return pieces.path + (f"?{pieces.query}" if pieces.query else "")
        case "USERINFO":
            return pieces.netloc.rpartition("@")[0] or None
    raise ValueFault(BAD_VALUE, f"{part!r} is no part of a URL")


@row("url_extract(STRING, STRING[, STRING]) -> STRING", description="a part of a URL: HOST, PATH, QUERY [, parameter], PROTOCOL, …",
     aliases=("parse_url",), can_fail=True)  # fmt: skip
def _url_extract(url: str, part: str, key: str | None = None) -> str | None:
    return _part(url, part, key)


def _define_part(name: str) -> None:
    @row(f"url_extract_{name}(STRING) -> STRING", description=f"the {name} of a URL", can_fail=True)
    def extract(url: str) -> str | None:
        return _part(url, name)


for _name in ("host", "path", "query", "protocol", "fragment", "port"):
    _define_part(_name)


@row(
    "url_extract_parameter(STRING, STRING) -> STRING",
    description="the value of a URL's parameter, or NULL",
    can_fail=True,
)
def _url_parameter(url: str, key: str) -> str | None:
    return _part(url, "PARAMETER", key)
