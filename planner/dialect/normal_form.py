"""One tree for all spellings: windows in GROUP BY, their bounds, named windows and emission, put in order in a SELECT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.nodes import Call, GroupWindow, WindowBound, position_of
from millrace.planner.dialect.windows import WindowClause, group_window, is_window_call

_BOUNDS = {"start": "start", "end": "end", "rowtime": "time", "time": "time"}
_BOUND_CALLS = {
    f"{window}_{suffix}": (window, bound)
    for window in ("tumble", "hop", "slide", "session", "cumulate")
    for suffix, bound in (("start", "start"), ("end", "end"), ("rowtime", "time"))
}
_COLUMNS = {"WINDOW_START": "start", "WINDOW_END": "end", "WINDOW_TIME": "time"}
_SYSTEM_COLUMNS = {"_WINDOW_START": "start", "_WINDOW_END": "end"}


@dataclass(slots=True)
class Pending:
    """A SELECT as read, with what its own words say of windows."""

    select: exp.Select
    clause: WindowClause | None = None
    named: dict[str, exp.Window] = field(default_factory=dict)
    keys: list[exp.Expression] = field(default_factory=list)


def normalise(cursor: Cursor, pending: Pending) -> None:
    """Turns the SELECT into the form that `nodes` documents. Raises Invalid MR1045…MR1047, MR1053."""
    select = pending.select
    if pending.keys:
        select.set("key", pending.keys)
    _fill_named_windows(cursor, pending)
    if not _concerns_windows(pending):
        return
    window = _place_group_window(cursor, pending)
    _place_bounds(cursor, select, window)
    emit = select.args.get("emit")
    if pending.clause is not None and emit is not None and emit.args["mode"] == "changes":
        emit.set("mode", "every_record")


def _concerns_windows(pending: Pending) -> bool:
    if pending.clause is not None:
        return True
    for node in _scope(pending.select):
        if isinstance(node, Call):
            name = node.args["this"]
            if name in _BOUND_CALLS or is_window_call(node):
                return True
        elif isinstance(node, exp.Identifier) and node.name.upper() in _SYSTEM_COLUMNS:
            return True
    return False


def _scope(select: exp.Select) -> Iterator[exp.Expression]:
    """All nodes of the SELECT's own clauses, FROM and subqueries aside."""
    for key in ("expressions", "where", "group", "having", "qualify", "order", "distinct"):
        value = select.args.get(key)
        for root in value if isinstance(value, list) else [value] if value is not None else []:
            yield from root.walk(prune=lambda node: isinstance(node, exp.Query))


# Named windows


def _fill_named_windows(cursor: Cursor, pending: Pending) -> None:
    for node in list(_scope(pending.select)):
        if isinstance(node, exp.Window) and node.args.get("alias") is not None:
            seen: set[str] = set()
            while (name := node.args.get("alias")) is not None:
                found = pending.named.get(name.name.upper())
                if found is None or name.name.upper() in seen:
                    known = ", ".join(key.lower() for key in pending.named)
                    hint = (
                        f"defined are: {known}"
                        if known
                        else "define it: WINDOW w AS (PARTITION BY … ORDER BY …)"
                    )
                    cursor.fail(f"there is no window {name.name}", "MR1053", hint=hint, at=position_of(name))
                seen.add(name.name.upper())
                _inherit(cursor, node, found, name)


def _inherit(cursor: Cursor, node: exp.Window, found: exp.Window, name: exp.Expression) -> None:
    for key in ("partition_by", "order", "spec"):
        inherited = found.args.get(key)
        if inherited is None:
            continue
        if node.args.get(key):
            cursor.fail(
                f"window {name.name} has its {key.replace('_', ' ').upper()} already",
                "MR1017",
                at=position_of(name),
            )
        node.set(
            key, [item.copy() for item in inherited] if isinstance(inherited, list) else inherited.copy()
        )
    further = found.args.get("alias")
    node.set("alias", further.copy() if further is not None else None)


# The window of the group


def _place_group_window(cursor: Cursor, pending: Pending) -> GroupWindow | None:
    select = pending.select
    group = select.args.get("group")
    windows: list[GroupWindow] = []
    if group is not None:
        items: list[exp.Expression] = []
        for item in group.expressions:
            meant = _meant_window(select, item)
            if meant is None:
                if any(is_window_call(node) for node in item.walk()):
                    cursor.fail(
                        "a window can not stand inside an expression or a grouping set",
                        "MR1986",
                        hint="make it a group expression of its own",
                        at=position_of(item),
                    )
                items.append(item)
                continue
            window = group_window(cursor, meant)
            place = position_of(item)
            if place is not None:
                window.meta.update(line=place.line, col=place.column, length=place.length)
            windows.append(window)
            items.append(window)
        group.set("expressions", items)
    if pending.clause is not None:
        windows.append(pending.clause.window)
        _add_clause(select, pending.clause)
    if len(windows) > 1:
        at = position_of(windows[1])
        cursor.fail("a query has one window", "MR1046", hint="put one of them into a subquery", at=at)
    return windows[0] if windows else None


def _add_clause(select: exp.Select, clause: WindowClause) -> None:
    group = select.args.get("group")
    if group is None:
        group = exp.Group(expressions=[])
        select.set("group", group)
    items = list(group.expressions)
    items += [key for key in clause.keys if key not in items]
    group.set("expressions", [*items, clause.window])


def _meant_window(select: exp.Select, item: exp.Expression) -> Call | None:
    """The window call that a group item is or names by alias or ordinal."""
    if is_window_call(item):
        assert isinstance(item, Call)
        return item
    target: exp.Expression | None = None
    projections = select.expressions
    if isinstance(item, exp.Literal) and not item.is_string and item.name.isdecimal():
        index = int(item.name) - 1
        target = projections[index] if 0 <= index < len(projections) else None
    elif isinstance(item, exp.Column) and not item.table:
        name = item.name.upper()
        target = next((p for p in projections if isinstance(p, exp.Alias) and p.alias.upper() == name), None)
    if isinstance(target, exp.Alias):
        target = target.this
    return target if isinstance(target, Call) and is_window_call(target) else None


# The bounds of the window


def _place_bounds(cursor: Cursor, select: exp.Select, window: GroupWindow | None) -> None:
    aliases = {
        p.alias.upper() for p in select.expressions if isinstance(p, exp.Alias) and is_window_call(p.this)
    }
    grouped = _grouped_names(select)
    for node in list(_scope(select)):
        bound = _bound(cursor, node, window, aliases, grouped)
        if bound is None:
            continue
        place = position_of(node)
        new = WindowBound(bound=bound)
        if place is not None:
            new.meta.update(line=place.line, col=place.column, length=place.length)
        # An output column keeps the name that the spelling gives it.
        name = _output_name(node) if node.parent is select and node.arg_key == "expressions" else ""
        node.replace(exp.Alias(this=new, alias=exp.Identifier(this=name, quoted=False)) if name else new)


def _grouped_names(select: exp.Select) -> set[str]:
    group = select.args.get("group")
    items = group.expressions if group is not None else []
    return {item.name.upper() for item in items if isinstance(item, exp.Column) and not item.table}


def _output_name(node: exp.Expression) -> str:
    if isinstance(node, exp.Column):
        return node.name
    if isinstance(node, exp.Dot):
        return node.expression.name
    return str(node.args["this"]) if isinstance(node, Call) else ""


def _bound(
    cursor: Cursor, node: exp.Expression, window: GroupWindow | None, aliases: set[str], grouped: set[str]
) -> str | None:
    """Which bound of the window `node` is, or None where it is none."""
    if isinstance(node, Call):
        name = str(node.args["this"])
        if name in _BOUND_CALLS:
            kind, bound = _BOUND_CALLS[name]
            _same_window(cursor, node, kind, window)
            return bound
        if is_window_call(node) and not isinstance(node.parent, exp.Dot):
            _same_window(cursor, node, name, window)
            return "struct"
    elif isinstance(node, exp.Dot):
        if isinstance(node.this, Call) and is_window_call(node.this):
            bound = _BOUNDS.get(node.expression.name.lower(), "")
            if not bound:
                at = position_of(node.expression)
                cursor.fail(
                    f"a window has no field {node.expression.name}",
                    "MR1045",
                    hint="use .start or .end",
                    at=at,
                )
            _same_window(cursor, node.this, str(node.this.args["this"]), window)
            return bound
    elif isinstance(node, exp.Column) and window is not None and isinstance(node.this, exp.Identifier):
        upper = node.name.upper()
        if upper in _SYSTEM_COLUMNS:
            return _SYSTEM_COLUMNS[upper]
        if not node.table and upper in _COLUMNS and upper not in grouped:
            return _COLUMNS[upper]
        if node.table.upper() in aliases and node.name.lower() in _BOUNDS:
            return _BOUNDS[node.name.lower()]
    return None


def _same_window(cursor: Cursor, call: Call, kind: str, window: GroupWindow | None) -> None:
    shown = str(call.args["this"]).upper()
    at = position_of(call)
    if window is None:
        cursor.fail(
            f"{shown} has no window in GROUP BY", "MR1045", hint=f"add {kind.upper()}(…) to GROUP BY", at=at
        )
    if not call.expressions:
        return
    meant = Call(this=kind, expressions=[argument.copy() for argument in call.expressions])
    meant.meta.update(call.meta)
    if group_window(cursor, meant) != window:
        hint = "give it the same arguments, or none"
        cursor.fail(f"{shown} is not the window in GROUP BY", "MR1045", hint=hint, at=at)
