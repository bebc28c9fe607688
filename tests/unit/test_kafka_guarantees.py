"""Which Kafka sink a job gets: by its guarantee, by what the sink was asked for, under names that are the job's own."""

import pytest

from millrace.cluster.beginnings import Beginnings
from millrace.cluster.job import JobSpec, check_job, decode_job, encode_job, settled
from millrace.errors import Invalid
from millrace.operators.connectors.kafka.sink import KafkaOutboxSpec, KafkaSinkSpec
from millrace.operators.sink import SinkSpec
from millrace.state.store import open_store
from millrace.submitting import job_spec


def spec_of(*sinks: str, guarantee: str = "exactly_once") -> JobSpec:
    sql = f"SET guarantee = '{guarantee}'; CREATE SOURCE bid WITH (connector='nexmark', table='bid');"
    for number, options in enumerate(sinks):
        sql += f"""CREATE SINK o{number} FROM (SELECT auction FROM bid) INTO KAFKA
            (bootstrap.servers = 'nowhere:1', topic = 't'{options});"""
    return job_spec(sql, job="j", partitions=2, checkpoint_interval=1, variables={}, settings={})


def sinks_of(spec: JobSpec) -> list[SinkSpec]:
    check_job(spec)
    return [node.spec for node in spec.plan.nodes if isinstance(node.spec, SinkSpec)]


def prefix_of(spec: JobSpec) -> str:
    (sink,) = sinks_of(spec)
    assert isinstance(sink, KafkaOutboxSpec)
    return f"{sink.prefix}/{sink.name}"


def test_an_exactly_once_job_makes_an_outbox_of_a_sink_that_was_not_asked_otherwise() -> None:
    spec = settled(spec_of(""))
    prefix = prefix_of(spec)
    assert prefix.startswith(f"millrace/j.{spec.incarnation}/")
    assert [node.hash for node in spec.plan.nodes] == [node.hash for node in spec_of("").plan.nodes]
    assert prefix_of(decode_job(encode_job(spec), "j")) == prefix
    assert settled(spec) is spec


def test_another_submission_of_the_same_name_has_other_marks_and_an_upgrade_keeps_them() -> None:
    first, second = settled(spec_of("")), settled(spec_of(""))
    assert prefix_of(first) != prefix_of(second)
    assert prefix_of(settled(spec_of(""), first.incarnation)) == prefix_of(first)


def test_two_equal_sinks_have_names_of_their_own_and_a_prefix_is_kept() -> None:
    options = ", transactional.prefix = 'mine', delivery = 'exactly_once'"
    one, two = sinks_of(settled(spec_of(options, options)))
    assert isinstance(one, KafkaOutboxSpec) and isinstance(two, KafkaOutboxSpec)
    assert one.prefix == two.prefix and one.prefix.startswith("mine/j.")
    assert one.name != two.name


def test_guarantees_that_contradict_are_refused_and_a_stronger_sink_is_not() -> None:
    with pytest.raises(Invalid, match="MR1384"):
        check_job(settled(spec_of(", delivery = 'at_least_once'")))
    plain, asked, exact = sinks_of(
        settled(
            spec_of(
                "",
                ", delivery = 'at_least_once'",
                ", delivery = 'exactly_once'",
                guarantee="at_least_once",
            )
        )
    )
    assert isinstance(plain, KafkaSinkSpec) and isinstance(asked, KafkaSinkSpec)
    assert isinstance(exact, KafkaOutboxSpec)


def test_beginnings_are_kept_by_who_was_first() -> None:
    store = open_store("memory://beginnings")
    one, two = Beginnings(store, "j"), Beginnings(store, "j")
    one.add({"s": {"t/0": {"offset": 5}, "t/1": {}}})
    two.add({"s": {"t/0": {"offset": 9}, "t/2": {"offset": 1}}, "empty": {}})
    for found in (one, two):
        found.read()
        assert found.of("s", "t/0") == {"offset": 5}
        assert found.of("s", "t/1") is None and found.of("s", "nope") is None
        assert found.of("s", "t/2") == {"offset": 1}
        assert found.missing("s", ["t/0", "t/1", "t/3"]) == ["t/3"]
        assert found.knows("s") and found.knows("empty") and not found.knows("other")
