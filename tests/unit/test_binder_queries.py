"""Queries to plans: which operators come out, in which changelog mode, with which columns read of the source."""

import pytest

from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate
from millrace.operators.over.specs import OverAggregate
from millrace.operators.sink import Changelog
from millrace.operators.source import SourceInput
from millrace.operators.spec import decode, encode
from millrace.planner.explain import title_of
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

SOURCES = """
CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR,
  dateTime TIMESTAMP(3), WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND) WITH ('connector' = 'push');
CREATE SOURCE n (id INT, r ROW<a INT, b ROW<c STRING>>, items ARRAY<INT>, ts BIGINT, WATERMARK FOR ts AS ts)
  WITH ('connector' = 'push');
CREATE VIEW dear AS SELECT auction AS a, price AS p, dateTime AS t FROM bid WHERE price > 5;
"""


def plan_of(sql: str) -> Plan:
    return Planner().compile(SOURCES + sql)[0]


def titles(plan: Plan) -> list[str]:
    return [title_of(node) for node in plan.nodes]


def read(plan: Plan, position: int = 0) -> list[str]:
    spec = plan.nodes[position].spec
    assert isinstance(spec, SourceInput)
    return list(spec.schema.names)


CASES = [
    ("SELECT * FROM bid", ["Source"], "append"),
    ("SELECT auction, 0.908 * price AS price FROM bid", ["Source", "Calc"], "append"),
    ("SELECT auction, price FROM bid WHERE mod(auction, 123) = 0", ["Source", "Calc"], "append"),
    ("SELECT a FROM dear WHERE p < 100", ["Source", "Calc"], "append"),
    ("SELECT r.a, n.r.b.c, items[1] FROM n", ["Source", "Calc"], "append"),
    ("SELECT DISTINCT channel FROM bid", ["Source", "GroupAggregate"], "append"),
    ("SELECT channel, count(*) AS n FROM bid GROUP BY channel", ["Source", "GroupAggregate"], "retract"),
    ("SELECT channel, sum(price) FROM bid GROUP BY 1", ["Source", "GroupAggregate"], "retract"),
    (
        "SELECT channel AS c, sum(price) FROM bid GROUP BY c HAVING count(*) > 3",
        ["Source", "GroupAggregate", "Calc"],
        "retract",
    ),
    (
        "SELECT upper(channel), count(*) FROM bid GROUP BY upper(channel)",
        ["Source", "Calc", "GroupAggregate"],
        "retract",
    ),
    (
        (
            "SELECT window_start, window_end, max(price) AS p FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), "
            "INTERVAL '10' SECOND)) GROUP BY window_start, window_end"
        ),
        ["Source", "WindowAggregate"],
        "append",
    ),
    (
        "SELECT channel, count(*) FROM bid GROUP BY channel, TUMBLE(dateTime, INTERVAL '1' MINUTE)",
        ["Source", "WindowAggregate", "Calc"],
        "append",
    ),
    (
        (
            "SELECT channel, window_start, window_end, count(*) AS n FROM bid "
            "GROUP BY channel, HOP(dateTime, INTERVAL '2' SECOND, INTERVAL '10' SECOND) EMIT CHANGES"
        ),
        ["Source", "WindowAggregate"],
        "retract",
    ),
    (
        (
            "SELECT bidder, window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, "
            "DESCRIPTOR(dateTime), INTERVAL '10' SECOND)) GROUP BY bidder, window_start, window_end"
        ),
        ["Source", "SessionAggregate"],
        "append",
    ),
    (
        "SELECT * FROM TABLE(CUMULATE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))",
        ["Source", "WindowAssign"],
        "append",
    ),
    (
        "SELECT auction FROM bid UNION ALL SELECT id FROM n",
        ["Source", "Source", "Calc", "UnionAll"],
        "append",
    ),
    (
        "SELECT bidder, avg(price) OVER (PARTITION BY bidder ORDER BY dateTime ROWS 9 PRECEDING) AS a FROM bid",
        ["Source", "OverAggregate", "Calc"],
        "append",
    ),
    (
        "SELECT sum(price) OVER (ROWS WINDOW BUFFER 10 ROWS PARTITION BY bidder ORDER BY dateTime) AS s FROM bid",
        ["Source", "RowBufferAggregate", "Calc"],
        "append",
    ),
    (
        "SELECT * FROM bid WHERE dateTime > now() - INTERVAL '1' HOUR",
        ["Source", "TemporalFilter"],
        "retract",
    ),
    (
        "SELECT channel, tumble(INTERVAL '1' MINUTE) AS w, count(*) FROM bid GROUP BY channel, w",
        ["Source", "WindowAggregate", "Calc"],
        "append",
    ),
    (
        (
            "SELECT auction, num FROM (SELECT *, RANK() OVER (PARTITION BY window_start, window_end ORDER BY num DESC) AS r "
            "FROM (SELECT auction, count(*) AS num, window_start, window_end FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), "
            "INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end)) WHERE r <= 1"
        ),
        ["Source", "WindowAggregate", "Calc", "WindowTopN", "Calc"],
        "append",
    ),
    (
        "WITH x AS (SELECT auction, price FROM bid) SELECT auction, max(price) AS m FROM x GROUP BY auction",
        ["Source", "GroupAggregate"],
        "retract",
    ),
]


@pytest.mark.parametrize(("sql", "operators", "mode"), CASES, ids=[c[0][:60] for c in CASES])
def test_query_becomes_operators(sql: str, operators: list[str], mode: str) -> None:
    plan = plan_of(sql)
    assert titles(plan) == operators
    assert plan.nodes[-1].changelog.value == mode
    for node in plan.nodes:
        if not isinstance(node.spec, SourceInput):
            assert node.spec.output_schema.equals(node.schema)  # type: ignore[union-attr]


@pytest.mark.parametrize("sql", [c[0] for c in CASES if "now()" not in c[0]])
def test_plans_serialise_and_hash_alike(sql: str) -> None:
    plan = plan_of(sql)
    again = decode(encode(plan))
    assert again == plan
    assert [n.hash for n in plan_of(sql).nodes] == [n.hash for n in plan.nodes]


def test_only_columns_that_are_used_are_read_of_a_source() -> None:
    assert read(plan_of("SELECT price FROM bid WHERE bidder > 3")) == ["bidder", "price"]
    assert read(plan_of("SELECT count(*) FROM bid")) == []
    windowed = "SELECT count(*) FROM bid GROUP BY channel, TUMBLE(dateTime, INTERVAL '1' MINUTE)"
    assert read(plan_of(windowed)) == ["channel", "dateTime"]
    assert read(plan_of("SELECT a FROM (SELECT auction AS a, max(price) FROM bid GROUP BY auction)")) == [
        "auction",
        "price",
    ]


def test_a_source_without_use_for_time_keeps_no_watermark() -> None:
    assert plan_of("SELECT price FROM bid").nodes[0].event_time is None
    over = "SELECT lag(price) OVER (ORDER BY dateTime) FROM bid"
    assert plan_of(over).nodes[0].event_time is not None


def test_grouping_sets_are_a_union_of_aggregates() -> None:
    plan = plan_of("SELECT channel, bidder, sum(price) AS s FROM bid GROUP BY ROLLUP (channel, bidder)")
    keys = [n.spec.keys for n in plan.nodes if isinstance(n.spec, GroupAggregate)]
    assert sorted(len(k) for k in keys) == [0, 1, 2]
    assert titles(plan)[-1] == "UnionAll"


def test_cube_of_two_makes_four_sets_and_crosses_plain_keys() -> None:
    plan = plan_of(
        "SELECT channel, bidder, auction, count(*) FROM bid GROUP BY auction, CUBE (channel, bidder)"
    )
    keys = [len(n.spec.keys) for n in plan.nodes if isinstance(n.spec, GroupAggregate)]
    assert sorted(keys) == [1, 2, 2, 3]


def test_aggregate_of_window_aggregate_is_forgotten_with_the_window() -> None:
    plan = plan_of(
        "SELECT window_start, window_end, max(c) AS m FROM (SELECT window_start, window_end, auction, count(*) AS c "
        "FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) "
        "GROUP BY window_start, window_end, auction) GROUP BY window_start, window_end"
    )
    top = plan.nodes[-1].spec
    assert isinstance(top, GroupAggregate)
    assert top.window_end == 1
    assert plan.nodes[-1].changelog is Changelog.APPEND


def test_windows_of_windows_go_by_window_time() -> None:
    plan = plan_of(
        "SELECT TUMBLE_START(window_time, INTERVAL '1' MINUTE) AS m, sum(c) AS s FROM (SELECT window_time, auction, "
        "count(*) AS c FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND)) "
        "GROUP BY window_start, window_end, window_time, auction) GROUP BY TUMBLE(window_time, INTERVAL '1' MINUTE)"
    )
    windows = [n.spec for n in plan.nodes if isinstance(n.spec, WindowAggregate)]
    assert len(windows) == 2
    assert windows[1].time is not None
    assert windows[1].input.field(windows[1].time).name == "window_time"


def test_processing_time_by_any_name_is_no_column() -> None:
    plan = plan_of(
        "SELECT bidder, window_start, window_end, count(*) AS n FROM (SELECT *, PROCTIME() AS p FROM bid) "
        "GROUP BY bidder, TUMBLE(p, INTERVAL '10' SECOND)"
    )
    assert titles(plan) == ["Source", "WindowAggregate"]
    window = plan.nodes[1].spec
    assert isinstance(window, WindowAggregate)
    assert window.time is None
    assert read(plan) == ["bidder"]


def test_calls_over_the_same_window_share_an_operator() -> None:
    plan = plan_of(
        "SELECT lag(price) OVER w AS l, row_number() OVER w AS r, "
        "count(*) OVER (PARTITION BY auction ORDER BY dateTime ROWS 3 PRECEDING) AS c FROM bid "
        "WINDOW w AS (PARTITION BY bidder ORDER BY dateTime)"
    )
    overs = [n.spec for n in plan.nodes if isinstance(n.spec, OverAggregate)]
    assert sorted(len(o.calls) for o in overs) == [1, 2]


def test_equal_aggregates_are_computed_once() -> None:
    plan = plan_of(
        "SELECT channel, count(*) AS a, count(*) + 1 AS b FROM bid GROUP BY channel HAVING count(*) > 2"
    )
    (group,) = [n.spec for n in plan.nodes if isinstance(n.spec, GroupAggregate)]
    assert len(group.calls) == 1


def test_integer_event_time_keeps_its_unit() -> None:
    plan = plan_of("SELECT id, count(*) FROM n GROUP BY id, TUMBLE(ts, INTERVAL '1' SECOND)")
    window = plan.nodes[1].spec
    assert isinstance(window, WindowAggregate)
    assert window.time_unit == "ms"
