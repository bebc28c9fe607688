"""`@metric` annotations bound to the columns of the query they stand above. Counts nothing."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.types as at

from millrace.errors import Invalid, MillraceError
from millrace.operators.expressions.tree import Expression
from millrace.operators.metric_tap import TappedMetric
from millrace.planner.annotations import DeclaredMetric, declared_metrics, label_names
from millrace.planner.binder.planned import PlannedOutput, PlannedStatement
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.plan import OutputKind
from millrace.planner.script import parse_expression
from millrace.planner.statements import Annotation


def with_metrics(planned: PlannedStatement) -> PlannedStatement:
    """The statement with its metrics on the rows of its query. Raises Invalid MR1084 where it has none that run on."""
    declared = declared_metrics(planned.statement)
    if not declared:
        return planned
    first = planned.outputs[0] if planned.outputs else None
    if first is None or first.kind is OutputKind.SELECT:
        raise Invalid(
            f"metric {declared[0].name} stands above a statement that leaves no query running",
            code="MR1084",
            hint="put it above CREATE STREAM, CREATE TABLE … AS, CREATE SINK or INSERT INTO … SELECT",
            position=declared[0].position,
        )
    taps = tuple(_bound(metric, first) for metric in declared)
    return replace(planned, outputs=(replace(first, taps=taps), *planned.outputs[1:]))


def _bound(metric: DeclaredMetric, output: PlannedOutput) -> TappedMetric:
    scope = Scope.of(output.relation, output.name)
    field = None if metric.field is None else _expression(metric.field, scope, None)
    if field is not None and metric.field is not None and not _is_number(field.type):
        raise Invalid(
            f"@metric_field {metric.field.value} is no number",
            code="MR1085",
            hint="a metric counts or shows numbers; CAST in the query makes one",
            position=metric.field.position,
        )
    condition = None if metric.condition is None else _expression(metric.condition, scope, pa.bool_())
    labels = []
    for name in label_names(metric):
        assert metric.labels is not None
        value = _expression(replace(metric.labels, value=name), scope, None)
        if at.is_nested(value.type) or at.is_binary(value.type):
            raise Invalid(
                f"column {name} can not be a label: it is no single value",
                code="MR1085",
                hint="take a column of text, numbers or times",
                position=metric.labels.position,
            )
        labels.append((name, value))
    help = metric.help or f"{metric.kind.value} of {output.name}"
    return TappedMetric(metric.name, metric.kind, help, condition, field, tuple(labels), metric.buckets)


def _is_number(type: pa.DataType) -> bool:
    return bool(at.is_integer(type) or at.is_floating(type) or at.is_decimal(type))


def _expression(annotation: Annotation, scope: Scope, type: pa.DataType | None) -> Expression:
    """The expression that an annotation's text is; errors in it stand at the annotation."""
    try:
        node = parse_expression(annotation.value)
        binder = ScalarBinder(scope, f"@{annotation.name}")
        return binder.bind(node) if type is None else binder.condition(node)
    except MillraceError as error:
        error.position, error.source_text = annotation.position, None
        raise
