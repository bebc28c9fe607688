"""From SQL text to plans: the one entry that the floors above use. Runs nothing.

    planner = Planner()                                 # its own empty catalog
    for statement in planner.parse(text):               # statements with their place in the text
        planned = planner.plan(statement)               # binds; changes the catalog; raises coded errors
        planned.changes    tuple[Change, ...]            created / replaced / dropped / altered catalog entries
        planned.outputs    tuple[PlannedOutput, ...]     streams, tables, sinks, selects to be run
        planned.command    Command | None                SHOW, SET, CHECKPOINT, INSERT … VALUES: for the front door
        plan = planner.extend(plan, planned)            # existing nodes keep their positions

    plan, planned = planner.compile(text)               # a whole script as one job
    errors = planner.validate(text)                     # every error of a script; changes nothing
    tree = planner.explain(text)                        # EXPLAIN as text; explain_json as JSON

`extend(plan, a, b, …)` compiles several planned statements together, so that queries of one source share
one node with the columns all of them need; extending one by one shares equal sub-plans, and a source node
that already has the columns. A statement with neither changes, outputs nor command does nothing
(CREATE … IF NOT EXISTS of what exists).

ORDER BY and LIMIT of a bare SELECT are in its `PlannedOutput` and not in the plan: whoever shows the rows applies
them. `LATE DATA TO t` and `bad_rows = t` bring a table `t` along, an output and a catalog entry of its own.

In a `Plan`, `outputs` says which node carries which stream, table, sink or select. Only nodes that
`Plan.reachable` finds from outputs somebody reads need to run: a stream that nobody reads may rest.
A dropped entry is not taken out of a plan by the planner: `Change` says what was dropped, and the driver
retires the nodes that no other output reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from millrace.errors import MillraceError, Position
from millrace.planner.annotations import JOB_DEFAULTS
from millrace.planner.binder.metrics import with_metrics
from millrace.planner.binder.planned import Command, PlannedOutput, PlannedStatement
from millrace.planner.binder.statements import Binder
from millrace.planner.catalog import Catalog
from millrace.planner.dialect.durations import parse_duration
from millrace.planner.explain import explain_json, explain_text
from millrace.planner.physical.compile import Compiler
from millrace.planner.plan import OutputKind, Plan
from millrace.planner.rules.expire_state import expire_state
from millrace.planner.script import parse_script
from millrace.planner.statements import Explain, Script, SetVariable, Statement
from millrace.planner.user_functions import activate


@dataclass(slots=True)
class Planner:
    """Binds statements against its catalog and grows plans out of them."""

    catalog: Catalog = field(default_factory=Catalog)
    variables: Mapping[str, str] = field(default_factory=dict)
    """What `${NAME}` in the text stands for."""
    state_ttl: int | None = None
    """After how many µs joins forget what was not touched (the setting `state.ttl`); None: never."""
    bad_rows: str = "skip"
    """The setting `bad_rows`: fail, skip, or the table for bad records of sources that do not say."""

    def script(self, text: str) -> Script:
        """The text parsed: statements, and every error of syntax."""
        return parse_script(text, self.variables)

    def parse(self, text: str) -> tuple[Statement, ...]:
        """The statements of a text. Raises the first error of syntax."""
        activate(self.catalog)
        script = self.script(text)
        if script.errors:
            raise script.errors[0]
        return script.statements

    def plan(
        self, statement: Statement, text: str | None = None, *, snapshot: bool = False
    ) -> PlannedStatement:
        """Bind one statement. The catalog changes when all went well.

        With `snapshot` tables are read as they are now, as insertions only: for a query that is answered once.
        `text` is the script that the statement's positions refer to, for the excerpt in errors.
        """
        activate(self.catalog)
        try:
            if isinstance(statement, SetVariable):
                self.set(statement.name or "", statement.value)
            trial = self.catalog.copy() if statement.annotations else self.catalog
            binder = Binder(trial, snapshot, self._default_table())
            planned = self._expiring(with_metrics(binder.bind(statement)))
            self.catalog.take(trial)
            return planned
        except MillraceError as error:
            if error.source_text is None and error.position is not None:
                error.source_text = statement.text if text is None else text
            raise

    def set(self, name: str, value: str | None) -> None:
        """Heed a setting that concerns planning; None: as if it had not been set."""
        match name.strip().casefold():
            case "state.ttl" | "state_ttl":
                self.state_ttl = parse_ttl(value or "")
            case "bad_rows":
                self.bad_rows = (value or "skip").strip()

    def _default_table(self) -> str:
        """What the setting `bad_rows` means for a source that is declared: fail is a matter of the whole job."""
        return "skip" if self.bad_rows.lower() in ("skip", "fail") else self.bad_rows

    def _expiring(self, planned: PlannedStatement) -> PlannedStatement:
        if self.state_ttl is None:
            return planned
        ttl = self.state_ttl
        outputs = tuple(replace(o, relation=expire_state(o.relation, ttl)) for o in planned.outputs)
        return replace(planned, outputs=outputs)

    def extend(self, plan: Plan, *planned: PlannedStatement, share: frozenset[int] | None = None) -> Plan:
        """The plan with what these statements yield; nodes that are there keep their positions.

        Of those, only the ones in `share` are read by what is new (None: any): a node that has run for a
        while would withhold the rows it has sent already. Materialised tables hand them over.
        """
        compiler = Compiler.over(plan, share)
        outputs = [output for one in planned for output in one.outputs]
        for output in outputs:
            compiler.announce(output.relation, kept=output.kind in (OutputKind.STREAM, OutputKind.TABLE))
        for output in outputs:
            try:
                _compile(compiler, output)
            except MillraceError as error:
                if error.position is None:
                    error.position = output.position
                raise
        return compiler.plan()

    def compile(self, text: str, plan: Plan | None = None) -> tuple[Plan, tuple[PlannedStatement, ...]]:
        """A whole script as one job."""
        planned = tuple(self.plan(_explained(statement), text) for statement in self.parse(text))
        try:
            return self.extend(plan or Plan(), *planned), planned
        except MillraceError as error:
            if error.source_text is None and error.position is not None:
                error.source_text = text
            raise

    def explain(self, text: str, variables: Mapping[str, str] | None = None) -> str:
        """The plan of a script as trees, one an output, and annotations of it. The catalog stays as it is."""
        plan, planned = self._trial(text, variables)
        found = [a.name for one in planned for a in one.statement.annotations if a.name in JOB_DEFAULTS]
        if not found:
            return explain_text(plan)
        noted = ", ".join(f"@{name}" for name in dict.fromkeys(found))
        return f"{explain_text(plan)}\nfor run and submit: {noted}"

    def explain_json(self, text: str, variables: Mapping[str, str] | None = None) -> str:
        """The plan of a script as one JSON object."""
        return explain_json(self._trial(text, variables)[0])

    def _trial(
        self, text: str, variables: Mapping[str, str] | None
    ) -> tuple[Plan, tuple[PlannedStatement, ...]]:
        trial = self._copy(variables)
        return trial.compile(text)

    def _copy(self, variables: Mapping[str, str] | None) -> Planner:
        """A planner in the same state, to try statements on."""
        given = self.variables if variables is None else variables
        return Planner(self.catalog.copy(), given, self.state_ttl, self.bad_rows)

    def validate(self, text: str, variables: Mapping[str, str] | None = None) -> tuple[MillraceError, ...]:
        """Every error of a script, by place. The catalog stays as it is.

        What a failed statement would have declared is taken as unknown: statements that read it are not
        blamed for that.
        """
        trial = self._copy(variables)
        script = trial.script(text)
        errors = list(script.errors)
        missing: set[str] = set()
        for statement in script.statements:
            try:
                trial.extend(Plan(), trial.plan(statement, text))
            except MillraceError as error:
                error.source_text = text
                name = getattr(statement, "name", None)
                if name is not None:
                    missing.add(str(name).casefold())
                if not (
                    error.code == "MR1201" and any(m in error.message.casefold().split() for m in missing)
                ):
                    errors.append(error)
        return tuple(sorted(errors, key=_place))


def parse_ttl(text: str) -> int | None:
    """A time to live in µs; '', 0 and 'never' are none. Raises Invalid MR1030 where it is no duration."""
    if text.strip().casefold() in ("", "0", "never"):
        return None
    ttl = parse_duration(text)
    return ttl if ttl > 0 else None


def _compile(compiler: Compiler, output: PlannedOutput) -> None:
    relation = output.relation
    match output.kind:
        case OutputKind.SINK:
            assert output.sink is not None and output.mode is not None
            compiler.add_sink(output.name, relation, output.sink, output.mode, output.taps)
        case OutputKind.TABLE:
            compiler.add_table(output.name, relation, output.taps)
        case _:
            compiler.add_stream(output.name, relation, output.kind, output.taps)


def _explained(statement: Statement) -> Statement:
    return statement.statement if isinstance(statement, Explain) else statement


def _place(error: MillraceError) -> tuple[int, int]:
    at = error.position or Position(0, 0)
    return at.line, at.column


__all__ = ["Command", "PlannedOutput", "PlannedStatement", "Planner"]
