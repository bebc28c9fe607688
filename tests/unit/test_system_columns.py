"""System columns and headers: which queries have them, what the plan reads for them, what a sink makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

import millrace
from millrace.errors import MillraceError
from millrace.operators.batch import Batch
from millrace.operators.connectors.kafka.decoding import Decoder
from millrace.operators.connectors.kafka.encoding import RecordEncoder
from millrace.operators.connectors.kafka.messages import Pulled
from millrace.operators.connectors.kafka.sink import KafkaSinkSpec
from millrace.operators.connectors.kafka.source import KafkaSourceSpec
from millrace.operators.source import SourceInput
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

KAFKA = "'connector' = 'kafka', 'bootstrap.servers' = 'h:1', 'topic' ="
SOURCES = (
    f"CREATE SOURCE k (id BIGINT, ts TIMESTAMP(3), twice AS id * 2, WATERMARK FOR ts) WITH ({KAFKA} 't');"
    f"CREATE SOURCE own (id BIGINT, _offset STRING) WITH ({KAFKA} 't');"
    f"CREATE TABLE written (id BIGINT, name STRING) WITH ({KAFKA} 'o');"
    "CREATE SOURCE q (id BIGINT, ms BIGINT, WATERMARK FOR ms) WITH ('connector' = 'push');"
    "CREATE SOURCE timeless (id BIGINT) WITH ('connector' = 'push');"
)


@dataclass
class Message:
    at: int
    name: bytes | None = None
    pairs: list[tuple[str, bytes | None]] | None = None

    def error(self) -> None: ...
    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self.at

    def leader_epoch(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000 + self.at

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes:
        return b'{"id": %d}' % self.at

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self.pairs


def plan(sql: str) -> Plan:
    return Planner().compile(SOURCES + sql)[0]


def read(sql: str) -> list[list[str]]:
    """The columns that each source of a plan decodes."""
    return [n.spec.source.output_schema.names for n in plan(sql).nodes if isinstance(n.spec, SourceInput)]


def columns(sql: str) -> list[str]:
    found = plan(sql)
    return found.nodes[found.outputs[-1].node].schema.names


def test_a_star_does_not_mean_them_and_they_are_decoded_only_where_they_are_named() -> None:
    assert columns("SELECT * FROM k") == ["id", "ts", "twice"]
    assert read("SELECT * FROM k") == [["id", "ts"]]
    assert read("SELECT _OFFSET, x._partition FROM k AS x WHERE _timestamp IS NOT NULL") == [
        ["_timestamp", "_partition", "_offset"]
    ]
    assert columns("SELECT *, _topic AS topic, _key FROM k") == ["id", "ts", "twice", "topic", "_key"]
    assert read("SELECT HEADER('a') AS a FROM k WHERE HAS_HEADER('b')") == [["_headers"]]
    assert read("SELECT id FROM k; SELECT _offset FROM k") == [["id", "_offset"]]  # one reader for both


def test_they_are_found_through_joins_windows_and_queries_inside() -> None:
    assert columns("SELECT a._offset, b._offset AS other FROM k a JOIN k b USING (id)") == [
        "_offset",
        "other",
    ]
    assert columns("SELECT k._offset, k.id FROM timeless AS t JOIN k ON t.id = k.id")[0] == "_offset"
    assert columns("SELECT o FROM (SELECT _offset AS o FROM k)") == ["o"]
    assert columns("SELECT id FROM timeless WHERE id IN (SELECT _offset FROM k)") == ["id"]
    windowed = (
        "FROM TABLE(TUMBLE(TABLE k, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end"
    )
    assert columns(f"SELECT window_end, max(_offset) AS last {windowed}") == ["window_end", "last"]
    assert columns("SELECT id FROM k NATURAL JOIN (SELECT id, _offset FROM k) AS o") == ["id"]


def test_a_declared_column_of_that_name_is_what_it_means() -> None:
    found = plan("SELECT _offset, _topic FROM own")
    assert [f.type for f in found.nodes[found.outputs[-1].node].schema] == [pa.string(), pa.string()]
    assert columns("SELECT * FROM own") == ["id", "_offset"]
    both = plan(
        "SELECT o._offset FROM own AS o JOIN k ON o.id = k.id; SELECT _offset FROM own JOIN k USING (id)"
    )
    assert both.nodes[both.outputs[-1].node].schema.field(0).type == pa.string()


def test_the_event_time_of_any_source() -> None:
    assert columns("SELECT _event_time, id FROM q") == ["_event_time", "id"]
    with millrace.connect() as db:
        db.execute(SOURCES.split(";")[3])
        sql = "SELECT max(_event_time) AS last, count(*) AS n FROM q GROUP BY TUMBLE(_event_time, INTERVAL '1' MINUTE)"
        reader = db.subscribe(sql, "rows")
        db.push("q", [{"id": 1, "ms": 500}, {"id": 2, "ms": 900}])
        db.end("q")
        assert list(reader) == [{"last": 900, "n": 2}]


@pytest.mark.parametrize(
    ("sql", "code", "hint"),
    [
        ("SELECT _offset FROM q", "MR1155", "a Kafka source has it"),
        ("SELECT q._key FROM q", "MR1155", "a Kafka source has it"),
        ("SELECT _offset FROM (SELECT id FROM k)", "MR1155", "with AS"),
        ("SELECT id FROM q WHERE HAS_HEADER('a')", "MR1155", "a Kafka source has it"),
        ("SELECT _event_time FROM timeless", "MR1155", "a source with a watermark"),
        ("SELECT _offset FROM k a JOIN k b USING (id)", "MR1103", "write a._offset or b._offset"),
        ("SELECT HEADER() FROM k", "MR1211", None),
        ("SELECT HEADER_KEYS('a') FROM k", "MR1211", None),
        ("SELECT SET_HEADER('a') FROM k", "MR1211", None),
        ("SELECT REMOVE_HEADER('a') FROM q", "MR1156", "a Kafka source"),
        ("SELECT id, REMOVE_HEADER('a') FROM k GROUP BY id", "MR1156", "aggregates nothing"),
        ("SELECT id FROM k WHERE SET_HEADER('a', 'b') = 'b'", "MR1958", None),
        ("SELECT SET_HEADER('a', 'b') || 'c' FROM k", "MR1958", None),
        (
            f"CREATE SINK s FROM (SELECT MAP['a', 'b'] AS m, id, SET_HEADER('a', 'b') FROM q) WITH ({KAFKA} 'o', 'headers' = 'm')",
            "MR1350",
            "leave the option out",
        ),
    ],
)  # fmt: skip
def test_refusals(sql: str, code: str, hint: str | None) -> None:
    with pytest.raises(MillraceError) as error:
        plan(sql)
    assert error.value.code == code, error.value
    assert error.value.position is not None
    assert hint is None or hint in (error.value.hint or "")


def test_what_a_message_gives() -> None:
    found = plan("SELECT id, _timestamp, _partition, _offset, _topic, _key, _headers FROM k")
    spec = next(n.spec.source for n in found.nodes if isinstance(n.spec, SourceInput))
    assert isinstance(spec, KafkaSourceSpec) and spec.columns is not None
    pulled = Pulled()
    pulled.add([Message(7, b"x", [("a", b"1"), ("a", b"2")]), Message(8)], keep=True)  # type: ignore[list-item]
    rows = Decoder(spec.decoding, spec.columns).decode(pulled, "t/3").batch.data.to_pylist()
    stamps = [row.pop("_timestamp").microsecond for row in rows]
    assert stamps == [7000, 8000]
    assert rows == [
        {"id": 7, "_partition": 3, "_offset": 7, "_topic": "t", "_key": "x", "_headers": [("a", "2")]},
        {"id": 8, "_partition": 3, "_offset": 8, "_topic": "t", "_key": None, "_headers": []},
    ]


@pytest.mark.parametrize(
    "into",
    [
        f"CREATE SINK s FROM (SELECT SET_HEADER('a', 1), id, name FROM x) WITH ({KAFKA} 'o')",
        "INSERT INTO written SELECT SET_HEADER('a', 1), id, name FROM x",
        "INSERT INTO written (name, id) SELECT name, id, SET_HEADER('a', 1) FROM x",
        f"CREATE STREAM y AS SELECT SET_HEADER('a', 1), id, name FROM x; CREATE SINK s FROM y WITH ({KAFKA} 'o')",
    ],
)
def test_headers_are_those_of_the_records_and_no_part_of_their_value(into: str) -> None:
    found = plan(f"CREATE SOURCE x (id BIGINT, name STRING) WITH ('connector' = 'push');{into}")
    node = found.nodes[found.outputs[-1].node]
    spec = node.spec
    assert isinstance(spec, KafkaSinkSpec)
    assert sorted(node.schema.names) == ["_headers", "id", "name"]
    values = {"id": [5], "name": ["n"], "_headers": [[("a", "1")]]}
    arrays = [pa.array(values[field.name], field.type) for field in node.schema]
    batch = Batch(pa.RecordBatch.from_arrays(arrays, schema=node.schema), np.ones(1, np.int64))
    records = RecordEncoder(spec.target.encoding).records(batch)
    assert records.values == [b'{"id":5,"name":"n"}']
    assert records.headers == [[("a", "1")]]


def test_headers_elsewhere_are_a_column_and_what_is_set_can_have_a_name() -> None:
    with millrace.connect() as db:
        db.execute(
            "CREATE TABLE t (id BIGINT, name STRING, PRIMARY KEY (id)); INSERT INTO t VALUES (1, 'x'), (2, NULL)"
        )
        got = db.query(
            "SELECT id, SET_HEADER('a', id) AS a, SET_HEADER('b', name), REMOVE_HEADER('a') FROM t ORDER BY id"
        )
        assert got.rows() == [
            {"id": 1, "a": 1, "_headers": [("b", "x")]},
            {"id": 2, "a": 2, "_headers": [("b", None)]},
        ]
