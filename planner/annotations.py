"""What `-- @name: value` lines above a statement ask for: metrics, and defaults of a job. Binds no name."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from millrace.errors import Invalid, Position, Unsupported
from millrace.operators.metric_tap import TapKind
from millrace.planner.statements import Annotation, Statement

METRIC_PARTS = (
    "metric_type",
    "metric_field",
    "metric_labels",
    "metric_condition",
    "metric_help",
    "metric_buckets",
)
JOB_DEFAULTS = ("job_name", "num_partitions", "batch_size", "partitioning_strategy")
REFUSED = {
    "job_mode": "SET guarantee = 'exactly_once', 'at_least_once' or 'none' says how a job commits",
    "enable_dlq": "give the source 'bad_rows' = 'a_table': its rows are the dead letters, with code and reason",
}
KNOWN = ("metric", *METRIC_PARTS, *JOB_DEFAULTS, *REFUSED)
SIMILARITY = 0.8
"""How much like a known name another must be to be taken for a slip, and not for prose."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram that gives none: what Prometheus' clients take."""
PARTITIONS_MAX = 65_536
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TAKEN = frozenset({"job", "partition", "node", "le"})


@dataclass(slots=True)
class DeclaredMetric:
    """One `@metric` with the lines that belong to it; texts of expressions are as written, with their place."""

    name: str
    position: Position
    kind: TapKind = TapKind.COUNTER
    help: str = ""
    field: Annotation | None = None
    condition: Annotation | None = None
    labels: Annotation | None = None
    buckets: tuple[float, ...] = ()
    given: set[str] = dataclasses.field(default_factory=set)


@dataclass(frozen=True, slots=True)
class JobDefaults:
    """What a script says of how it wants to be run, where nobody says otherwise."""

    job_name: str | None = None
    partitions: int | None = None
    batch_rows: int | None = None

    @property
    def settings(self) -> dict[str, str]:
        """Those that are settings, by the name that SET knows."""
        return {} if self.batch_rows is None else {"batch.max_rows": str(self.batch_rows)}


def job_defaults(statements: Iterable[Statement], text: str) -> JobDefaults:
    """The defaults that annotations of the script `text` give. Raises Invalid MR1082 where two differ."""
    try:
        return _job_defaults(statements)
    except Invalid as error:
        error.source_text = text
        raise


def _job_defaults(statements: Iterable[Statement]) -> JobDefaults:
    found: dict[str, Annotation] = {}
    for statement in statements:
        for annotation in statement.annotations:
            check_annotation(annotation)
            if annotation.name not in JOB_DEFAULTS:
                continue
            before = found.setdefault(annotation.name, annotation)
            if before.value != annotation.value:
                _fail(
                    annotation,
                    "MR1082",
                    f"@{annotation.name} is {annotation.value!r} here and {before.value!r} in line "
                    f"{before.position.line}",
                    "a script is one job: say it once",
                )
    name, partitions, rows = (found.get(n) for n in JOB_DEFAULTS[:3])
    return JobDefaults(
        None if name is None else name.value,
        None if partitions is None else _whole(partitions, PARTITIONS_MAX),
        None if rows is None else _whole(rows, 1 << 24),
    )


def check_annotation(annotation: Annotation) -> None:
    """Refuse what is a slip, a value that does not do, and what nothing here does. Prose is left alone.

    Raises Invalid MR1080 (misspelt), MR1081 (value), Unsupported MR1928.
    """
    name = annotation.name
    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, 1, SIMILARITY)
        if close and (annotation.colon or "_" in name):
            _fail(annotation, "MR1080", f"there is no annotation @{name}", f"did you mean @{close[0]}?")
        return
    if name in REFUSED:
        raise Unsupported(
            f"@{name} is not supported", code="MR1928", hint=REFUSED[name], position=annotation.position
        )
    match name:
        case "job_name":
            value = annotation.value
            if not re.fullmatch(r"[\w-][\w.-]*", value):
                _bad(annotation, "letters, digits, '-', '_' and '.'")
        case "num_partitions":
            _whole(annotation, PARTITIONS_MAX)
        case "batch_size":
            _whole(annotation, 1 << 24)
        case "partitioning_strategy":
            if annotation.value.lower() != "hash":
                raise Unsupported(
                    f"rows are never spread by {annotation.value or 'nothing'!r}",
                    code="MR1928",
                    hint="'hash' is what there is: by the hash of the key that the next operator needs",
                    position=annotation.position,
                )


def declared_metrics(statement: Statement) -> tuple[DeclaredMetric, ...]:
    """The metrics above a statement; every annotation of it is checked. Raises what `check_annotation` raises too."""
    found: list[DeclaredMetric] = []
    for annotation in statement.annotations:
        check_annotation(annotation)
        if annotation.name == "metric":
            if not _METRIC_NAME.fullmatch(annotation.value):
                _bad(annotation, "a metric's name has letters, digits, '_' and ':', and begins with no digit")
            if any(m.name == annotation.value for m in found):
                _fail(annotation, "MR1083", f"there are two metrics {annotation.value}", "name one anew")
            found.append(DeclaredMetric(annotation.value, annotation.position))
        elif annotation.name in METRIC_PARTS:
            if not found:
                _fail(
                    annotation,
                    "MR1083",
                    f"@{annotation.name} belongs to no metric",
                    "put '-- @metric: name' above it",
                )
            _take_part(found[-1], annotation)
    for metric in found:
        _check_whole(metric)
    return tuple(found)


def label_names(metric: DeclaredMetric) -> tuple[str, ...]:
    """The columns that are labels."""
    if metric.labels is None:
        return ()
    names = tuple(part.strip() for part in metric.labels.value.strip("[]").split(","))
    for name in names:
        if not _LABEL_NAME.fullmatch(name):
            _bad(metric.labels, "names of columns, with commas between")
        if name.lower() in _TAKEN or name.startswith("__"):
            _bad(metric.labels, f"{name} is a label of the system: give the column another name")
    if len({name.lower() for name in names}) < len(names):
        _bad(metric.labels, "each column once")
    return names


def _take_part(metric: DeclaredMetric, annotation: Annotation) -> None:
    part, value = annotation.name, annotation.value
    if part in metric.given:
        _fail(annotation, "MR1083", f"metric {metric.name} has two @{part}", "leave one out")
    metric.given.add(part)
    if not value:
        _bad(annotation, "say something after the colon")
    match part:
        case "metric_type":
            kinds = [kind.value for kind in TapKind]
            if value.lower() not in kinds:
                _bad(annotation, f"one of {', '.join(kinds)}")
            metric.kind = TapKind(value.lower())
        case "metric_field":
            metric.field = annotation
        case "metric_condition":
            metric.condition = annotation
        case "metric_labels":
            metric.labels = annotation
        case "metric_help":
            metric.help = value.strip("\"'")
        case "metric_buckets":
            metric.buckets = _buckets(annotation)


def _check_whole(metric: DeclaredMetric) -> None:
    if metric.kind is not TapKind.COUNTER and metric.field is None:
        raise Invalid(
            f"metric {metric.name} is a {metric.kind.value} of nothing",
            code="MR1083",
            hint="add '-- @metric_field: column'",
            position=metric.position,
        )
    if metric.buckets and metric.kind is not TapKind.HISTOGRAM:
        raise Invalid(
            f"metric {metric.name} has buckets and is a {metric.kind.value}",
            code="MR1083",
            hint="add '-- @metric_type: histogram'",
            position=metric.position,
        )
    if metric.kind is TapKind.HISTOGRAM and not metric.buckets:
        metric.buckets = BUCKETS
    label_names(metric)


def _buckets(annotation: Annotation) -> tuple[float, ...]:
    try:
        bounds = tuple(float(part) for part in annotation.value.strip("[]").split(","))
    except ValueError:
        bounds = ()
    if not bounds or list(bounds) != sorted(set(bounds)) or not all(abs(b) < float("inf") for b in bounds):
        _bad(annotation, "upper bounds, ascending, with commas between: 0.1, 1, 10")
    return bounds


def _whole(annotation: Annotation, most: int) -> int:
    text = annotation.value.replace("_", "")
    if not text.isdigit() or not 1 <= int(text) <= most:
        _bad(annotation, f"a whole number from 1 to {most:,}")
    return int(text)


def _bad(annotation: Annotation, hint: str) -> NoReturn:
    _fail(annotation, "MR1081", f"@{annotation.name} can not be {annotation.value!r}", hint)


def _fail(annotation: Annotation, code: str, message: str, hint: str) -> NoReturn:
    raise Invalid(message, code=code, hint=hint, position=annotation.position)
