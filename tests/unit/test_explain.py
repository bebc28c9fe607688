"""EXPLAIN: the tree and the JSON say what was decided."""

import json

from millrace.planner.explain import explain_json
from millrace.planner.physical.exchange import layout_of
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

BID = """
CREATE SOURCE bid (auction BIGINT, price BIGINT, channel VARCHAR, dateTime TIMESTAMP(3),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND) WITH ('connector' = 'push');
"""
SCRIPT = (
    BID
    + """
CREATE STREAM big AS SELECT auction, price, dateTime FROM bid WHERE price > 100;
CREATE SINK a FROM (SELECT auction, window_end, count(*) AS n FROM big
  GROUP BY auction, TUMBLE(dateTime, INTERVAL '1' MINUTE)) INTO BLACKHOLE ();
"""
)


def test_tree_shows_what_was_decided() -> None:
    assert Planner().explain(SCRIPT) == (
        "stream big\n"
        "└─ [1] Calc big\n"
        "   │  where: price > 100\n"
        "   │  select: auction, price, dateTime\n"
        "   │  rows: append-only, event time dateTime\n"
        "   │  exchange: none\n"
        "   └─ [0] Source bid\n"
        "         connector: push\n"
        "         columns: auction BIGINT, price BIGINT, dateTime TIMESTAMP(3)\n"
        "         watermark: dateTime - 4 s\n"
        "         bounded: no\n"
        "         rows: append-only, event time dateTime\n"
        "         state: position of each split\n"
        "\n"
        "sink a\n"
        "└─ [3] Sink a\n"
        "   │  connector: blackhole\n"
        "   │  rows: append-only, event time window_end\n"
        "   │  exchange: none\n"
        "   └─ [2] WindowAggregate\n"
        "      │  window: tumble 60 s\n"
        "      │  time: dateTime\n"
        "      │  keys: auction\n"
        "      │  calls: count(*)\n"
        "      │  emit: on close\n"
        "      │  rows: append-only, event time window_end\n"
        "      │  state: one row a key and window, until the watermark passes the window's end\n"
        "      │  exchange: by auction\n"
        "      └─ [1] Calc big (shown above)"
    )


def test_explain_leaves_the_catalog_alone_and_takes_an_explain_statement() -> None:
    planner = Planner()
    assert planner.explain(SCRIPT)
    assert list(planner.catalog) == []
    assert "GroupAggregate" in planner.explain(
        BID + "EXPLAIN SELECT channel, count(*) FROM bid GROUP BY channel"
    )


def test_json_has_the_same_facts() -> None:
    whole = json.loads(Planner().explain_json(SCRIPT))
    assert [n["operator"] for n in whole["nodes"]] == ["Source", "Calc", "WindowAggregate", "Sink"]
    window = whole["nodes"][2]
    assert window["exchange"] == "by auction"
    assert window["changelog"] == "append"
    assert window["event_time"] == "window_end"
    assert {o["name"]: o["node"] for o in whole["outputs"]} == {"big": 1, "a": 3}


def test_long_lines_are_wrapped() -> None:
    columns = ", ".join(f"price + {i} AS column_number_{i}" for i in range(20))
    text = Planner().explain(BID + f"SELECT {columns} FROM bid")
    assert max(len(line) for line in text.splitlines()) <= 110
    assert "column_number_19" in text


def test_no_exchange_where_rows_are_where_they_belong() -> None:
    plan, _ = Planner().compile(
        BID
        + "CREATE TABLE t AS SELECT auction, channel, max(m) AS m FROM (SELECT auction, channel, price, max(price) AS m "
        "FROM bid GROUP BY auction, channel, price) GROUP BY auction, channel; "
        "SELECT auction, channel, count(*) FROM (SELECT auction, channel, max(price) AS m FROM bid GROUP BY auction, "
        "channel) GROUP BY auction, channel; SELECT max(m) FROM t;"
    )
    titles = {at: type(node.spec).__name__ for at, node in enumerate(plan.nodes)}
    keys = [(titles[edge.consumer], edge.keys) for edge in layout_of(plan, 2).edges]
    groups = [k for title, k in keys if title == "GroupAggregate"]
    assert len(groups) == 4
    assert () in groups
    assert ("Materialize", (0, 1)) not in keys


def test_an_empty_plan_has_an_empty_explanation() -> None:
    assert json.loads(explain_json(Plan()))["nodes"] == []
    assert Planner().explain(BID) == ""


def test_query_of_a_table_that_replaces_rows_shows_the_table() -> None:
    planner = Planner()
    planner.compile("CREATE TABLE own (id INT, name STRING, PRIMARY KEY (id))")
    shown = planner.explain("SELECT count(*) AS n FROM own WHERE name > 'a'")
    assert "Materialize own" in shown
    assert "rows: changes of one row" in shown
    assert "select: none" in shown
