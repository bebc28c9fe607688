"""A plan for people: a tree with what was decided at each node, and the same as JSON. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from millrace.operators.aggregates.calls import EmissionKind
from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate, WindowAssign
from millrace.operators.calc import Calc
from millrace.operators.functions.types import sql_name
from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.operators.materialize import Materialize
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate
from millrace.operators.sessions.spec import SessionAggregate
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.temporal_filter import TemporalFilter
from millrace.operators.top.specs import TopRows, WindowTopRows
from millrace.planner.physical.exchange import Edge, layout_of
from millrace.planner.plan import Node, OutputKind, Plan

WIDTH = 110
"""Characters of a line; longer values go on below."""


Measured = Mapping[int, Mapping[str, float]]
"""What nodes did when they ran: `rows_in`, `rows_out`, `late_rows`, `dead_rows`, `busy_ms` by position."""


def explain_text(plan: Plan, measured: Measured | None = None) -> str:
    """One tree for each output, its node on top and its inputs below; a node that was shown is named only."""
    shown: set[int] = set()
    facts = _Facts(_moves(plan), measured or {})
    blocks: list[str] = []
    roots = [(o.kind, o.name, o.node) for o in plan.outputs]
    for kind, name, node in roots:
        title = "query" if kind is OutputKind.SELECT else f"{kind.value} {name}"
        lines = [title]
        _tree(plan, node, "", True, lines, shown, facts)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def explain_json(plan: Plan, measured: Measured | None = None) -> str:
    """The plan as one JSON object: `nodes` by position with the same facts, `outputs`, `late`, `settings`."""
    ran = measured or {}
    moves = _moves(plan)
    nodes = [
        {
            "position": at,
            "operator": title_of(node),
            "name": node.name,
            "inputs": list(node.inputs),
            "hash": node.hash,
            "columns": [{"name": f.name, "type": sql_name(f.type)} for f in node.schema],
            "changelog": node.changelog.value,
            "key": None if node.key is None else [node.schema.names[k] for k in node.key],
            "event_time": None if node.event_time is None else node.schema.names[node.event_time],
            "details": _details(node),
            "state": state_of(node, plan),
            "exchange": _exchange(plan, node, moves.get(at, [])),
            **({"measured": dict(ran[at])} if at in ran else {}),
        }
        for at, node in enumerate(plan.nodes)
    ]
    whole = {
        "nodes": nodes,
        "outputs": [{"name": o.name, "kind": o.kind.value, "node": o.node} for o in plan.outputs],
        "late": [{"node": late.node, "table": late.table} for late in plan.late],
        "settings": dict(plan.settings),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is said of each node."""

    moves: Mapping[int, list[Edge]]
    measured: Measured

    def of(self, plan: Plan, at: int) -> list[tuple[str, str]]:
        """Labels and texts."""
        node = plan.nodes[at]
        facts = [(label, text or "none") for label, text in _details(node).items()]
        facts.append(("rows", _rows(node)))
        state = state_of(node, plan)
        if state != "none" and not any(label == "state" for label, _ in facts):
            facts.append(("state", state))
        if not isinstance(node.spec, SourceInput):
            facts.append(("exchange", _exchange(plan, node, self.moves.get(at, []))))
        ran = self.measured.get(at)
        if ran is not None:
            facts.append(("ran", _ran(ran)))
        return facts


def _ran(ran: Mapping[str, float]) -> str:
    text = f"{ran['rows_in']:,.0f} rows in, {ran['rows_out']:,.0f} rows out, {ran['busy_ms']:,.2f} ms"
    for name, words in (("late_rows", "late"), ("dead_rows", "did not decode or compute")):
        text += f", {ran[name]:,.0f} {words}" if ran[name] else ""
    return text


def title_of(node: Node) -> str:
    """What the node is, in one word."""
    spec = node.spec
    return (
        "Source"
        if isinstance(spec, SourceInput)
        else "Sink"
        if isinstance(spec, SinkSpec)
        else type(spec).title
    )


def state_of(node: Node, plan: Plan) -> str:
    """What the node remembers, and when it forgets it."""
    spec = node.spec
    match spec:
        case Calc():
            return "none"
        case WindowAggregate():
            until = f"the watermark passes the window's end{_lateness(spec.allowed_lateness)}"
            if spec.time is None:
                until = "the clock passes the window's end"
            return f"one row a {_keys(spec.keys, 'key and window', 'window')}, until {until}"
        case SessionAggregate():
            until = "the watermark" if spec.time is not None else "the clock"
            return f"one row a {_keys(spec.keys, 'key and session', 'session')}, until {until} passes its end"
        case GroupAggregate():
            if spec.window_end is not None:
                return f"one row a key, until the watermark passes {spec.names[spec.window_end]}"
            if not spec.calls:
                return "every distinct row, kept for ever"
            kept = (
                "until the input has ended" if spec.emission.kind is EmissionKind.FINAL else "kept for ever"
            )
            return f"one row{' a key' if spec.keys else ''}, {kept}"
        case OverAggregate():
            return f"rows above the watermark, and the frame ({spec.frame}) of each partition"
        case RowBufferAggregate():
            expiry = f", until {spec.expire_after / 1e6:g} s without rows" if spec.expire_after else ""
            return f"the last {spec.rows} rows of each partition{expiry}"
        case TemporalFilter():
            return "rows between their bounds" if spec.lower is not None else "rows that are not due yet"
        case WindowTopRows():
            return "rows of open windows, until the watermark passes their end"
        case TopRows() | MatchRecognize():
            return spec.state
        case Materialize():
            return "every row of the table"
        case WindowAssign():
            return "none"
        case SourceInput():
            return "position of each split"
    return "none"


def _tree(
    plan: Plan,
    at: int,
    indent: str,
    last: bool,
    lines: list[str],
    shown: set[int],
    known: _Facts,
) -> None:
    node = plan.nodes[at]
    branch, under = ("└─ ", "   ") if last else ("├─ ", "│  ")
    name = f" {node.name}" if node.name else ""
    if at in shown:
        lines.append(f"{indent}{branch}[{at}] {title_of(node)}{name} (shown above)")
        return
    shown.add(at)
    lines.append(f"{indent}{branch}[{at}] {title_of(node)}{name}")
    inner = indent + under
    bar = "│  " if node.inputs else "   "
    for label, text in known.of(plan, at):
        lines += _wrapped(f"{inner}{bar}{label}: ", text)
    for place, below in enumerate(node.inputs):
        _tree(plan, below, inner, place == len(node.inputs) - 1, lines, shown, known)


def _rows(node: Node) -> str:
    names = node.schema.names
    text = {Changelog.APPEND: "append-only", Changelog.UPSERT: "upserts", Changelog.RETRACT: "changes"}[
        node.changelog
    ]
    if node.key == () and node.changelog is not Changelog.APPEND:
        text += " of one row"
    elif node.key is not None and node.changelog is not Changelog.APPEND:
        text += f" by key ({', '.join(names[k] for k in node.key)})"
    elif node.changelog is not Changelog.APPEND:
        text += " without a key"
    return text if node.event_time is None else f"{text}, event time {names[node.event_time]}"


def _moves(plan: Plan) -> dict[int, list[Edge]]:
    """The exchanges in front of each node, were the plan to run in several partitions."""
    found: dict[int, list[Edge]] = {}
    for edge in layout_of(plan, 2).edges:
        if edge.keys is not None:
            found.setdefault(edge.consumer, []).append(edge)
    return found


def _exchange(plan: Plan, node: Node, moves: list[Edge]) -> str:
    if not moves:
        return "none"
    if all(not edge.keys for edge in moves):
        return "to one partition"
    texts = []
    for edge in sorted(moves, key=lambda edge: edge.port):
        names = plan.nodes[edge.producer].schema.names
        side = (
            "" if len(node.inputs) == 1 else ("left ", "right ")[edge.port] if len(node.inputs) == 2 else ""
        )
        texts.append(f"{side}by {', '.join(names[k] for k in edge.keys or ())}")
    return ", ".join(texts)


def _details(node: Node) -> dict[str, str]:
    spec = node.spec
    if not isinstance(spec, SourceInput):
        details = spec.details()
        return {"connector": type(spec).title, **details} if isinstance(spec, SinkSpec) else details
    found = {"connector": type(spec.source).title, **spec.source.details()}
    found["columns"] = ", ".join(_column(f) for f in spec.schema) or "none"
    time = spec.event_time
    if time is not None:
        found["watermark"] = f"{spec.schema.names[time.column]} - {time.out_of_orderness / 1e6:g} s"
    if not spec.source.bounded:
        found["bounded"] = "no"
    if spec.bad_rows != "skip":
        found["bad rows"] = spec.bad_rows
    return found


def _column(field: pa.Field) -> str:
    return f"{field.name} {sql_name(field.type)}"


def _keys(keys: tuple[int, ...], some: str, none: str) -> str:
    return some if keys else none


def _lateness(us: int) -> str:
    return f" plus {us / 1e6:g} s" if us else ""


def _wrapped(head: str, text: str) -> list[str]:
    room = max(30, WIDTH - len(head))
    lines: list[str] = []
    while len(text) > room:
        cut = max(text.rfind(", ", 0, room), text.rfind(" ", 0, room)) + 1 or room
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    lines.append(text)
    blank = "".join("│" if c == "│" else " " for c in head)
    return [head + lines[0], *(blank + line for line in lines[1:])]
