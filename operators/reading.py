"""One figure of a metric as it is shown outside: Prometheus' model in a value. Counts nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample. `family` is the metric's name, `kind` counter, gauge or histogram, `name` the sample's own name.

    A histogram's samples are `<family>_bucket` (cumulative, with the label `le`), `<family>_sum`, `<family>_count`.
    """

    family: str
    kind: str
    help: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
