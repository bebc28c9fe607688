"""What makes a database outlive its process: statements and pushed rows that are kept, beside its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import msgpack
import pyarrow as pa

from millrace.cluster.durability import Durability
from millrace.cluster.embedded import EmbeddedRuntime
from millrace.errors import Fenced, Invalid
from millrace.operators.connectors.push import PushSpec
from millrace.operators.source import BadRecord
from millrace.planner.catalog import Entry
from millrace.planner.logical import Read, Scan
from millrace.planner.session import PlannedStatement
from millrace.planner.statements import (
    Checkpoint,
    Delete,
    Describe,
    Explain,
    InsertValues,
    SelectStatement,
    Show,
    Statement,
    Subscribe,
    Update,
)
from millrace.settings import Settings
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.sealed import seal, unseal
from millrace.state.store import open_store
from millrace.state.wal import IngestLog, own

STATEMENTS = "statements"
"""Among the inputs of a checkpoint: how many kept calls of `execute` are in it. Other inputs are `log:` and a source."""
_LOG = "log:"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """Statements `first` to `end` - 1 of `sql` took effect together. `logs` is where logs stood then."""

    sql: str
    variables: Mapping[str, str]
    first: int
    end: int
    logs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pushed:
    """One call of `push`, or, where `ended`, of `end`. The first `taken` batches are rows that go out of a table."""

    batches: list[pa.RecordBatch]
    bad: list[BadRecord]
    ended: bool = False
    taken: int = 0


def lasting(statement: Statement) -> bool:
    """Whether a statement is to be executed again when the database is opened again: it declares, drops or sets."""
    passing = (
        SelectStatement | Show | Describe | Explain | Subscribe | Checkpoint | InsertValues | Update | Delete
    )
    return not isinstance(statement, passing)


def pushed_into(entry: Entry) -> PushSpec | None:
    """The push source that takes the rows of a source or of a table of ours."""
    relation = entry.relation.input if isinstance(entry.relation, Read) else entry.relation
    source = relation.input.source if isinstance(relation, Scan) else None
    return source if isinstance(source, PushSpec) else None


def check_unlogged(planned: PlannedStatement) -> None:
    """Refuse what wants a log in a database that has none. Raises Invalid MR1561."""
    for change in planned.changes:
        source = pushed_into(change.entry)
        if source is not None and source.wal:
            raise Invalid(
                f"source {change.entry.name} is to log what is pushed, but there is no place for it",
                code="MR1561",
                hint="connect(checkpoint_store='file:///…'), or leave the option 'wal' out",
            )


class Persistence:
    """The kept calls and logs of one database, and its checkpoints. All but `sync` is called under the runtime's lock.

    Invariant: what a checkpoint says of inputs is in the store and on disk before it is decided.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: EmbeddedRuntime,
        restore_from: CheckpointNumber | None,
        guarantee: Callable[[], str],
    ) -> None:
        self.job = settings.job
        self._folder = _folder(settings)
        self._owned = None if self._folder is None else own(self._folder)
        self._logs: dict[str, IngestLog] = {}
        self._taken: dict[str, int] = {}
        self._calls = 0
        try:
            self.durability = Durability(
                open_store(settings.checkpoint_store),
                settings.job,
                runtime,
                vnodes=settings.vnodes,
                guarantee=guarantee,
                restore_from=restore_from,
                inputs=self._inputs,
                on_decided=self._trim,
            )
            self.kept = tuple(self._read_calls())
        except BaseException:
            self.close()
            raise

    def replay(
        self, run: Callable[[Kept], None], push: Callable[[str, Pushed], None], begin: Callable[[], None]
    ) -> None:
        """Bring everything back: calls that the checkpoint covers, the checkpoint itself, and what came after it,
        in the order in which it came."""
        inputs = self.durability.inputs
        covered = inputs.get(STATEMENTS, 0)
        for call in self.kept[:covered]:
            run(call)
        self._calls = covered
        self._taken = {name.removeprefix(_LOG): at for name, at in inputs.items() if name.startswith(_LOG)}
        begin()
        for call in self.kept[covered:]:
            for name, upto in call.logs.items():
                self._push_logged(name, upto, push)
            run(call)
            self._calls += 1
        for name in self._logged():
            self._push_logged(name, None, push)

    def keep(self, sql: str, variables: Mapping[str, str], first: int, end: int) -> None:
        """Remember a call of `execute`. Raises Fenced MR4001 where another process has kept one in its place."""
        content = [sql, dict(variables), first, end, dict(self._taken)]
        key = self._key(self._calls + 1)
        if not self.durability.store.create(key, seal("statements", _VERSION, content)):
            raise Fenced(
                f"database {self.job} belongs to another process now",
                code="MR4001",
                hint="stop this one",
            )
        self._calls += 1

    def log(self, name: str, pushed: Pushed) -> int:
        """Add to the log of push source `name`; answers what `sync` is to be given."""
        number = self._log(name).append(_encode(pushed))
        self._taken[name] = number
        return number

    def sync(self, name: str, number: int) -> None:
        """Wait until what was logged is on disk."""
        self._logs[name].sync(number)

    def close(self) -> None:
        """Let another process take the logs."""
        for log in self._logs.values():
            log.close()
        if self._owned is not None:
            self._owned.close()

    def holds(self, sql: str, variables: Mapping[str, str]) -> bool:
        """Whether this very script was kept, so that there is nothing to execute; False where nothing was.

        Raises Invalid MR1569 where something else was.
        """
        if not self.kept:
            return False
        first = self.kept[0]
        if first.sql == sql and first.variables == dict(variables):
            return True
        raise Invalid(
            f"the store keeps another script as {self.job}, with its state",
            code="MR1569",
            hint="run this one under another name (--job), or in another store",
        )

    def status(self) -> list[tuple[str, str]]:
        """Number and kind of the checkpoints that can be gone back to, the oldest first."""
        return [(str(number), kind) for number, kind in self.durability.kept()]

    def _push_logged(self, name: str, upto: int | None, push: Callable[[str, Pushed], None]) -> None:
        log = self._log(name)
        first = self._taken.get(name, 0) + 1
        for number, payload in log.read(first):
            if upto is not None and number > upto:
                return
            push(name, _decode(payload))
            self._taken[name] = number

    def _inputs(self) -> dict[str, int]:
        for log in self._logs.values():
            log.sync()
        return {STATEMENTS: self._calls, **{_LOG + name: at for name, at in self._taken.items()}}

    def _trim(self, oldest: Mapping[str, int]) -> None:
        for name, log in list(self._logs.items()):
            log.trim(oldest.get(_LOG + name, 0) + 1)

    def _log(self, name: str) -> IngestLog:
        if name not in self._logs:
            if self._folder is None:
                raise Invalid(
                    f"rows pushed into {name} have no place to be kept",
                    code="MR1561",
                    hint="connect with state_dir='<a local folder>', or declare the source with 'wal' = 'false'",
                )
            self._logs[name] = IngestLog(self._folder / quote(name, safe=""))
        return self._logs[name]

    def _logged(self) -> list[str]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(unquote(path.name) for path in self._folder.iterdir() if path.is_dir())

    def _read_calls(self) -> Iterator[Kept]:
        number = 1
        while (data := self.durability.store.get(self._key(number))) is not None:
            _, (sql, variables, first, end, logs) = unseal(
                "statements", range(1, _VERSION + 1), data, self._key(number)
            )
            yield Kept(sql, variables, first, end, logs)
            number += 1

    def _key(self, number: int) -> str:
        return f"{self.job}/statements/{number:012d}"


def _folder(settings: Settings) -> Path | None:
    if settings.state_dir:
        return Path(settings.state_dir).expanduser().absolute() / settings.job / "logs"
    scheme, _, place = settings.checkpoint_store.partition("://")
    return Path(unquote(place)).absolute() / settings.job / "logs" if scheme == "file" else None


def _encode(pushed: Pushed) -> bytes:
    sink = pa.BufferOutputStream()
    if pushed.batches:
        with pa.ipc.new_stream(sink, pushed.batches[0].schema) as writer:
            for batch in pushed.batches:
                writer.write_batch(batch)
    bad = [[r.code, r.reason, r.split, r.position, r.payload] for r in pushed.bad]
    packed = msgpack.packb([sink.getvalue().to_pybytes(), bad, pushed.ended, pushed.taken])
    assert packed is not None
    return packed


def _decode(payload: bytes) -> Pushed:
    rows, bad, ended, taken = msgpack.unpackb(payload)
    batches = list(pa.ipc.open_stream(rows)) if rows else []
    return Pushed(batches, [BadRecord(*record) for record in bad], ended, taken)
