"""What operators may ask for while they run in a dataflow: clock, late rows, dead letters. Schedules nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from millrace.errors import BadData
from millrace.operators.batch import Batch
from millrace.operators.side import bad_records_batch, failed_rows
from millrace.operators.source import BadRecord

EXAMPLES_KEPT = 20
"""How many dead letters are remembered as examples where no table takes them."""


def wall_clock_us() -> int:
    """Processing time in µs since the epoch."""
    return time.time_ns() // 1_000


@dataclass(slots=True, eq=False)
class VertexMetrics:
    """Counters of one node, since the dataflow started. Rows are counted, times are in ns."""

    rows_in: int = 0
    rows_out: int = 0
    batches_in: int = 0
    busy_ns: int = 0
    late_rows: int = 0
    dead_rows: int = 0
    examples: deque[BadRecord] = field(default_factory=lambda: deque(maxlen=EXAMPLES_KEPT))


class VertexContext:
    """The `Context` of one node: counts its side outputs, and sends them on where somebody reads them."""

    def __init__(
        self, name: str, vnodes: int, clock: Callable[[], int], metrics: VertexMetrics, stop_at_bad_rows: bool
    ) -> None:
        self.name = name
        self.vnodes = vnodes
        self.now = clock
        self._metrics = metrics
        self.stop_at_bad_rows = stop_at_bad_rows
        self.of_dead_letters = False
        """Whether this node reads what was sent to `on_dead`, however far away."""
        self.on_late: Callable[[Batch], None] | None = None
        self.on_dead: Callable[[Batch], None] | None = None
        self.on_failed: Callable[[Batch], None] | None = None
        """Where those who read this node send rows that do not compute."""

    def late(self, batch: Batch) -> None:
        """Count late rows; send them to the late output where there is one."""
        self._metrics.late_rows += batch.num_rows
        if self.on_late is not None:
            self.on_late(batch)

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        """Count rows that did not compute; send them to the dead-letter output, or stop the job."""
        self.bad_records(failed_rows(batch.data, code, reason))

    def bad_records(self, records: Sequence[BadRecord]) -> None:
        """Count records that did not decode; send them to the dead-letter output, or stop the job."""
        if not records:
            return
        first = records[0]
        if self.stop_at_bad_rows:
            where = " ".join(part for part in (first.split, first.position) if part)
            raise BadData(
                f"{self.name}: {first.reason}" + (f" ({where})" if where else ""),
                code=first.code,
                hint="mend the record, or set bad_rows to 'skip' or to a table that takes such rows",
            )
        self._metrics.dead_rows += len(records)
        self._metrics.examples.extend(records[-EXAMPLES_KEPT:])
        if self.on_dead is not None:
            self.on_dead(Batch(bad_records_batch(records, self.name, self.now())))
