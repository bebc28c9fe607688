"""Operator specs: what a plan says of an operator, as immutable data that serialises. Builds no plan itself."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import msgpack
import pyarrow as pa

from millrace.errors import Corrupt
from millrace.operators.operator import Context, Operator

T = TypeVar("T")

_CLASSES: dict[str, type] = {}


def serialisable(cls: type[T]) -> type[T]:
    """Class decorator: instances of this frozen dataclass (or enum) may stand anywhere in a spec."""
    known = _CLASSES.get(cls.__name__, cls)
    assert known.__module__ == cls.__module__, f"two spec classes named {cls.__name__}"
    _CLASSES[cls.__name__] = cls  # the last wins: `slots=True` makes a class anew
    return cls


class OperatorSpec(ABC):
    """Base of all operator specs: frozen dataclasses made of numbers, text, Arrow types and each other.

    Subclasses register by definition. `input_schemas` and `output_schema` are Arrow schemas.
    """

    title: ClassVar[str]
    """The operator's name in EXPLAIN, metrics and errors."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        serialisable(cls)

    @property
    @abstractmethod
    def output_schema(self) -> pa.Schema:
        """Columns of what the operator sends."""

    @abstractmethod
    def build(self, context: Context) -> Operator:
        """A new operator with empty state."""

    def details(self) -> dict[str, str]:
        """What EXPLAIN shows of the operator, label to text, in order."""
        return {}


def encode(value: object) -> bytes:
    """Any spec (or tree of serialisable values) as msgpack bytes; `decode` is its inverse."""
    packed = msgpack.packb(_to_plain(value))
    assert packed is not None
    return packed


def decode(data: bytes) -> Any:
    """The value that `encode` was given. Raises Corrupt where the bytes are not that."""
    try:
        return _from_plain(msgpack.unpackb(data, strict_map_key=False))
    except (ValueError, KeyError, TypeError, msgpack.UnpackException, pa.ArrowInvalid) as error:
        raise Corrupt(f"plan bytes do not decode: {error}", code="MR5004") from error


def structural_hash(*values: object) -> str:
    """16 hex digits that are equal for equal specs, on any machine and in any process."""
    return hashlib.blake2b(encode(list(values)), digest_size=8).hexdigest()


def _to_plain(value: object) -> object:
    match value:
        case None | bool() | float() | str() | bytes():
            return value
        case enum.Enum():
            return {"$": "e", "c": type(value).__name__, "v": value.value}
        case int():
            return value if -(2**63) <= value < 2**63 else {"$": "i", "v": str(value)}
        case pa.DataType():
            return {"$": "t", "v": pa.schema([pa.field("", value)]).serialize().to_pybytes()}
        case pa.Field():
            return {"$": "f", "v": pa.schema([value]).serialize().to_pybytes()}
        case pa.Schema():
            return {"$": "s", "v": value.serialize().to_pybytes()}
        case decimal.Decimal():
            return {"$": "n", "v": str(value)}
        case datetime.datetime() | datetime.date() | datetime.time():
            return {"$": "d", "c": type(value).__name__, "v": value.isoformat()}
        case datetime.timedelta():
            return {"$": "u", "v": [value.days, value.seconds, value.microseconds]}
        case tuple() | list():
            return [_to_plain(item) for item in value]
        case dict():
            return {"$": "m", "v": [[_to_plain(k), _to_plain(v)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        assert _CLASSES.get(name) is type(value), f"{name} is not registered as serialisable"
        fields = {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"$": "c", "c": name, "v": fields}
    raise TypeError(f"{type(value).__name__} can not stand in a spec")


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_plain(item) for item in value)
    if not isinstance(value, dict):
        return value
    body = value["v"]
    match value["$"]:
        case "e":
            return _CLASSES[value["c"]](body)
        case "i":
            return int(body)
        case "t":
            return pa.ipc.read_schema(pa.py_buffer(body)).field(0).type
        case "f":
            return pa.ipc.read_schema(pa.py_buffer(body)).field(0)
        case "s":
            return pa.ipc.read_schema(pa.py_buffer(body))
        case "n":
            return decimal.Decimal(body)
        case "d":
            return getattr(datetime, value["c"]).fromisoformat(body)
        case "u":
            return datetime.timedelta(*body)
        case "m":
            return {_from_plain(k): _from_plain(v) for k, v in body}
        case "c":
            return _CLASSES[value["c"]](**{name: _from_plain(item) for name, item in body.items()})
        case unknown:
            raise ValueError(f"unknown tag {unknown!r}")
