"""What a cluster does not run is refused with a code before anything starts."""

import pytest

from millrace.cluster.job import JobSpec, check_job, check_store, decode_job, encode_job, for_sinks
from millrace.errors import Corrupt, Invalid
from millrace.planner.physical.exchange import layout_of
from millrace.planner.session import Planner
from millrace.submitting import job_spec

BID = "CREATE SOURCE bid WITH (connector='nexmark', table='bid', events='1000', splits='4');"
FILE = "INTO FILE (path='/tmp/never', format='json');"


def spec_of(sql: str, partitions: int = 2, job: str = "j") -> JobSpec:
    return job_spec(sql, job=job, partitions=partitions, checkpoint_interval=1, variables={}, settings={})


def checked(spec: JobSpec) -> None:
    check_job(spec)


def test_a_keyed_aggregate_gets_an_exchange_by_its_key() -> None:
    spec = spec_of(
        f"{BID} CREATE SINK o FROM (SELECT auction, count(*) AS n FROM bid GROUP BY auction) {FILE}"
    )
    layout = layout_of(spec.plan, 2)
    assert len(layout.edges) == 1 and len(layout.edges[0].keys) == 1
    assert len(layout.regions) == 2
    assert not layout_of(spec.plan, 1).edges


def test_a_stateless_job_has_none() -> None:
    spec = spec_of(f"{BID} CREATE SINK o FROM (SELECT auction, price FROM bid WHERE price > 9) {FILE}")
    assert not layout_of(spec.plan, 4).edges
    checked(spec)


def test_a_join_moves_both_sides() -> None:
    spec = spec_of(
        f"""{BID}
        CREATE SOURCE auction WITH (connector='nexmark', table='auction', events='1000');
        CREATE SINK o FROM (SELECT b.price, a.id FROM bid b JOIN auction a ON b.auction = a.id) {FILE}"""
    )
    assert sorted(edge.port for edge in layout_of(spec.plan, 2).edges) == [0, 1]


def test_the_first_rows_of_each_key_move_by_that_key() -> None:
    ranked = "SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid"
    sql = f"{BID} CREATE SINK o FROM (SELECT auction, price, place FROM ({ranked}) WHERE place <= 3) {FILE}"
    assert [len(edge.keys) for edge in layout_of(spec_of(sql).plan, 2).edges] == [1]


@pytest.mark.parametrize(
    ("code", "sql", "partitions"),
    [
        ("MR1383", f"CREATE SOURCE p (a INT) WITH (connector='push'); CREATE SINK o FROM p {FILE}", 1),
        ("MR1384", f"{BID} CREATE SINK o FROM (SELECT auction FROM bid) INTO PRINT ();", 1),
        ("MR1385", f"SET guarantee = 'none'; {BID} CREATE SINK o FROM (SELECT auction FROM bid) {FILE}", 1),
        ("MR1387", f"{BID} CREATE SINK o FROM (SELECT auction FROM bid) {FILE}", 257),
        ("MR1389", f"{BID} CREATE TABLE t AS SELECT auction FROM bid;", 1),
    ],
)
def test_refused(code: str, sql: str, partitions: int) -> None:
    with pytest.raises(Invalid) as caught:
        checked(spec_of(sql, partitions))
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize("store", ["memory:", "memory://x", ""])
def test_no_store_that_outlives_the_processes(store: str) -> None:
    with pytest.raises(Invalid, match="MR1385"):
        check_store(store)
    check_store("file:///shared")


def test_how_long_state_is_kept_is_heeded() -> None:
    joined = f"""{BID} CREATE SOURCE auction WITH (connector='nexmark', table='auction', events='1000');
        CREATE SINK o FROM (SELECT b.price, a.id FROM bid b JOIN auction a ON b.auction = a.id) {FILE}"""
    kept, expiring = spec_of(joined), spec_of(f"SET state.ttl = '1 hour'; {joined}")
    assert kept.plan != expiring.plan


def test_a_name_that_is_no_path() -> None:
    for name in ("", "../x", "a/b", ".hidden"):
        with pytest.raises(Invalid, match="MR1386"):
            checked(spec_of(f"{BID} CREATE SINK o FROM (SELECT auction FROM bid) {FILE}", job=name))


def test_a_spec_survives_the_store_and_damage_is_found() -> None:
    plan, _ = Planner().compile(f"{BID} CREATE SINK o FROM (SELECT auction FROM bid) {FILE}")
    spec = JobSpec("j", for_sinks(plan), partitions=3)
    data = encode_job(spec)
    assert decode_job(data, "j/job") == spec
    with pytest.raises(Corrupt, match="j/job"):
        decode_job(data[:-1] + bytes([data[-1] ^ 1]), "j/job")
