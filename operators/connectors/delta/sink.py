"""Rows into a Delta table by commits that carry the sink's name and the checkpoint. Loaded when one is built."""

from __future__ import annotations

import random
import time

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from millrace.errors import Invalid, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors.delta.connector import DeltaSinkSpec
from millrace.operators.connectors.outboxes import WEIGHT, RowOutbox, last_of_each, rows_of
from millrace.operators.sink import Sink

ATTEMPTS = 25
"""Commits that may lose against other writers, such as the job's other partitions, before a publication is put off."""


class DeltaSink(Sink):
    """Writes one outbox a commit, right behind the version in which it looked for its marker.

    So of two owners that commit the same outbox one fails, and finds it there when it looks again. The library's own
    retries would put a second copy behind the first: its check for conflicts passes over application transactions.
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
        table = self._table()
        return None if table is None else self._marked(table)

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        if not outbox:
            return
        rows = rows_of(outbox, f"outbox {checkpoint} for {self._spec.path}")
        named = [Transaction(self._application, checkpoint)] if self._application else None
        for attempt in range(ATTEMPTS):
            table = self._table() or self._create(_plain(rows.drop_columns([WEIGHT])).schema)
            if (self._marked(table) or 0) >= checkpoint:
                return
            if self._try(table, rows, CommitProperties(max_commit_retries=0, app_transactions=named)):
                return
            time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
        raise Unavailable(
            f"others kept changing the Delta table {self._spec.path}", code="MR3016", hint="it is tried again"
        )

    def _marked(self, table: DeltaTable) -> int | None:
        found = table.transaction_version(self._application) if self._application else None
        return None if found is None else int(found)

    def _create(self, schema: pa.Schema) -> DeltaTable:
        """An empty table, so that the first rows too come behind a version that was looked at."""
        try:
            DeltaTable.create(
                self._spec.path,
                schema,
                mode="ignore",
                partition_by=list(self._spec.partition_by) or None,
                storage_options=self._storage,
            )
        except (DeltaError, OSError) as error:
            if self._table() is None:
                raise Unavailable(
                    f"the Delta table {self._spec.path} can not be made: {_reason(error)}",
                    code="MR3016",
                    hint="check its path and storage; it is tried again",
                ) from error
        table = self._table()
        assert table is not None
        return table

    def _try(self, table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> bool:
        """Commit behind the version of `table`; False where another writer was there first."""
        try:
            self._commit(table, rows, properties)
            return True
        except CommitFailedError:
            return False
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

    def _commit(self, table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> None:
        spec = self._spec
        if spec.key:
            rows = last_of_each(rows, list(spec.key))
        if not spec.key:
            write_deltalake(
                table,
                _plain(rows.filter(pc.greater(rows[WEIGHT], 0)).drop_columns([WEIGHT])),
                mode="append",
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
