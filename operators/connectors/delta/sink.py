"""Rows into a Delta table by commits that carry the sink's name and the checkpoint. Loaded when one is built."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from millrace.errors import Invalid, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors.delta.connector import DeltaSinkSpec
from millrace.operators.connectors.outboxes import WEIGHT, RowOutbox, last_of_each, rows_of
from millrace.operators.sink import Sink


class DeltaSink(Sink):
    """Writes one outbox a commit.

    Two owners that commit the same outbox conflict in the table's log: an application's version is set once, so the
    later one fails, and finds the outbox there when it looks again.
    """

    def __init__(self, spec: DeltaSinkSpec, partition: int) -> None:
        self._spec = spec
        self._application = f"{spec.application}/{partition}" if spec.application else ""
        self._storage = dict(spec.storage) or None
        self._rows = RowOutbox(spec.schema)

    def write(self, batch: Batch) -> None:
        self._rows.write(batch)

    def seal(self, checkpoint: int) -> bytes:
        return self._rows.seal()

    def marker(self) -> int | None:
        table = self._table() if self._application else None
        found = None if table is None else table.transaction_version(self._application)
        return None if found is None else int(found)

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        if not outbox or (self.marker() or 0) >= checkpoint:
            return
        rows = rows_of(outbox, f"outbox {checkpoint} for {self._spec.path}")
        named = [Transaction(self._application, checkpoint)] if self._application else None
        try:
            self._commit(rows, CommitProperties(app_transactions=named))
        except CommitFailedError as error:
            raise Unavailable(
                f"another writer changed the Delta table {self._spec.path}: {_reason(error)}",
                code="MR3016",
                hint="it is tried again",
            ) from error
        except (SchemaMismatchError, pa.ArrowException) as error:
            raise Invalid(
                f"rows do not fit the Delta table {self._spec.path}: {_reason(error)}",
                code="MR1495",
                hint="make its columns fit the sink's, or write to another table",
            ) from error
        except (DeltaError, OSError) as error:
            raise Unavailable(
                f"the Delta table {self._spec.path} was not written: {_reason(error)}",
                code="MR3016",
                hint="check that its storage can be reached; it is tried again",
            ) from error

    def _commit(self, rows: pa.Table, properties: CommitProperties) -> None:
        spec = self._spec
        table = self._table()
        if spec.key:
            rows = last_of_each(rows, list(spec.key))
        if not spec.key or table is None:
            write_deltalake(
                spec.path,
                _plain(rows.filter(pc.greater(rows[WEIGHT], 0)).drop_columns([WEIGHT])),
                mode="append",
                partition_by=(list(spec.partition_by) or None) if table is None else None,
                storage_options=self._storage,
                commit_properties=properties,
            )
            return
        same = " AND ".join(f"t.`{n}` IS NOT DISTINCT FROM s.`{n}`" for n in spec.key)
        values = {f"`{n}`": f"s.`{n}`" for n in spec.schema.names}
        (
            table.merge(_plain(rows), same, source_alias="s", target_alias="t", commit_properties=properties)
            .when_matched_delete(f"s.{WEIGHT} < 0")
            .when_matched_update(values)
            .when_not_matched_insert(values, f"s.{WEIGHT} > 0")
            .execute()
        )

    def _table(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._spec.path, storage_options=self._storage)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise Unavailable(
                f"the Delta table {self._spec.path} can not be read: {_reason(error)}",
                code="MR3016",
                hint="check its path and storage",
            ) from error


def _plain(rows: pa.Table) -> pa.Table:
    """The columns in types that Delta has: microseconds, signed integers, decimals of 128 bits."""
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        kind = field.type
        if pa.types.is_decimal(kind):
            column = column.cast(pa.decimal128(kind.precision, kind.scale))
        elif pa.types.is_timestamp(kind) and kind.unit != "us":
            column = column.cast(pa.timestamp("us", kind.tz), safe=False)
        elif kind == pa.uint64():
            column = column.cast(pa.decimal128(20, 0))
        elif pa.types.is_unsigned_integer(kind):
            column = column.cast(pa.int64())
        columns.append(column)
    return pa.table(columns, names=rows.schema.names)


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
