"""The embedded database: SQL in, rows in and out, no server. Leaves planning and running to the floors below."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import pyarrow as pa

from millrace.answers import (
    arranged,
    check_ends,
    custom_metrics_of,
    dead_letters_of,
    done,
    effect_of,
    folded,
    measures_of,
    metrics_of,
    table_of,
)
from millrace.catalog_views import describe, schema_rows, show, text_rows
from millrace.cluster.dataflow import Dataflow
from millrace.cluster.embedded import EmbeddedRuntime, Progress, materialised
from millrace.cluster.job import check_nodes
from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.operators.connectors.console import ConsoleSpec, LineSink
from millrace.operators.connectors.push import PushSpec, to_batches
from millrace.operators.sink import Changelog
from millrace.persistence import Kept, Persistence, Pushed, check_unlogged, lasting, pushed_into
from millrace.planner.catalog import ChangeKind, Function
from millrace.planner.dialect.durations import parse_duration
from millrace.planner.dialect.types import parse_type
from millrace.planner.explain import explain_json, explain_text
from millrace.planner.plan import OutputKind, Plan
from millrace.planner.session import PlannedStatement, Planner, parse_ttl
from millrace.planner.statements import (
    Checkpoint,
    Delete,
    Describe,
    Explain,
    Restore,
    SelectStatement,
    SetVariable,
    Show,
    ShowKind,
    Statement,
    Subscribe,
    Update,
)
from millrace.planner.user_functions import declare_function
from millrace.result import Result
from millrace.row_changes import row_change
from millrace.settings import Settings
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.subscription import Subscription, converter

Row = TypeVar("Row")

MAX_WAITING_ROWS = 10_000_000


def connect(*, restore_from: str | None = None, **settings: str | int) -> Database:
    """An embedded database in this process. `settings` are those of `SET`, e.g. `batch_max_rows=8192`.

    With `checkpoint_store='file:///…'` it outlives the process: what was declared, what tables hold and what was
    pushed is there again with the next `connect`, after a crash too, and each row reaches a sink that commits
    exactly once. `restore_from` names an older checkpoint (`2.17`) to go back to.
    """
    return Database(Settings().with_values({k: str(v) for k, v in settings.items()}), restore_from)


class Database:
    """Sources, streams, tables and sinks, and the dataflow that computes them.

    What a statement declares runs from the moment `execute` returns: tables and sinks on a thread of
    their own, streams when somebody subscribes to them. Every query sees the whole of a source that can
    be read again, and what is pushed from then on of one that can't. All methods may be called from any
    thread.
    """

    def __init__(self, settings: Settings | None = None, restore_from: str | None = None) -> None:
        self.settings = settings or Settings()
        self.planner = Planner(state_ttl=parse_ttl(self.settings.state_ttl), bad_rows=self.settings.bad_rows)
        self._runtime = EmbeddedRuntime(
            Dataflow(
                vnodes=self.settings.vnodes,
                batch_rows=self.settings.batch_max_rows,
                stop_at_bad_rows=self.settings.bad_rows == "fail",
            )
        )
        self._subscriptions: list[Subscription[Any]] = []
        self._closed = False
        self._persistence: Persistence | None = None
        if self.settings.checkpoint_store:
            self._open(None if restore_from is None else CheckpointNumber.parse(restore_from))
        elif restore_from is not None:
            raise Invalid(
                "there is no checkpoint to restore without a place for checkpoints",
                code="MR1560",
                hint="give checkpoint_store='file:///…' too",
            )

    def execute(self, sql: str, variables: Mapping[str, str] | None = None) -> Result:
        """Run all statements of `sql`; answers the last one's rows, or what was done.

        `variables` fill `${NAME}`. Statements before one that fails have taken effect.
        """
        with self._runtime.lock:
            self._check_open()
            self.planner.variables = dict(variables or {})
            statements = self.planner.parse(sql)
            first = end = 0
            pending: list[PlannedStatement] = []
            answer = done("nothing to do")
            try:
                for statement in statements:
                    if isinstance(statement, Checkpoint):
                        self._run(pending)
                        self._keep(sql, statements, first, end)
                        first = end
                        answer = done(f"checkpoint {self.checkpoint()}")
                    else:
                        answer = self._execute_one(statement, sql, pending)
                    end += 1
            finally:
                self._run(pending)
                self._keep(sql, statements, first, end)
            return answer

    def query(self, sql: str) -> Result:
        """The rows of one SELECT over what tables hold now; sources in it must be bounded and are read whole."""
        with self._runtime.lock:
            self._check_open()
            statements = self.planner.parse(sql)
            if len(statements) != 1 or not isinstance(statements[0], SelectStatement):
                raise Invalid(
                    "query takes one SELECT", code="MR1506", hint="use execute for other statements"
                )
            return self._select(statements[0], sql)

    @overload
    def subscribe(
        self, query: str, form: Literal["arrow"] = "arrow", *, max_rows: int = MAX_WAITING_ROWS
    ) -> Subscription[pa.RecordBatch]: ...
    @overload
    def subscribe(
        self, query: str, form: Literal["rows"], *, max_rows: int = MAX_WAITING_ROWS
    ) -> Subscription[dict[str, object]]: ...
    @overload
    def subscribe(
        self, query: str, form: type[Row], *, max_rows: int = MAX_WAITING_ROWS
    ) -> Subscription[Row]: ...
    def subscribe(
        self, query: str, form: str | type = "arrow", *, max_rows: int = MAX_WAITING_ROWS
    ) -> Subscription[Any]:
        """The rows of a stream, a table or a SELECT as they come: Arrow batches, dicts or dataclass instances.

        A table gives its present rows first. Rows of a changelog carry `_weight`: +1 inserts, −1 takes back.
        """
        with self._runtime.lock:
            self._check_open()
            text = query if len(query.split()) > 1 else f"SELECT * FROM {query}"
            statements = self.planner.parse(text)
            if len(statements) != 1 or not isinstance(statements[0], SelectStatement | Subscribe):
                raise Invalid("subscribe takes a name or one SELECT", code="MR1502")
            return self._subscribe(statements[0], text, query, form, max_rows)

    def push(self, name: str, data: object) -> int:
        """Send rows into a push source, through everything that reads it; answers how many were taken.

        `data` is a dict, dicts, dataclass instances, an Arrow batch or table, a pandas or Polars frame, or
        anything with `__arrow_c_stream__`. Rows that do not fit the columns go to the dead letters.
        """
        spec = self._push_source(name)
        batches, bad = to_batches(data, spec.schema)
        self._take(spec, Pushed(batches, bad))
        return sum(batch.num_rows for batch in batches)

    def end(self, name: str) -> None:
        """No row will be pushed into this source any more: windows over it close, iteration of readers ends."""
        self._take(self._push_source(name), Pushed([], [], ended=True))

    def holds(self, sql: str, variables: Mapping[str, str]) -> bool:
        """Whether the database was brought back with what `sql` declares, so that it must not be executed again.

        Raises Invalid MR1569 where it was brought back with something else.
        """
        return self._persistence is not None and self._persistence.holds(sql, variables)

    def checkpoint(self) -> str:
        """Keep everything as it is now, and publish what sinks hold; answers the checkpoint's number.

        It happens by itself every `checkpoint.interval`. Raises Invalid MR1560 without a place for checkpoints.
        """
        self._check_open()
        if self._persistence is None:
            raise Invalid(
                "there is no place for checkpoints",
                code="MR1560",
                hint="connect(checkpoint_store='file:///…')",
            )
        return str(self._persistence.durability.checkpoint())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all bounded input has been read; False where `timeout` seconds did not suffice."""
        self._check_open()
        return self._runtime.wait(timeout)

    def explain(self, sql: str, format: Literal["text", "json"] = "text") -> str:
        """The plan of the last statement of `sql` with what was decided, as a tree or as JSON."""
        self._check_open()
        return self.planner.explain_json(sql) if format == "json" else self.planner.explain(sql)

    def register_function(
        self,
        name: str,
        function: Callable[..., pa.Array],
        parameters: Sequence[str | pa.DataType],
        returns: str | pa.DataType,
    ) -> None:
        """Make a Python function callable from SQL: it takes an Arrow array a parameter and returns one as long.

        Types are SQL text or Arrow types. Another function registered under that name is replaced, unless
        something that is built on it still stands.
        """
        self._register(name, Function(tuple(map(_type, parameters)), _type(returns), False, function))

    def register_aggregate(
        self,
        name: str,
        factory: Callable[[], object],
        parameters: Sequence[str | pa.DataType],
        returns: str | pa.DataType,
    ) -> None:
        """Make a Python class callable as an aggregate; `factory()` is the state of one group.

        It has `accumulate(*arrays)` and `result()`; `retract(*arrays)` where rows may be taken back, `merge(other)`
        for hopping and cumulating windows. States pickle.
        """
        self._register(name, Function(tuple(map(_type, parameters)), _type(returns), True, factory))

    def register_table_function(
        self,
        name: str,
        function: Callable[..., object],
        parameters: Sequence[str | pa.DataType],
        columns: Mapping[str, str | pa.DataType] | pa.Schema,
    ) -> None:
        """Make a Python function callable in FROM: `FROM t, LATERAL TABLE(name(t.x)) AS u`.

        It takes an Arrow array a parameter and returns `(rows, parents)`: a table (or mapping of arrays) with these
        columns, and for each of its rows the position of the input row that it belongs to. Or one array of lists,
        as long as the input, with the new rows of each input row.
        """
        if not isinstance(columns, pa.Schema):
            columns = pa.schema([pa.field(n, _type(t)) for n, t in columns.items()])
        self._register(name, Function(tuple(map(_type, parameters)), columns, False, function))

    def metrics(self) -> Result:
        """One row for each running node: rows in and out, late and dead rows, time spent, watermark."""
        with self._runtime.lock:
            return metrics_of(self._runtime)

    def custom_metrics(self) -> Result:
        """What `@metric` annotations count: one row a sample, named as Prometheus names it."""
        return custom_metrics_of(self._runtime)

    def names(self) -> list[str]:
        """Names of all sources, streams, tables, sinks and functions of users."""
        return [entry.name for entry in self.planner.catalog]

    @property
    def finished(self) -> bool:
        """Whether no source will give rows by itself any more: all have ended, push sources aside."""
        with self._runtime.lock:
            sources = self._runtime.dataflow.sources
            return all(v.ended or isinstance(v.spec.source, PushSpec) for v in sources)

    def progress(self) -> Progress:
        """Rows in, rows out, watermark and time, over everything that runs."""
        return self._runtime.progress()

    def dead_letters(self) -> Result:
        """The latest records that did not decode or compute, at most 20 a node, where no table takes them."""
        with self._runtime.lock:
            return dead_letters_of(self._runtime)

    def close(self) -> None:
        """Publish what sinks hold, stop everything, end all subscriptions. Closing twice does nothing.

        Raises what broke while the database ran, if no call has raised it yet.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._runtime.close()
        finally:
            if self._persistence is not None:
                self._persistence.close()
        for subscription in self._subscriptions:
            subscription.finish()
        self._runtime.raise_untold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except MillraceError:
            if kind is None:
                raise

    def __repr__(self) -> str:
        names = ", ".join(entry.name for entry in self.planner.catalog)
        state = "closed" if self._closed else "open"
        return f"<millrace.Database {state}: {names or 'empty'}>"

    def _open(self, restore_from: CheckpointNumber | None) -> None:
        """Take the kept database over and bring it back as it was."""
        self._runtime.paused = True
        kept = Persistence(self.settings, self._runtime, restore_from, lambda: self.settings.guarantee)
        self._runtime.durability = kept.durability
        interval = parse_duration(self.settings.checkpoint_interval) / 1e6
        try:
            with self._runtime.lock:
                kept.replay(self._execute_again, self._push, lambda: kept.durability.begin(interval))
        except BaseException:
            kept.close()
            raise
        self._persistence = kept

    def _execute_again(self, call: Kept) -> None:
        self.planner.variables = dict(call.variables)
        pending: list[PlannedStatement] = []
        for statement in self.planner.parse(call.sql)[call.first : call.end]:
            if lasting(statement):
                self._execute_one(statement, call.sql, pending)
            else:
                self._run(pending)
        self._run(pending)

    def _keep(self, sql: str, statements: Sequence[Statement], first: int, end: int) -> None:
        """Remember statements that took effect."""
        if self._persistence is not None and any(map(lasting, statements[first:end])):
            self._persistence.keep(sql, self.planner.variables, first, end)

    def _take(self, spec: PushSpec, pushed: Pushed) -> None:
        """Send rows through, once they are in the log where there is one; returns when they are on disk."""
        kept, number = self._persistence, None
        with self._runtime.lock:
            self._check_open()
            if kept is not None and spec.wal is not False:
                number = kept.log(spec.name, pushed)
            self._push(spec.name, pushed)
        if kept is not None and number is not None:
            kept.sync(spec.name, number)

    def _push(self, name: str, pushed: Pushed) -> None:
        vertices = self._runtime.dataflow.pushed(name)
        if pushed.ended:
            for vertex in vertices:
                vertex.end()
        else:
            self._runtime.push(vertices, pushed.batches, pushed.bad, pushed.taken)

    def _execute_one(self, statement: Statement, sql: str, pending: list[PlannedStatement]) -> Result:
        match statement:
            case SelectStatement() if not statement.writes:
                self._run(pending)
                return self._select(statement, sql)
            case Explain():
                self._run(pending)
                return self._explain(statement, sql)
            case Show() | Describe():
                return self._look(statement, sql)
            case SetVariable():
                self._run(pending)
                self._set(statement, sql)
                return done(f"{'re' if statement.value is None else ''}set {statement.name or 'everything'}")
            case Restore():
                raise Unsupported(
                    "an open database can not go back to a checkpoint",
                    code="MR1934",
                    hint="SHOW CHECKPOINT STATUS lists them; connect(…, restore_from='2.17')",
                    position=statement.position,
                )
            case Subscribe():
                self._run(pending)
                self._show(statement, sql)
                return done(f"subscribed to {statement.name}")
            case Update() | Delete():
                self._run(pending)
                return self._change_rows(statement, sql)
        planned = self.planner.plan(statement, sql)
        command = planned.command
        if command is not None and command.rows is not None and command.target is not None:
            self._run(pending)
            return done(f"inserted {self.push(command.target.name, command.rows)} rows")
        if command is not None:
            raise Unsupported(
                f"{type(statement).__name__} can not be run embedded",
                code="MR1930",
                position=statement.position,
            )
        gone = [c.entry.name for c in planned.changes if c.kind in (ChangeKind.DROPPED, ChangeKind.REPLACED)]
        if gone:
            self._run(pending)
            for name in gone:
                self._end_former(name)
                self._runtime.drop(name)
        if self._persistence is None and not self._runtime.paused:
            check_unlogged(planned)
        pending.append(planned)
        return done(effect_of(planned))

    def _end_former(self, name: str) -> None:
        """End the input of what is dropped, and give nothing to its readers from what has its name later."""
        for vertex in self._runtime.dataflow.pushed(name):
            if not vertex.ended:
                vertex.end()
            self._runtime.dataflow.former.add(vertex.position)
        outputs = self._runtime.plan.outputs
        self._runtime.dataflow.former.update(o.node for o in outputs if o.name.casefold() == name.casefold())

    def _run(self, pending: list[PlannedStatement]) -> None:
        running = [
            planned
            for planned in pending
            if any(o.taps or o.kind in (OutputKind.TABLE, OutputKind.SINK) for o in planned.outputs)
        ]
        pending.clear()
        if running:
            plan = self.planner.extend(self._runtime.plan, *running, share=self._tables())
            if self._runtime.durability is not None:
                new = plan.nodes[len(self._runtime.plan.nodes) :]
                check_nodes(new, self.settings.guarantee, logs=True)
            self._runtime.extend(plan)
            self._runtime.start()

    def _select(self, statement: SelectStatement, sql: str) -> Result:
        planned, plan, position = self._plan_select(statement, sql, snapshot=True)
        check_ends(plan.nodes[len(self._runtime.plan.nodes) :])
        batches = self._runtime.answer(plan, position)
        node = plan.nodes[position]
        rows = arranged(folded(batches, node), planned.outputs[0])
        self._runtime.answered.rows_out += rows.num_rows
        return Result(rows)

    def _subscribe(
        self, statement: Statement, sql: str, name: str, form: str | type, max_rows: int
    ) -> Subscription[Any]:
        _, plan, position = self._plan_select(statement, sql, streamed=True)
        node = plan.nodes[position]
        changelog = node.changelog is not Changelog.APPEND
        stop: list[Callable[[], None]] = []
        subscription: Subscription[Any] = Subscription(
            name,
            node.schema,
            converter(form, node.schema),
            changelog=changelog,
            max_rows=max_rows,
            on_close=lambda: stop[0](),
        )
        stop.append(
            self._runtime.subscribe(
                plan, position, subscription.deliver, subscription.finish, subscription.fail
            )
        )
        self._subscriptions.append(subscription)
        self._runtime.start()
        return subscription

    def _set(self, statement: SetVariable, sql: str) -> None:
        """What runs already goes on as before; what comes is run under the new settings."""
        name, value = statement.name, statement.value
        try:
            changed = self.settings.changed(name, value)
        except MillraceError as error:
            error.position, error.source_text = error.position or statement.position, sql
            raise
        self.planner.state_ttl = parse_ttl(changed.state_ttl)
        self.planner.bad_rows = changed.bad_rows
        self._runtime.dataflow.batch_rows = changed.batch_max_rows
        self._runtime.dataflow.stop_at_bad_rows = changed.bad_rows == "fail"
        self.settings = changed

    def _show(self, statement: Subscribe, sql: str) -> None:
        """Write the rows of a subscription to standard output as they come."""
        _, plan, position = self._plan_select(statement, sql, streamed=True)
        node = plan.nodes[position]
        lines = LineSink(ConsoleSpec(node.schema, node.changelog, label=str(statement.name)), sys.stdout)
        self._runtime.subscribe(plan, position, lines.write, lines.close, lambda error: lines.close())
        self._runtime.start()

    def _change_rows(self, statement: Update | Delete, sql: str) -> Result:
        planned, plan, position = self._plan_select(statement, sql, snapshot=True)
        assert planned.command is not None and planned.command.target is not None
        target, key = planned.command.target, planned.command.key
        before = self._runtime.answered.dead_rows
        rows = folded(self._runtime.answer(plan, position), plan.nodes[position])
        if self._runtime.answered.dead_rows > before:
            raise Invalid(
                f"some rows of {target.name} can not be computed, so none was changed",
                code="MR1145",
                hint="dead_letters() tells which; leave them out with WHERE, or use TRY_CAST and CASE",
                position=statement.position,
                source_text=sql,
            )
        change = row_change(rows, target, key, lambda: table_of(self._runtime, target.name))
        if change.batches:
            self._take(self._push_source(target.name), change)
        word = "updated" if isinstance(statement, Update) else "deleted"
        return done(f"{word} {rows.num_rows} rows")

    def _plan_select(
        self, statement: Statement, sql: str, *, snapshot: bool = False, streamed: bool = False
    ) -> tuple[PlannedStatement, Plan, int]:
        planned = self.planner.plan(statement, sql, snapshot=snapshot)
        if streamed:
            try:
                planned = planned.streamed()
            except MillraceError as error:
                error.source_text = sql
                raise
        before = self._runtime.plan
        plan = self.planner.extend(before, planned, share=self._tables())
        (node,) = (o.node for o in plan.outputs[len(before.outputs) :] if o.kind is OutputKind.SELECT)
        return planned, plan, node

    def _tables(self) -> frozenset[int]:
        """Nodes that new queries may read as they run: materialised tables, which hand over what they hold."""
        dataflow = self._runtime.dataflow
        return (
            frozenset(v.position for v in dataflow.vertices if materialised(v))
            - dataflow.retired
            - dataflow.former
        )

    def _push_source(self, name: str) -> PushSpec:
        entry = self.planner.catalog.get(name, what="push source")
        source = pushed_into(entry)
        if source is None:
            raise Invalid(
                f"{entry.name} is no push source", code="MR1505", hint="WITH ('connector' = 'push') makes one"
            )
        return source

    def _explain(self, statement: Explain, sql: str) -> Result:
        if not statement.analyze:
            explain = self.planner.explain_json if statement.json else self.planner.explain
            return text_rows(["plan"], [(line,) for line in explain(statement.text).splitlines()])
        inner = statement.statement
        if not isinstance(inner, SelectStatement) or inner.writes:
            raise Unsupported(
                "EXPLAIN ANALYZE runs a SELECT, and no other statement",
                code="MR1955",
                hint="EXPLAIN shows the plan; SHOW METRICS what each node of what runs has done",
                position=inner.position,
            )
        _, plan, position = self._plan_select(inner, sql, snapshot=True)
        check_ends(plan.nodes[len(self._runtime.plan.nodes) :])
        measured: dict[int, dict[str, float]] = {}
        self._runtime.answer(plan, position, lambda ran: measured.update(measures_of(ran)))
        own = replace(plan, outputs=tuple(o for o in plan.outputs if o.node == position))
        told = explain_json(own, measured) if statement.json else explain_text(own, measured)
        return text_rows(["plan"], [(line,) for line in told.splitlines()])

    def _look(self, statement: Show | Describe, sql: str) -> Result:
        if isinstance(statement, Show):
            if statement.kind is ShowKind.CHECKPOINT_STATUS and self._persistence is not None:
                return text_rows(["checkpoint", "kind"], self._persistence.status())
            return show(self.planner.catalog, statement, self.settings, self.metrics)
        if statement.query is not None:
            select = SelectStatement(position=statement.position, text=statement.text, query=statement.query)
            planned, plan, position = self._plan_select(select, sql)
            schema = plan.nodes[position].schema
            return schema_rows(pa.schema(list(schema)[: len(schema) - planned.outputs[0].hidden]))
        return describe(self.planner.catalog, statement)

    def _register(self, name: str, function: Function) -> None:
        with self._runtime.lock:
            self._check_open()
            declare_function(self.planner.catalog, name, function, replace=True)

    def _check_open(self) -> None:
        if self._closed:
            raise Invalid("the database is closed", code="MR1500", hint="connect again")


def _type(type: str | pa.DataType) -> pa.DataType:
    return parse_type(type).arrow if isinstance(type, str) else type
