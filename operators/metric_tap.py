"""Counts what passes, for `@metric` annotations: counters, gauges and histograms over a query's rows. Exports nothing."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.batch import Batch
from millrace.operators.calc import Calc
from millrace.operators.expressions.tree import Expression
from millrace.operators.operator import Context, StatelessOperator
from millrace.operators.reading import Reading
from millrace.operators.spec import OperatorSpec, serialisable

SERIES_MAX = 1_000
"""Different label values of one metric; rows with further ones are counted under `OTHER`."""
OTHER = "(other)"
Floats = npt.NDArray[np.float64]
Labels = tuple[str, ...]


@serialisable
class TapKind(enum.Enum):
    """What a metric makes of the values."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@serialisable
@dataclass(frozen=True, slots=True)
class TappedMetric:
    """One metric over the rows where `condition` is true (None: all).

    A counter adds `field` (None: 1 a row), a gauge takes its latest value, a histogram sorts it into `buckets`
    (upper bounds, ascending, without +Inf). Each combination of `labels` is a series of its own.
    """

    name: str
    kind: TapKind
    help: str
    condition: Expression | None = None
    field: Expression | None = None
    labels: tuple[tuple[str, Expression], ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What metrics of one name must agree in."""
        return self.kind, tuple(name for name, _ in self.labels), self.buckets


@dataclass(frozen=True, slots=True)
class MetricTap(OperatorSpec):
    """Passes the rows of `input` on as they are, and counts them.

    A row for which a condition, field or label has no value goes to the dead letters, and passes all the same.
    """

    title: ClassVar[str] = "Metrics"

    input: pa.Schema
    metrics: tuple[TappedMetric, ...]

    @property
    def output_schema(self) -> pa.Schema:
        return self.input

    def build(self, context: Context) -> MetricTapOperator:
        return MetricTapOperator(self, context)

    def details(self) -> dict[str, str]:
        return {metric.name: metric.kind.value for metric in self.metrics}


class MetricTapOperator(StatelessOperator):
    """Runs a `MetricTap`. `readings` may be called from any thread. What was counted ends with the process."""

    def __init__(self, spec: MetricTap, context: Context) -> None:
        self._counts = [_Counting(metric, spec.input, context) for metric in spec.metrics]
        self._lock = threading.Lock()

    def apply(self, batch: Batch) -> Batch:
        with self._lock:
            for counting in self._counts:
                counting.add(batch)
        return batch

    def readings(self) -> list[Reading]:
        """Every series as it is now."""
        with self._lock:
            return [reading for counting in self._counts for reading in counting.readings()]


@dataclass(slots=True)
class _Series:
    """A value; of a histogram the count of each bucket (the last is +Inf's), and the sum as the value."""

    value: float = 0.0
    counts: dict[int, int] = field(default_factory=dict)


class _Counting:
    """One metric's series."""

    def __init__(self, metric: TappedMetric, schema: pa.Schema, context: Context) -> None:
        self._metric = metric
        outputs = [expression for _, expression in metric.labels]
        if metric.field is not None:
            outputs.append(metric.field)
        names = tuple(str(at) for at in range(len(outputs)))
        self._calc = Calc(schema, metric.condition, tuple(outputs), names).build(context)
        self._bounds = np.array(metric.buckets, np.float64)
        self._series: dict[Labels, _Series] = {}
        if not metric.labels and metric.kind is not TapKind.GAUGE:
            self._series[()] = _Series()

    def add(self, batch: Batch) -> None:
        """Count the rows that a batch inserts; what it takes back was there and stays counted."""
        found = self._calc.apply(batch)
        if found is None or not found.num_rows:
            return
        weights = np.ones(found.num_rows) if found.weights is None else found.weights.astype(np.float64)
        keep = weights > 0
        values = np.ones(found.num_rows)
        if self._metric.field is not None:
            values = _floats(found.data.column(len(self._metric.labels)))
            keep &= np.isfinite(values)
        if self._metric.kind is TapKind.COUNTER:
            keep &= values > 0
        if not keep.any():
            return
        labels = [_texts(found.data.column(at)) for at in range(len(self._metric.labels))]
        if not keep.all():
            values, weights = values[keep], weights[keep]
            labels = [column.filter(pa.array(keep)) for column in labels]
        self._count(labels, values, weights)

    def _count(self, labels: list[pa.Array], values: Floats, weights: Floats) -> None:
        columns = {str(at): column for at, column in enumerate(labels)}
        keys = list(columns)
        match self._metric.kind:
            case TapKind.GAUGE:
                for key, value in _grouped(columns, keys, {"value": values}, "last"):
                    self._at(key).value = value["value"]
            case TapKind.COUNTER:
                for key, value in _grouped(columns, keys, {"value": values * weights}, "sum"):
                    self._at(key).value += value["value"]
            case TapKind.HISTOGRAM:
                columns["bucket"] = pa.array(np.searchsorted(self._bounds, values, side="left"))
                summed = {"value": values * weights, "rows": weights}
                for key, value in _grouped(columns, [*keys, "bucket"], summed, "sum"):
                    series, bucket = self._at(key[:-1]), key[-1]
                    series.value += value["value"]
                    series.counts[bucket] = series.counts.get(bucket, 0) + int(value["rows"])

    def _at(self, key: tuple[Any, ...]) -> _Series:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= SERIES_MAX:
                key = (OTHER,) * len(key)
            series = self._series.setdefault(key, _Series())
        return series

    def readings(self) -> Iterator[Reading]:
        metric = self._metric
        kind, names = metric.kind.value, [name for name, _ in metric.labels]
        for values, series in self._series.items():
            labels = tuple(zip(names, values, strict=True))
            if metric.kind is not TapKind.HISTOGRAM:
                counts = metric.kind is TapKind.COUNTER
                name = f"{metric.name.removesuffix('_total')}_total" if counts else metric.name
                yield Reading(metric.name, kind, metric.help, name, labels, series.value)
                continue
            below = 0
            for at, bound in enumerate((*metric.buckets, float("inf"))):
                below += series.counts.get(at, 0)
                le = "+Inf" if bound == float("inf") else repr(float(bound))
                bucket = (*labels, ("le", le))
                yield Reading(metric.name, kind, metric.help, f"{metric.name}_bucket", bucket, below)
            yield Reading(metric.name, kind, metric.help, f"{metric.name}_sum", labels, series.value)
            yield Reading(metric.name, kind, metric.help, f"{metric.name}_count", labels, below)


def _floats(column: pa.Array) -> Floats:
    """The values; NaN where there is none."""
    filled = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
    return np.asarray(filled)


def _texts(column: pa.Array) -> pa.Array:
    return pc.fill_null(pc.cast(column, pa.string()), "")


def _grouped(
    columns: dict[str, pa.Array], keys: list[str], values: dict[str, Floats], how: str
) -> Iterator[tuple[tuple[Any, ...], dict[str, float]]]:
    """Key and values of every group, in one pass over the rows."""
    if not keys:
        yield (), {n: float(v.sum() if how == "sum" else v[-1]) for n, v in values.items()}
        return
    table = pa.table({**columns, **{name: pa.array(array) for name, array in values.items()}})
    found = table.group_by(keys, use_threads=False).aggregate([(name, how) for name in values])
    for row in found.to_pylist():
        yield tuple(row[key] for key in keys), {name: row[f"{name}_{how}"] for name in values}
