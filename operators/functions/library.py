"""Imports every module whose functions belong to the library, so that they register themselves."""

from millrace.operators.functions import (
    arithmetic,
    chance,
    conditional,
    encodings,
    json_paths,
    logic,
    mathematics,
    nested,
    patterns,
    strings,
    time_fields,
    time_formats,
    time_units,
)

__all__ = [
    "arithmetic",
    "chance",
    "conditional",
    "encodings",
    "json_paths",
    "logic",
    "mathematics",
    "nested",
    "patterns",
    "strings",
    "time_fields",
    "time_formats",
    "time_units",
]
