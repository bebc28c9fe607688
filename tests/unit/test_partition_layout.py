"""What a plan becomes for several partitions: where rows change partition, and what restores a lost order."""

from dataclasses import replace

from millrace.cluster.job import for_sinks
from millrace.cluster.timekeeping import InputWatermarks
from millrace.operators.aggregates.specs import GroupAggregate
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.operators.joins.regular_spec import RegularJoin, SideInput
from millrace.operators.sink import Changelog
from millrace.planner.physical.exchange import Layout, layout_of
from millrace.planner.physical.partitioned import for_partitions
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

BID = "CREATE SOURCE bid WITH (connector='nexmark', table='bid', events='1000', splits='4');"
AUCTION = "CREATE SOURCE auction WITH (connector='nexmark', table='auction', events='1000', splits='4');"
COUNTS = "SELECT auction, count(*) AS n FROM bid GROUP BY auction"


def planned(query: str) -> tuple[Plan, Layout]:
    plan = for_sinks(Planner().compile(f"{BID}{AUCTION}CREATE SINK o FROM ({query}) INTO BLACKHOLE ()")[0])
    return plan, layout_of(plan, 2)


def titles(plan: Plan) -> list[str]:
    return [type(node.spec).__name__ for node in plan.nodes]


def test_a_join_of_inputs_that_lie_right_already_moves_nothing() -> None:
    _, layout = planned(
        f"SELECT a.auction, a.n, b.n AS m FROM ({COUNTS}) a JOIN ({COUNTS}) b ON a.auction = b.auction"
    )
    plan, _ = planned(COUNTS)
    assert [type(plan.nodes[e.consumer].spec).__name__ for e in layout.edges] == ["GroupAggregate"]


def test_rows_that_meet_again_wait_in_a_channel_of_their_partition() -> None:
    plan, layout = planned(f"SELECT auction, price FROM bid UNION ALL SELECT auction, n FROM ({COUNTS})")
    union = titles(plan).index("UnionAll")
    assert [e.port for e in layout.edges if e.consumer == union and e.keys is None] == [0, 1]
    assert layout.exchanged
    assert len(layout.regions) == 3


def test_without_an_exchange_nothing_is_held_apart() -> None:
    _, layout = planned("SELECT auction, price FROM bid UNION ALL SELECT id, initialBid FROM auction")
    assert layout.edges == ()
    assert len(layout.regions) == 1


def test_a_node_without_a_key_runs_in_one_partition_even_where_no_row_moves() -> None:
    plan, layout = planned("SELECT sum(n) AS s FROM (SELECT count(*) AS n FROM bid)")
    groups = [at for at, title in enumerate(titles(plan)) if title == "GroupAggregate"]
    assert layout.gathering == frozenset(groups)
    assert len(layout.edges) == 1


def test_changes_of_one_key_from_several_partitions_are_put_in_order_before_they_replace() -> None:
    plan, layout = planned(
        f"""SELECT a.auction, b.bidder, a.n FROM ({COUNTS}) a
        JOIN (SELECT bidder, count(*) AS n FROM bid GROUP BY bidder) b ON a.n = b.n"""
    )
    join, last = titles(plan).index("RegularJoin"), titles(plan).index("TopRows")
    assert plan.nodes[last].inputs == (join,)
    assert [e.keys for e in layout.edges if e.consumer == last] == [plan.nodes[-1].key]
    assert [e for e in layout.edges if e.consumer == len(plan.nodes) - 1] == []


def test_upserts_that_move_by_another_column_are_made_into_changes() -> None:
    query = f"SELECT a.auction, a.n, b.seller FROM ({COUNTS}) a JOIN auction b ON a.n = b.id"
    whole, _ = Planner().compile(f"{BID}{AUCTION}CREATE SINK o FROM ({query}) INTO BLACKHOLE ()")
    nodes = []
    for node in whole.nodes:
        match node.spec:
            case GroupAggregate() as spec:
                spec = replace(spec, emission=replace(spec.emission, upsert=True))
                node = replace(node, spec=spec, changelog=Changelog.UPSERT)
            case RegularJoin() as spec:
                node = replace(node, spec=replace(spec, left_input=SideInput(Changelog.UPSERT, (0,))))
        nodes.append(node)
    plan = for_partitions(replace(whole, nodes=tuple(nodes)))
    join = next(node for node in plan.nodes if isinstance(node.spec, RegularJoin))
    assert isinstance(join.spec, RegularJoin)
    assert type(plan.nodes[join.inputs[0]].spec).__name__ == "Normalize"
    assert join.spec.left_input == SideInput(Changelog.RETRACT, (0,))


def test_tables_that_nobody_reads_from_outside_are_no_nodes() -> None:
    sql = f"{BID} CREATE TABLE t AS SELECT auction, price FROM bid; CREATE SINK o FROM t INTO BLACKHOLE ()"
    whole, _ = Planner().compile(sql)
    assert "Materialize" in titles(whole)
    assert "Materialize" not in titles(for_sinks(whole))


def test_explain_says_what_moves_in_front_of_a_join() -> None:
    shown = Planner().explain(
        f"{BID}{AUCTION} SELECT b.price, a.seller FROM bid b JOIN auction a ON b.auction = a.id"
    )
    assert "exchange: left by auction, right by id" in shown


def test_idle_inputs_hold_nobody_back() -> None:
    marks = InputWatermarks([0, 1, 2])
    assert not marks.advance(0, 10)
    assert not marks.set_idle(2, True)
    assert marks.advance(1, 7) and marks.current == 7
    assert marks.set_idle(1, True) and marks.current == 10
    assert not marks.idle
    assert not marks.set_idle(0, True)
    assert marks.idle
    assert not marks.set_idle(1, False) and not marks.idle
    assert marks.advance(1, 12) and marks.current == 12
    assert not marks.advance(1, END_OF_TIME) and marks.idle and marks.current == 12
    marks.set_idle(0, False)
    marks.set_idle(2, False)
    assert not marks.advance(0, END_OF_TIME)
    assert marks.advance(2, END_OF_TIME) and marks.current == END_OF_TIME and not marks.idle


def test_an_input_that_never_delivered_holds_nobody_back_once_idle() -> None:
    marks = InputWatermarks([0, 1])
    assert not marks.advance(0, 5) and marks.current == START_OF_TIME
    assert marks.set_idle(1, True) and marks.current == 5
