"""Windows: every spelling gives the node that its meaning has; what is easily mistaken is refused with a place."""

from __future__ import annotations

import pytest
from sqlglot import exp

from millrace.errors import Invalid, Unsupported
from millrace.planner.dialect.nodes import (
    Call,
    GroupWindow,
    RowsWindow,
    WindowBound,
    WindowTable,
    position_of,
)
from millrace.planner.script import parse_statement
from millrace.planner.statements import SelectStatement

MINUTE = 60_000_000


def query(sql: str) -> exp.Select:
    statement = parse_statement(sql)
    assert isinstance(statement, SelectStatement)
    assert isinstance(statement.query, exp.Select)
    return statement.query


def column(name: str, table: str | None = None) -> exp.Column:
    return exp.Column(
        this=exp.Identifier(this=name, quoted=False),
        **({"table": exp.Identifier(this=table, quoted=False)} if table else {}),
    )


def group_window(sql: str) -> GroupWindow:
    found = [item for item in query(sql).args["group"].expressions if isinstance(item, GroupWindow)]
    assert len(found) == 1
    return found[0]


TUMBLE = GroupWindow(kind="tumble", size=MINUTE, time=column("ts"))
HOP = GroupWindow(kind="hop", size=5 * MINUTE, slide=MINUTE, time=column("ts"))
SESSION = GroupWindow(kind="session", gap=30_000_000, time=column("ts"))
CUMULATE = GroupWindow(kind="cumulate", size=60 * MINUTE, step=10 * MINUTE, time=column("ts"))


@pytest.mark.parametrize(
    ("clause", "window"),
    [
        ("GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE)", TUMBLE),
        ("GROUP BY k, tumble(ts, INTERVAL '60 seconds')", TUMBLE),
        ("GROUP BY k, TUMBLE(ts, 1m)", TUMBLE),
        ("GROUP BY k, TUMBLE(ts, '1 minute')", TUMBLE),
        ("GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE, INTERVAL '0' SECOND)", TUMBLE),
        ("GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE, INTERVAL '120' SECOND)", TUMBLE),
        ("GROUP BY k WINDOW TUMBLING(ts, INTERVAL '1' MINUTE)", TUMBLE),
        ("GROUP BY k WINDOW TUMBLING(ts, 1m)", TUMBLE),
        ("GROUP BY k, HOP(ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)", HOP),
        ("GROUP BY k, SLIDE(ts, INTERVAL '5' MINUTE, INTERVAL '1' MINUTE)", HOP),
        ("GROUP BY k WINDOW SLIDING(ts, 5m, 1m)", HOP),
        ("GROUP BY k, HOP(ts, SIZE => 5m, SLIDE => 1m)", HOP),
        ("GROUP BY k, SESSION(ts, INTERVAL '30' SECOND)", SESSION),
        ("GROUP BY k WINDOW SESSION(ts, 30s)", SESSION),
        ("WINDOW SESSION(ts, 30s, k)", SESSION),
        ("GROUP BY k, CUMULATE(ts, 10m, 1h)", CUMULATE),
    ],
)
def test_spellings_of_a_group_window_are_one_node(clause: str, window: GroupWindow) -> None:
    select = query(f"SELECT k, count(*) FROM t {clause}")
    assert select.args["group"].expressions == [column("k"), window]


def test_windows_without_a_time_column_use_event_time() -> None:
    bare = GroupWindow(kind="tumble", size=5 * MINUTE)
    assert group_window("SELECT k FROM t GROUP BY k WINDOW TUMBLING(5m)") == bare
    assert group_window("SELECT k FROM t WINDOW TUMBLING PARTITION BY k EVERY 5 MINUTES") == bare
    assert group_window("SELECT tumble(INTERVAL '5' MINUTE) AS w FROM t GROUP BY w") == bare
    sliding = GroupWindow(kind="hop", size=5 * MINUTE, slide=MINUTE)
    assert group_window("SELECT k FROM t GROUP BY k WINDOW SLIDING(5m, 1m)") == sliding


def test_partition_by_of_a_window_clause_is_a_group_key() -> None:
    select = query("SELECT k FROM t WINDOW TUMBLING PARTITION BY k, j EVERY 5 MINUTES")
    assert select.args["group"].expressions[:2] == [column("k"), column("j")]
    again = query("SELECT k FROM t GROUP BY k WINDOW TUMBLING PARTITION BY k EVERY 5 MINUTES")
    assert again.args["group"].expressions.count(column("k")) == 1


def test_an_offset_is_taken_within_the_period() -> None:
    assert group_window("SELECT 1 FROM t GROUP BY TUMBLE(ts, 1m, 70s)").args["offset"] == 10_000_000
    assert (
        group_window("SELECT 1 FROM t GROUP BY TUMBLE(ts, 1m, INTERVAL '-10' SECOND)").args["offset"]
        == 50_000_000
    )


def test_processing_time_is_a_time() -> None:
    window = group_window("SELECT k FROM t GROUP BY k, TUMBLE(PROCTIME(), 1m)")
    assert window.args["time"] == Call(this="proctime", expressions=[])


@pytest.mark.parametrize(
    ("relation", "window"),
    [
        ("TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))", TUMBLE),
        ("TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' MINUTE))", TUMBLE),
        ("TUMBLE(t, ts, INTERVAL '1' MINUTE)", TUMBLE),
        ("TUMBLE(TABLE(t), DESCRIPTOR(ts), 1m)", TUMBLE),
        ("TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))", HOP),
        ("TABLE(HOP(TABLE t, DESCRIPTOR(ts), SIZE => 5m, SLIDE => 1m))", HOP),
        ("HOP(t, ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)", HOP),
        ("SLIDE(t, ts, 5m, 1m)", HOP),
        ("TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTE, INTERVAL '1' HOUR))", CUMULATE),
        ("SESSION(t, ts, 30s)", SESSION),
    ],
)
def test_spellings_of_a_window_table_are_one_node(relation: str, window: GroupWindow) -> None:
    found = query(f"SELECT * FROM {relation}").args["from_"].this
    assert isinstance(found, WindowTable)
    table = exp.Table(this=exp.Identifier(this="t", quoted=False))
    assert found == WindowTable(
        this=table, **{k: v.copy() if k == "time" else v for k, v in window.args.items()}
    )


@pytest.mark.parametrize(
    "relation",
    [
        "TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' SECOND)) AS w",
        "TABLE(SESSION(TABLE t PARTITION BY (k), DESCRIPTOR(ts), 30s)) w",
        "SESSION(t PARTITION BY k, ts, 30s) w",
        "SESSION(t, PARTITION BY k, ts, 30s) w",
    ],
)
def test_a_session_table_takes_keys_and_an_alias(relation: str) -> None:
    found = query(f"SELECT * FROM {relation}").args["from_"].this
    assert found.args["partition_by"] == [column("k")]
    assert found.alias == "w"


def test_a_session_table_takes_several_keys() -> None:
    found = (
        query("SELECT * FROM TABLE(SESSION(TABLE t PARTITION BY k, j, DESCRIPTOR(ts), 30s))")
        .args["from_"]
        .this
    )
    assert found.args["partition_by"] == [column("k"), column("j")]


def test_a_window_table_reads_a_subquery_and_joins() -> None:
    select = query(
        "SELECT * FROM TUMBLE((SELECT * FROM t), ts, 1m) a JOIN TUMBLE(u, ts, 1m) b ON a.window_start = b.window_start"
    )
    assert isinstance(select.args["from_"].this.this, exp.Subquery)
    assert isinstance(select.args["joins"][0].this, WindowTable)


@pytest.mark.parametrize(
    ("item", "group", "bound"),
    [
        ("TUMBLE_START(ts, INTERVAL '1' MINUTE)", "TUMBLE(ts, 1m)", "start"),
        ("TUMBLE_START()", "TUMBLE(ts, 1m)", "start"),
        ("TUMBLE_END(ts, 1m)", "TUMBLE(ts, 1m)", "end"),
        ("TUMBLE_ROWTIME(ts, 1m)", "TUMBLE(ts, 1m)", "time"),
        ("HOP_START(ts, 1m, 5m)", "HOP(ts, 1m, 5m)", "start"),
        ("HOP_END(ts, 1m, 5m)", "SLIDE(ts, 5m, 1m)", "end"),
        ("SESSION_END(ts, 1m)", "SESSION(ts, 1m)", "end"),
        ("window_start", "TUMBLE(ts, 1m)", "start"),
        ("window_end", "TUMBLE(ts, 1m)", "end"),
        ("WINDOW_TIME", "TUMBLE(ts, 1m)", "time"),
        ("_WINDOW_START", "TUMBLE(ts, 1m)", "start"),
        ("_window_end", "TUMBLE(ts, 1m)", "end"),
        ("tumble(ts, 1m).start", "TUMBLE(ts, 1m)", "start"),
        ("tumble(INTERVAL '1' MINUTE)", "tumble(INTERVAL '1' MINUTE)", "struct"),
    ],
)
def test_spellings_of_a_bound(item: str, group: str, bound: str) -> None:
    found = query(f"SELECT {item} AS b, k FROM t GROUP BY {group}, k").expressions[0].this
    assert found == WindowBound(bound=bound)
    assert position_of(found) is not None


def test_an_unnamed_bound_keeps_the_name_of_its_spelling() -> None:
    select = query("SELECT TUMBLE_START(ts, 1m), _WINDOW_END, window_start FROM t GROUP BY TUMBLE(ts, 1m)")
    assert [item.alias for item in select.expressions] == ["tumble_start", "_WINDOW_END", "window_start"]


def test_a_window_as_a_value_is_found_by_alias_and_ordinal() -> None:
    by_name = query("SELECT tumble(INTERVAL '1' MINUTE) AS w, w.start AS s, w.end AS e FROM t GROUP BY w")
    by_ordinal = query("SELECT tumble(INTERVAL '1' MINUTE) AS w, w.start AS s, w.end AS e FROM t GROUP BY 1")
    assert by_name == by_ordinal
    assert [item.this.args["bound"] for item in by_name.expressions] == ["struct", "start", "end"]


def test_bounds_in_having_and_order() -> None:
    select = query(
        "SELECT count(*) FROM t GROUP BY TUMBLE(ts, 1m) HAVING TUMBLE_START(ts, 1m) > now() ORDER BY window_end"
    )
    assert list(select.args["having"].find_all(WindowBound))
    assert select.args["order"].expressions[0].this == WindowBound(bound="end")


def test_bounds_over_a_window_table_are_columns() -> None:
    select = query("SELECT window_start, count(*) FROM TUMBLE(t, ts, 1m) GROUP BY window_start, window_end")
    assert select.expressions[0] == column("window_start")
    assert select.args["group"].expressions == [column("window_start"), column("window_end")]


def test_a_group_window_does_not_reach_into_subqueries() -> None:
    select = query(
        "SELECT window_start FROM t WHERE x > (SELECT max(window_start) FROM u) GROUP BY TUMBLE(ts, 1m)"
    )
    inner = select.args["where"].find(exp.Subquery)
    assert not list(inner.find_all(WindowBound))


@pytest.mark.parametrize(
    ("clause", "mode"),
    [
        ("GROUP BY k WINDOW TUMBLING(1m) EMIT CHANGES", "every_record"),
        ("WINDOW TUMBLING PARTITION BY k EVERY 1 MINUTE EMIT CHANGES", "every_record"),
        ("GROUP BY k, TUMBLE(ts, 1m) EMIT CHANGES", "changes"),
        ("GROUP BY k WINDOW TUMBLING(1m) EMIT FINAL", "final"),
    ],
)
def test_window_clauses_emit_changes_by_record(clause: str, mode: str) -> None:
    assert query(f"SELECT k, count(*) FROM t {clause}").args["emit"].args["mode"] == mode


def test_rows_windows() -> None:
    full = query(
        "SELECT avg(p) OVER (ROWS WINDOW BUFFER 100 ROWS PARTITION BY s ORDER BY ts"
        " ROWS BETWEEN 9 PRECEDING AND CURRENT ROW EMIT ON BUFFER FULL EXPIRE AFTER INTERVAL '1' HOUR INACTIVITY) FROM t"
    ).expressions[0]
    assert isinstance(full, RowsWindow)
    assert (full.args["rows"], full.args["emit"], full.args["expire"]) == (100, "buffer_full", 60 * MINUTE)
    assert full.args["partition_by"] == [column("s")]
    assert full.args["spec"].args["kind"] == "ROWS"
    every = query("SELECT avg(p) OVER (ROWS WINDOW BUFFER 100 ROWS EMIT EVERY RECORD) FROM t").expressions[0]
    plain = query("SELECT avg(p) OVER (ROWS WINDOW BUFFER 100 ROWS EXPIRE AFTER NEVER) FROM t").expressions[0]
    assert every == plain
    assert every.args["emit"] == "every_record"


def test_named_windows_are_filled_in() -> None:
    named = query("SELECT sum(x) OVER w FROM t WINDOW w AS (PARTITION BY k ORDER BY ts)")
    spelt = query("SELECT sum(x) OVER (PARTITION BY k ORDER BY ts) FROM t")
    assert named == spelt
    extended = query("SELECT sum(x) OVER (w ORDER BY ts) FROM t WINDOW w AS (PARTITION BY k)")
    assert extended == spelt


def test_one_sided_frames_end_at_the_current_row() -> None:
    short = query("SELECT sum(x) OVER (ORDER BY ts ROWS 5 PRECEDING) FROM t")
    full = query("SELECT sum(x) OVER (ORDER BY ts ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) FROM t")
    assert short == full


@pytest.mark.parametrize(
    ("sql", "code", "place"),
    [
        ("SELECT 1 FROM t GROUP BY HOP(ts, 5m, 1m)", "MR1041", (1, 34)),
        ("SELECT 1 FROM t WINDOW SLIDING(ts, 1m, 5m)", "MR1041", (1, 40)),
        ("SELECT * FROM HOP(t, ts, 5m, 1m)", "MR1041", (1, 26)),
        ("SELECT * FROM CUMULATE(t, ts, 7m, 1h)", "MR1042", (1, 35)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MONTH)", "MR1031", (1, 37)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts, 60000)", "MR1030", (1, 37)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts, INTERVAL '0' SECOND)", "MR1032", (1, 37)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts)", "MR1040", (1, 26)),
        ("SELECT 1 FROM t GROUP BY HOP(ts, 1m)", "MR1040", (1, 26)),
        ("SELECT 1 FROM t GROUP BY SESSION(ts, 1m, 2m)", "MR1040", (1, 42)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts + 1, 1m)", "MR1040", (1, 33)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts, 1m), HOP(ts, 1m, 2m)", "MR1046", (1, 42)),
        ("SELECT 1 FROM t GROUP BY TUMBLE(ts, 1m) WINDOW TUMBLING(1m)", "MR1046", (1, 48)),
        ("SELECT TUMBLE_START(ts, 1m) FROM t", "MR1045", (1, 8)),
        ("SELECT TUMBLE_START(ts, 2m) FROM t GROUP BY TUMBLE(ts, 1m)", "MR1045", (1, 8)),
        ("SELECT HOP_START(ts, 1m) FROM t GROUP BY TUMBLE(ts, 1m)", "MR1040", (1, 8)),
        ("SELECT tumble(1m) FROM t", "MR1045", (1, 8)),
        ("SELECT 1 FROM t WINDOW HOPPING(ts, 5m, 1m)", "MR1047", (1, 24)),
        ("SELECT 1 FROM t WINDOW TUMBLNG(1m)", "MR1010", (1, 24)),
        ("SELECT sum(x) OVER w FROM t", "MR1053", (1, 20)),
        ("SELECT sum(x) OVER (ROWS WINDOW BUFFER 0 ROWS) FROM t", "MR1043", (1, 40)),
        ("SELECT sum(x) OVER (ROWS WINDOW BUFFER x ROWS) FROM t", "MR1010", (1, 40)),
        ("SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), 1m)", "MR1010", (1, 56)),
    ],
)
def test_windows_that_can_not_be(sql: str, code: str, place: tuple[int, int]) -> None:
    with pytest.raises(Invalid) as caught:
        parse_statement(sql)
    assert caught.value.code == code
    assert caught.value.position is not None
    assert (caught.value.position.line, caught.value.position.column) == place
    assert "^" in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM t GROUP BY GROUPING SETS ((TUMBLE(ts, 1m)), (k))",
        "SELECT 1 FROM t GROUP BY date_trunc('hour', TUMBLE(ts, 1m))",
        "SELECT sum(x) OVER (ORDER BY a ROWS 1 PRECEDING EXCLUDE TIES) FROM t",
    ],
)
def test_windows_that_are_not_supported(sql: str) -> None:
    with pytest.raises(Unsupported):
        parse_statement(sql)
