"""Several statements as one plan: sharing, incremental extension, tables, sinks, late rows."""

import pyarrow as pa
import pytest

from millrace.errors import Invalid
from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate
from millrace.operators.connectors.blackhole import BlackholeSpec
from millrace.operators.materialize import Materialize
from millrace.operators.normalize import Normalize
from millrace.operators.side import DeadLetters, LateRows
from millrace.operators.sink import Changelog
from millrace.operators.source import SourceInput
from millrace.planner.catalog import ChangeKind
from millrace.planner.plan import OutputKind, Plan
from millrace.planner.session import Planner

BID = """
CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND) WITH ('connector' = 'push');
"""


def extend(planner: Planner, plan: Plan, sql: str) -> Plan:
    return planner.extend(plan, *(planner.plan(s, sql) for s in planner.parse(sql)))


def test_two_sinks_of_one_stream_share_its_nodes() -> None:
    plan, _ = Planner().compile(
        BID
        + """CREATE STREAM big AS SELECT auction, price FROM bid WHERE price > 100;
        CREATE SINK a FROM big INTO BLACKHOLE ();
        CREATE SINK b FROM big WHERE auction > 3 INTO BLACKHOLE ();"""
    )
    stream = plan.output("BIG")
    assert stream is not None
    assert plan.nodes[stream.node].name == "big"
    assert len(plan.consumers(stream.node)) == 2
    assert sum(isinstance(n.spec, SourceInput) for n in plan.nodes) == 1


def test_queries_of_one_source_share_a_node_with_the_columns_of_all() -> None:
    plan, _ = Planner().compile(BID + "SELECT price FROM bid WHERE price > 1; SELECT max(auction) FROM bid;")
    sources = [n for n in plan.nodes if isinstance(n.spec, SourceInput)]
    assert [n.schema.names for n in sources] == [["auction", "price"]]


def test_extension_keeps_positions_and_reuses_what_fits() -> None:
    planner = Planner()
    first = extend(
        planner, Plan(), BID + "CREATE STREAM s AS SELECT auction, price FROM bid WHERE price > 1;"
    )
    second = extend(planner, first, "SELECT max(price) FROM s; SELECT auction FROM bid;")
    assert second.nodes[: len(first.nodes)] == first.nodes
    added = second.nodes[len(first.nodes) :]
    assert not any(isinstance(n.spec, SourceInput) for n in added)
    third = extend(planner, second, "SELECT bidder FROM bid")
    assert third.nodes[: len(second.nodes)] == second.nodes
    assert third.nodes[len(second.nodes)].schema.names == ["bidder"]


def test_extension_reads_only_nodes_it_may_share() -> None:
    planner = Planner()
    first = extend(planner, Plan(), BID + "SELECT auction FROM bid")
    (again,) = planner.parse("SELECT auction FROM bid")
    second = planner.extend(first, planner.plan(again), share=frozenset())
    assert len(second.nodes) == 2 * len(first.nodes)


def test_statements_say_what_they_changed_and_yield() -> None:
    planner = Planner()
    (source,) = [planner.plan(s) for s in planner.parse(BID)]
    assert [c.kind for c in source.changes] == [ChangeKind.CREATED]
    assert source.outputs == ()
    (table,) = [planner.plan(s) for s in planner.parse("CREATE TABLE t AS SELECT max(price) AS m FROM bid")]
    assert [(o.name, o.kind) for o in table.outputs] == [("t", OutputKind.TABLE)]
    (dropped,) = [planner.plan(s) for s in planner.parse("DROP SOURCE bid CASCADE")]
    assert [c.entry.name for c in dropped.changes] == ["t", "bid"]
    (again,) = [planner.plan(s) for s in planner.parse("DROP SOURCE IF EXISTS bid")]
    assert (again.changes, again.outputs, again.command) == ((), (), None)


def test_a_table_is_kept_by_its_key() -> None:
    plan, _ = Planner().compile(
        BID
        + """CREATE TABLE t AS SELECT channel, max(price) AS m FROM bid GROUP BY channel;
        CREATE TABLE rows AS SELECT price FROM bid;"""
    )
    kept = [n.spec for n in plan.nodes if isinstance(n.spec, Materialize)]
    assert [(k.key, k.changelog) for k in kept] == [((0,), Changelog.RETRACT), (None, Changelog.APPEND)]


def test_a_table_of_ours_takes_rows_by_primary_key() -> None:
    planner = Planner()
    plan, _ = planner.compile(
        "CREATE TABLE t (id INT NOT NULL, name STRING, at TIMESTAMP(3), PRIMARY KEY (id));"
    )
    (kept,) = [n.spec for n in plan.nodes if isinstance(n.spec, Materialize)]
    assert (kept.key, kept.changelog) == ((0,), Changelog.UPSERT)
    (insert,) = planner.parse(
        "INSERT INTO t (name, id, at) VALUES ('x', 1 + 1, '2024-01-01'), (NULL, 3, NULL)"
    )
    command = planner.plan(insert).command
    assert command is not None
    assert command.rows is not None
    assert command.rows.to_pydict()["id"] == [2, 3]
    assert command.rows.to_pydict()["name"] == ["x", None]
    assert command.rows.schema.types == [pa.int32(), pa.string(), pa.timestamp("ms")]


@pytest.mark.parametrize(
    ("values", "code"),
    [("(1)", "MR1117"), ("('x', 'y')", "MR1136"), ("(NULL, 'y')", "MR1119"), ("(1, 2)", "MR1110")],
)
def test_values_that_do_not_fit_are_refused(values: str, code: str) -> None:
    planner = Planner()
    planner.compile("CREATE TABLE t (id INT NOT NULL, name STRING);")
    (insert,) = planner.parse(f"INSERT INTO t VALUES {values}")
    with pytest.raises(Invalid) as error:
        planner.plan(insert)
    assert error.value.code == code


def test_a_sink_that_knows_keys_gets_upserts_from_the_aggregate() -> None:
    sink = "CREATE SINK o FROM (SELECT channel, count(*) AS n FROM bid GROUP BY channel{}) INTO BLACKHOLE ()"
    plan, _ = Planner().compile(BID + sink.format(""))
    (group,) = [n.spec for n in plan.nodes if isinstance(n.spec, GroupAggregate)]
    assert group.emission.upsert
    assert plan.nodes[-1].changelog is Changelog.UPSERT
    plan, _ = Planner().compile(BID + sink.format(" HAVING count(*) > 3"))
    (group,) = [n.spec for n in plan.nodes if isinstance(n.spec, GroupAggregate)]
    assert not group.emission.upsert


def test_a_sink_that_takes_appends_only_is_refused_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlackholeSpec, "changelogs", frozenset({Changelog.APPEND}))
    sql = "CREATE SINK o FROM (SELECT channel, count(*) AS n FROM bid GROUP BY channel) INTO BLACKHOLE ()"
    with pytest.raises(Invalid) as caught:
        Planner().compile(BID + sql)
    assert caught.value.code == "MR1342"
    assert "EMIT ON WINDOW CLOSE" in (caught.value.hint or "")


def test_late_rows_go_to_a_table_of_their_own_with_all_columns() -> None:
    planner = Planner()
    plan, _ = planner.compile(
        BID
        + """CREATE STREAM w AS SELECT channel, window_end, count(*) FILTER (WHERE price > 1) AS n FROM bid
        GROUP BY channel, TUMBLE(dateTime, INTERVAL '1' MINUTE) ALLOW LATENESS INTERVAL '1' HOUR LATE DATA TO lates;
        SELECT auction FROM lates;"""
    )
    (late,) = plan.late
    assert (late.table, type(plan.nodes[late.node].spec)) == ("lates", WindowAggregate)
    assert sum(isinstance(n.spec, WindowAggregate) for n in plan.nodes) == 1
    (rows,) = [at for at, n in enumerate(plan.nodes) if isinstance(n.spec, LateRows)]
    assert plan.nodes[rows].inputs == (late.node,)
    output = plan.output("lates")
    assert output is not None
    assert isinstance(plan.nodes[output.node].spec, Materialize)
    shown = plan.nodes[output.node].schema.names
    assert shown == ["auction", "bidder", "price", "channel", "dateTime"]
    with pytest.raises(Invalid) as error:
        planner.compile(
            "CREATE STREAM x AS SELECT count(*) AS n FROM bid GROUP BY TUMBLE(dateTime, INTERVAL '1' MINUTE) "
            "LATE DATA TO lates"
        )
    assert error.value.code == "MR1202"
    assert planner.catalog.find("x") is None


def test_bad_records_of_a_source_go_to_a_table_where_the_source_is_read() -> None:
    planner = Planner()
    source = "CREATE SOURCE s (a INT, b INT) WITH ('connector' = 'push', 'bad_rows' = 'bad');"
    assert planner.compile(source)[0].nodes == ()
    plan, _ = planner.compile("SELECT a FROM s; SELECT b FROM s; SELECT code FROM bad;")
    output = plan.output("bad")
    assert output is not None
    assert [type(plan.nodes[i].spec) for i in plan.nodes[output.node].inputs] == [DeadLetters]
    assert sum(isinstance(n.spec, DeadLetters) for n in plan.nodes) == 1
    assert sum(isinstance(n.spec, SourceInput) for n in plan.nodes) == 1
    alone, _ = planner.compile("SELECT code, reason FROM bad")
    assert alone.nodes[0].schema.names == ["a", "b"]
    assert planner.compile("DROP SOURCE s CASCADE")[1][0].changes[0].entry.name == "bad"


def test_a_replacing_table_says_what_it_takes_back() -> None:
    plan, _ = Planner().compile(
        "CREATE TABLE t (id INT, v INT, PRIMARY KEY (id));"
        "CREATE STREAM s AS SELECT count(*) AS n FROM t WHERE v > 3"
    )
    (kept,) = [n for n in plan.nodes if isinstance(n.spec, Materialize)]
    assert (kept.changelog, kept.key) == (Changelog.RETRACT, (0,))
    (group,) = [n.spec for n in plan.nodes if isinstance(n.spec, GroupAggregate)]
    assert group.retracting_input
    assert sum(isinstance(n.spec, Normalize) for n in plan.nodes) == 0


def test_insert_aligns_columns_with_the_target() -> None:
    plan, _ = Planner().compile(
        BID
        + """CREATE TABLE o (a DOUBLE, b STRING, c BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO o (c, a) SELECT auction, price FROM bid;"""
    )
    assert plan.nodes[-1].schema.types == [pa.float64(), pa.string(), pa.int64()]
    with pytest.raises(Invalid) as error:
        Planner().compile(
            BID
            + "CREATE TABLE o (a DOUBLE) WITH ('connector' = 'blackhole'); INSERT INTO o SELECT price, auction FROM bid;"
        )
    assert error.value.code == "MR1117"


def test_order_and_limit_of_a_select_are_left_to_whoever_shows_it() -> None:
    planner = Planner()
    planner.compile(BID)
    (select,) = planner.parse("SELECT auction, price FROM bid ORDER BY price DESC, 1 LIMIT 3 OFFSET 1")
    (output,) = planner.plan(select).outputs
    assert [(k.column, k.descending) for k in output.order] == [(1, True), (0, False)]
    assert (output.limit, output.offset) == (3, 1)


def test_a_query_that_is_answered_once_reads_tables_as_they_are() -> None:
    planner = Planner()
    plan, _ = planner.compile(
        "CREATE TABLE t (id INT, v INT, PRIMARY KEY (id)); CREATE VIEW w AS SELECT v FROM t;"
    )
    (select,) = planner.parse("SELECT count(*) FROM w WHERE v > 3")
    extended = planner.extend(plan, planner.plan(select, snapshot=True))
    (group,) = [n.spec for n in extended.nodes if isinstance(n.spec, GroupAggregate)]
    assert not group.retracting_input
    running = planner.extend(plan, planner.plan(select))
    (group,) = [n.spec for n in running.nodes if isinstance(n.spec, GroupAggregate)]
    assert group.retracting_input
