"""JSON text as Python values and back. Knows no paths."""

from __future__ import annotations

import base64
import datetime
import json
from decimal import Decimal
from typing import Any


def to_json_text(value: Any) -> str:
    """The value as compact JSON text."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """The value made of what JSON knows: maps become objects, times ISO text, bytes base64."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, tuple) and len(item) == 2 for item in value)
    ):
        return {str(key): plain(item) for key, item in value}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return (
            int(value)
            if value == value.to_integral_value() and value.as_tuple().exponent == 0
            else float(value)
        )
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
