"""A database's metrics as Prometheus text over HTTP, for `millrace run --metrics-port`. Counts nothing itself."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from millrace.cluster.figures import reading, watermark_readings
from millrace.errors import Unavailable
from millrace.operators.reading import Reading

if TYPE_CHECKING:
    from millrace.database import Database


class Exposition:
    """Serves what `readings` tells, on every address of the machine, from `with` to its end."""

    def __init__(self, database: Database, port: int) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(database))
        self._port = port

    def __enter__(self) -> Self:
        try:
            self._server, self._thread = start_http_server(self._port, registry=self._registry)
        except OSError as error:
            raise Unavailable(
                f"metrics can not be served on port {self._port}: {error.strerror}",
                code="MR1555",
                hint="another program may have it: give another --metrics-port",
            ) from None
        self.port = int(self._server.server_port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Readings(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        return families(readings(self._database))

    def describe(self) -> Iterable[Metric]:
        return ()  # what there is is known when it is asked for


def readings(database: Database) -> Iterator[Reading]:
    """What a database tells of itself, of its nodes, and what its `@metric` annotations count."""
    progress = database.progress()
    yield reading("rows_in", progress.rows_in)
    yield reading("rows_out", progress.rows_out)
    yield reading("late_rows", progress.late_rows)
    yield reading("dead_rows", progress.dead_rows)
    yield from watermark_readings(progress.watermark, time.time())
    rows = database.metrics().rows()
    names = Counter(row["name"] for row in rows)
    for row in rows:
        node = str(row["name"]) if names[row["name"]] == 1 else f"{row['name']}#{row['node']}"
        for column, name, scale in _COLUMNS:
            value = row[column]
            if isinstance(value, int | float):
                yield reading(name, value * scale, node=node)
    for row in database.custom_metrics().rows():
        family, kind, help, name = (str(row[column]) for column in ("metric", "type", "help", "sample"))
        labels, value = row["labels"], row["value"]
        assert isinstance(labels, list) and isinstance(value, float)
        yield Reading(family, kind, help, name, tuple(labels), value)


_COLUMNS = (
    ("rows_in", "node_rows_in", 1),
    ("rows_out", "node_rows_out", 1),
    ("late_rows", "node_late_rows", 1),
    ("dead_rows", "node_dead_rows", 1),
    ("busy_ms", "node_busy_seconds", 1e-3),
    ("state_rows", "state_rows", 1),
    ("state_bytes", "state_bytes", 1),
    ("matches", "node_matches", 1),
    ("expired", "node_expired", 1),
    ("retractions", "node_retractions", 1),
)


def families(readings: Iterable[Reading]) -> Iterator[Metric]:
    """The readings by metric, in the order they came; names of counters end in `_total`."""
    found: dict[str, Metric] = {}
    for one in readings:
        family = one.family.removesuffix("_total") if one.kind == "counter" else one.family
        metric = found.get(family)
        if metric is None:
            metric = found[family] = Metric(family, one.help, one.kind)
        name = f"{family}_total" if one.kind == "counter" else one.name
        metric.add_sample(name, {_label(key): value for key, value in one.labels}, one.value)
    yield from found.values()


def _label(name: str) -> str:
    return re.sub(r"\W", "_", name)
