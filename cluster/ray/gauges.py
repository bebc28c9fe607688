"""Figures as metrics of Ray's agent, which Prometheus reads. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from millrace.operators.reading import Reading

SHOW_EVERY_S = 1.0
"""The agent is told by its workers every few seconds; more often than this is for nobody."""


class Gauges:
    """Shows readings under fixed tags: job and partition, never an epoch, which would make new series at each restart.

    A histogram's samples are gauges here, cumulative buckets with `le`: Ray takes observations one by one only.
    """

    def __init__(self, **tags: str) -> None:
        self._tags = tags
        self._metrics: dict[str, Counter | Gauge] = {}
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def show(self, readings: Iterable[Reading]) -> None:
        """Bring the figures up to date."""
        for one in readings:
            metric = self._metrics.get(one.name)
            if metric is None:
                metric = self._metrics[one.name] = self._made(one)
            labels = {**self._tags, **dict(one.labels)}
            if isinstance(metric, Gauge):
                metric.set(one.value, labels)
                continue
            before = self._told.get((one.name, one.labels), 0.0)
            if one.value > before:
                metric.inc(one.value - before, labels)
                self._told[one.name, one.labels] = one.value

    def _made(self, one: Reading) -> Counter | Gauge:
        keys = (*self._tags, *(label for label, _ in one.labels))
        if one.kind == "counter":
            return Counter(one.name.removesuffix("_total"), one.help, keys)
        return Gauge(one.name, one.help, keys)
