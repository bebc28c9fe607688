"""Rows into a PostgreSQL table, in one transaction with the note of what was written. Loaded when one is built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from millrace.errors import Invalid, MillraceError, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors.outboxes import WEIGHT, RowOutbox, last_of_each, rows_of
from millrace.operators.connectors.postgres.spec import PostgresSinkSpec
from millrace.operators.sink import Sink

STAGE = "millrace_stage"
_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
_LATER = ("08", "53", "57", "40", "55P03")
"""Classes of SQLSTATE that pass by themselves: connection, resources, shutdown, deadlock, locks."""


class PostgresSink(Sink):
    """One connection, opened when it is needed and again after a failure.

    Invariant: the marker row of `(job, sink, partition)` is locked before rows are written, so an owner that was
    replaced waits for its successor's transaction, and then sees that its outbox is there.
    """

    def __init__(self, spec: PostgresSinkSpec, partition: int) -> None:
        self._spec = spec
        self._me = (*spec.stream, partition)
        self._rows = RowOutbox(spec.schema)
        self._connection: dbapi.Connection | None = None
        self._noted = False
        self._types: dict[str, str] = {}

    def write(self, batch: Batch) -> None:
        self._rows.write(batch)

    def seal(self, checkpoint: int) -> bytes:
        return self._rows.seal()

    def fence(self) -> None:
        """Make the marker row, where there is none. The lock on it does the rest."""
        if self._spec.stream[0]:
            with self._transaction() as cursor:
                self._note(cursor)

    def marker(self) -> int | None:
        if not self._spec.stream[0]:
            return None
        with self._transaction() as cursor:
            found = self._marked(cursor, lock=False)
        return found or None

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        if not outbox:
            return
        rows = rows_of(outbox, f"outbox {checkpoint} for {self._spec.table}")
        with self._transaction() as cursor:
            if self._spec.stream[0]:
                self._note(cursor)
                if self._marked(cursor, lock=True) >= checkpoint:
                    return
            self._put(cursor, last_of_each(rows, list(self._spec.key)) if self._spec.key else rows)
            if self._spec.stream[0]:
                cursor.execute(
                    f"UPDATE {_quoted(self._spec.marker_table)} SET checkpoint = $4"
                    " WHERE job = $1 AND sink = $2 AND part = $3",
                    (*self._me, checkpoint),
                )

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(adbc_driver_manager.Error):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A cursor in a transaction that ends with the block. Raises Unavailable MR3015, Invalid MR1494."""
        try:
            if self._connection is None:
                self._connection = dbapi.connect(self._spec.url)
            with self._connection.cursor() as cursor:
                yield cursor
            self._connection.commit()
        except MillraceError:
            self.close()
            raise
        except adbc_driver_manager.Error as error:
            self.close()
            self._refuse(error)

    def _refuse(self, error: adbc_driver_manager.Error) -> NoReturn:
        state = error.sqlstate or ""
        reason = str(error).split("\n", 1)[0].strip()
        if not state.strip("\0") or state.startswith(_LATER):
            raise Unavailable(
                f"PostgreSQL does not answer: {reason}", code="MR3015", hint="it is tried again"
            ) from error
        raise Invalid(
            f"PostgreSQL refuses rows for table {self._spec.table}: {reason}",
            code="MR1494",
            hint="make the table's columns fit the sink's, or 'create' = 'true' where there is no table yet",
        ) from error

    def _note(self, cursor: Any) -> None:
        if self._noted:
            return
        table = _quoted(self._spec.marker_table)
        cursor.execute("SELECT pg_advisory_xact_lock(7766013)")  # two that create at once would fail
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (job text, sink text, part bigint,"
            " checkpoint bigint NOT NULL, PRIMARY KEY (job, sink, part))"
        )
        cursor.execute(f"INSERT INTO {table} VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING", self._me)
        self._noted = True

    def _marked(self, cursor: Any, *, lock: bool) -> int:
        cursor.execute(
            f"SELECT checkpoint FROM {_quoted(self._spec.marker_table)}"
            " WHERE job = $1 AND sink = $2 AND part = $3" + (" FOR UPDATE" if lock else ""),
            self._me,
        )
        found = cursor.fetchone()
        if found is None:
            self._noted = False
            raise Unavailable(
                f"the marker of {self._me} was deleted",
                code="MR3015",
                hint="it is made again, as if nothing was written",
            )
        return int(found[0])

    def _put(self, cursor: Any, rows: pa.Table) -> None:
        """Copy the rows into a table of this transaction, and from there into the target, as its columns' types."""
        table, names = _quoted(self._spec.table), self._spec.schema.names
        types = self._columns(cursor)
        cursor.adbc_ingest(STAGE, _plain(rows), mode="create", temporary=True)
        columns = ", ".join(map(_name, names))
        values = ", ".join(f"s.{_name(n)}::{types[n]}" for n in names)
        if not self._spec.key:
            cursor.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {STAGE} s")
        else:
            keys = self._spec.key
            equal = {n: "IS NOT DISTINCT FROM" if rows[n].null_count else "=" for n in keys}
            same = " AND ".join(f"t.{_name(n)} {equal[n]} s.{_name(n)}::{types[n]}" for n in keys)
            changed = ", ".join(f"{_name(n)} = EXCLUDED.{_name(n)}" for n in names if n not in keys)
            cursor.execute(f"DELETE FROM {table} t USING {STAGE} s WHERE s.{WEIGHT} < 0 AND {same}")
            cursor.execute(
                f"INSERT INTO {table} ({columns}) SELECT {values} FROM {STAGE} s WHERE s.{WEIGHT} > 0"
                f" ON CONFLICT ({', '.join(map(_name, keys))}) DO "
                + (f"UPDATE SET {changed}" if changed else "NOTHING")
            )
        cursor.execute(f"DROP TABLE {STAGE}")

    def _columns(self, cursor: Any) -> dict[str, str]:
        """The target's columns and their types; the table is made where it is missing and that was asked for."""
        if self._types:
            return self._types
        cursor.execute(_COLUMNS, (_quoted(self._spec.table),))
        found = dict(cursor.fetchall())
        if not found and self._spec.create:
            made = [f"{_name(f.name)} {_sql_type(f)}" for f in self._spec.schema]
            if self._spec.key:
                nullable = any(self._spec.schema.field(n).nullable for n in self._spec.key)
                unique = "UNIQUE NULLS NOT DISTINCT" if nullable else "PRIMARY KEY"
                made.append(f"{unique} ({', '.join(map(_name, self._spec.key))})")
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(self._spec.table)} ({', '.join(made)})")
            cursor.execute(_COLUMNS, (_quoted(self._spec.table),))
            found = dict(cursor.fetchall())
        missing = [name for name in self._spec.schema.names if name not in found]
        if missing:
            what = f"has no column {missing[0]}" if found else "does not exist"
            raise Invalid(
                f"table {self._spec.table} of PostgreSQL {what}",
                code="MR1494",
                hint=f"its columns are {', '.join(found)}"
                if found
                else "create it, or set 'create' = 'true'",
            )
        self._types = found
        return found


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(table: str) -> str:
    return ".".join(_name(part) for part in table.split("."))


def _plain(rows: pa.Table) -> pa.Table:
    """The columns in types that the driver copies."""
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        kind = field.type
        if pa.types.is_decimal(kind):
            column = column.cast(pa.decimal128(max(kind.precision, kind.scale), kind.scale))
        elif kind in (pa.uint8(), pa.uint16()):
            column = column.cast(pa.int32())
        elif kind == pa.uint32():
            column = column.cast(pa.int64())
        elif kind == pa.uint64():
            column = column.cast(pa.decimal128(20, 0))
        elif kind == pa.int8():
            column = column.cast(pa.int16())
        columns.append(column)
    return pa.table(columns, names=rows.schema.names)


def _sql_type(field: pa.Field) -> str:
    kind = field.type
    if (field.metadata or {}).get(b"sql_type") == b"JSON":
        return "jsonb"
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    for fits, name in (
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_int64, "bigint"),
        (pa.types.is_uint64, "numeric(20)"),
        (pa.types.is_uint32, "bigint"),
        (pa.types.is_integer, "integer"),
        (pa.types.is_float32, "real"),
        (pa.types.is_floating, "double precision"),
        (pa.types.is_date, "date"),
        (pa.types.is_time, "time"),
        (pa.types.is_binary, "bytea"),
        (pa.types.is_duration, "interval"),
        (pa.types.is_interval, "interval"),
    ):
        if fits(kind):
            return name
    return "text"
