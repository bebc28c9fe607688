"""Jobs of a cluster as text, as JSON and as a table. Asks nobody."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from millrace.cluster.coordination import JobStatus
from millrace.cluster.jobs import JobSummary
from millrace.cluster.partition import PartitionStatus, SplitStatus
from millrace.cluster.resuming import KeptCheckpoint
from millrace.operators.batch import END_OF_TIME, START_OF_TIME

if TYPE_CHECKING:
    from rich.console import RenderableType

Splits = Mapping[int, Sequence[SplitStatus]]


def summary_lines(found: Sequence[JobSummary]) -> list[str]:
    """One line a job."""
    width = max((len(summary.job) for summary in found), default=0)
    return [f"{s.job:<{width}}  {_state(s)}  {s.ended or ''}  {s.store}" for s in found]


def summary_json(found: Iterable[JobSummary]) -> list[dict[str, Any]]:
    """Jobs as plain values."""
    return [{"job": s.job, "state": _state(s), "ended": s.ended, "store": s.store} for s in found]


def status_lines(status: JobStatus, splits: Splits) -> list[str]:
    """A job, its partitions and their splits."""
    since = "" if status.decided_s is None else f" ({status.decided_s:.1f} s ago)"
    lines = [
        f"{status.job}: {status.phase}, epoch {status.epoch}, last checkpoint {status.checkpoint}{since}"
    ]
    if status.target and status.target != len(status.partitions):
        lines.append(f"  {len(status.partitions)} of {status.target} partitions run")
    lines += _round_lines(status)
    for p in status.partitions:
        lines.append(
            f"  partition {p.partition} (epoch {p.epoch}) {p.phase}: {p.splits} splits, {p.rows_in:,} rows in, "
            f"{p.rows_out:,} out, {p.late_rows:,} late, {p.dead_rows:,} bad, "
            f"{status.rates.get(p.partition, 0):,.0f} rows/s, {in_bytes(p.state_bytes)} of state in checkpoint "
            f"{p.stored}, {watermark(p.watermark)}"
        )
        lines += [f"    {split_line(split)}" for split in splits.get(p.partition, ())]
    return lines + [f"  problem: {problem}" for problem in status.problems]


def split_line(split: SplitStatus) -> str:
    """One split."""
    behind = "" if split.lag is None or split.ended else f", {split.lag:,} behind"
    return f"{split.source} {split.split}: {split.position}{behind}, {watermark(split.watermark)}"


def status_json(status: JobStatus, splits: Splits) -> dict[str, Any]:
    """A job as plain values. Times are in s, or ISO 8601; watermarks are null where there is none."""
    waits = status.round
    return {
        "job": status.job,
        "phase": status.phase,
        "epoch": status.epoch,
        "checkpoint": status.checkpoint,
        "checkpoint_age_s": status.decided_s,
        "checkpoints_decided": status.decided,
        "partitions_wanted": status.target,
        "under_way": None
        if waits is None
        else {
            "checkpoint": waits.number,
            "kind": waits.kind,
            "age_s": waits.age_s,
            "barrier_held_by": list(waits.aligning),
            "not_stored_by": list(waits.storing),
        },
        "kept": [kept_json(kept) for kept in status.kept],
        "partitions": [
            _partition_json(p, status.rates.get(p.partition, 0.0), splits.get(p.partition, ()))
            for p in status.partitions
        ],
        "problems": list(status.problems),
    }


def kept_json(kept: KeptCheckpoint) -> dict[str, Any]:
    """A checkpoint as plain values."""
    return {"checkpoint": kept.number, "kind": kept.kind, "savepoint": kept.label}


def kept_line(kept: KeptCheckpoint) -> str:
    """A checkpoint that a job can be resumed from."""
    return f"{kept.number}  {kept.kind}" + (f"  {kept.label}" if kept.label else "")


def top_table(statuses: Sequence[JobStatus]) -> RenderableType:
    """All partitions of jobs in one table."""
    table = Table(expand=False)
    for column in ("job", "partition", "phase", "epoch"):
        table.add_column(column)
    for column in (
        "splits",
        "rows/s",
        "rows in",
        "rows out",
        "late",
        "bad",
        "state",
        "watermark",
        "checkpoint",
    ):
        table.add_column(column, justify="right")
    for status in statuses:
        held = set() if status.round is None else set(status.round.aligning)
        for p in status.partitions:
            mark = "–" if _unset(p.watermark) else f"{_time(p.watermark):%H:%M:%S}"
            table.add_row(
                *(
                    status.job,
                    str(p.partition),
                    p.phase + (" (holds a barrier)" if p.partition in held else ""),
                ),
                *(str(p.epoch), str(p.splits), f"{status.rates.get(p.partition, 0):,.0f}"),
                *(f"{p.rows_in:,}", f"{p.rows_out:,}", f"{p.late_rows:,}", f"{p.dead_rows:,}"),
                *(in_bytes(p.state_bytes), mark, p.stored),
            )
        if not status.partitions:
            table.add_row(status.job, "–", status.phase, str(status.epoch))
    return table


def in_bytes(size: int) -> str:
    """A size for people."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def watermark(us: int) -> str:
    """A watermark for people."""
    return "no watermark" if _unset(us) else f"watermark {_time(us):%Y-%m-%d %H:%M:%S}"


def _round_lines(status: JobStatus) -> list[str]:
    waits = status.round
    if waits is None:
        return []
    lines = [f"  checkpoint {waits.number} ({waits.kind}) is under way since {waits.age_s:.1f} s"]
    if waits.aligning:
        lines.append(f"    its barrier has not passed {_partitions(waits.aligning)}")
    storing = tuple(p for p in waits.storing if p not in waits.aligning)
    if storing:
        lines.append(f"    still being stored by {_partitions(storing)}")
    return lines


def _partition_json(p: PartitionStatus, rate: float, splits: Iterable[SplitStatus]) -> dict[str, Any]:
    return {
        "partition": p.partition,
        "epoch": p.epoch,
        "phase": p.phase,
        "rows_in": p.rows_in,
        "rows_out": p.rows_out,
        "rows_per_s": round(rate, 1),
        "late_rows": p.late_rows,
        "bad_rows": p.dead_rows,
        "watermark": None if _unset(p.watermark) else _time(p.watermark).isoformat(),
        "state_bytes": p.state_bytes,
        "stored_checkpoint": p.stored,
        "splits": [
            {
                "source": split.source,
                "split": split.split,
                "position": split.position,
                "lag": split.lag,
                "watermark": None if _unset(split.watermark) else _time(split.watermark).isoformat(),
                "ended": split.ended,
            }
            for split in splits
        ],
    }


def _state(summary: JobSummary) -> str:
    return "failed" if summary.failed else "running" if summary.ended is None else "ended"


def _partitions(numbers: Iterable[int]) -> str:
    return ", ".join(f"partition {number}" for number in numbers)


def _unset(us: int) -> bool:
    return us in (START_OF_TIME, END_OF_TIME)


def _time(us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC)
