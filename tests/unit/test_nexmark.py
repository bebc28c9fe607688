"""Nexmark rows follow the benchmark's distributions and depend on (seed, event number) alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.nexmark import SCHEMAS, NexmarkSpec, generate
from millrace.operators.source import Position, SourceSpec
from millrace.operators.spec import decode, encode

TABLES = ["person", "auction", "bid", "event"]


class Surroundings:
    """A context whose clock the test sets."""

    vnodes = 256

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def read(
    spec: SourceSpec, split: str, position: Position | None, sizes: list[int]
) -> tuple[pa.Table, Position]:
    """What polls of these sizes give (the last one again and again until the end if it is negative)."""
    reader = spec.build(Surroundings()).open(split, position)
    batches = []
    for size in sizes:
        polled = reader.poll(abs(size))
        while polled is not None:
            assert polled.batch is not None and 0 < polled.batch.num_rows <= abs(size)
            batches.append(polled.batch.data)
            polled = reader.poll(abs(size)) if size < 0 else None
    end = reader.position
    assert reader.ended == (reader.poll(1) is None)
    return pa.Table.from_batches(batches, spec.output_schema), end


@pytest.mark.parametrize("table", TABLES)
def test_rows_have_the_declared_schema_and_no_nulls(table: str) -> None:
    rows = generate(table, 0, 500)
    assert rows.schema == SCHEMAS[table]
    rows.validate(full=True)
    if table != "event":
        assert all(column.null_count == 0 for column in rows.columns)


def test_of_50_events_one_is_a_person_three_are_auctions_46_bids() -> None:
    assert [generate(table, 0, 100_000, columns=[]).num_rows for table in TABLES] == [
        2_000,
        6_000,
        92_000,
        100_000,
    ]
    kinds = generate("event", 0, 50, columns=["event_type"])[0].to_pylist()
    assert kinds == [0] + [1] * 3 + [2] * 46


def test_all_in_one_holds_the_rows_of_the_three_tables() -> None:
    events = generate("event", 37, 333, seed=5)
    for table in ("person", "auction", "bid"):
        rows = [row for row in events[table].to_pylist() if row is not None]
        assert rows == generate(table, 37, 333, seed=5).to_pylist()
    present = [[row[t] is not None for t in ("person", "auction", "bid")] for row in events.to_pylist()]
    assert all(
        sum(row) == 1 and row[kind]
        for row, kind in zip(present, events["event_type"].to_pylist(), strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(
    table=st.sampled_from(TABLES),
    first=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 120), min_size=1, max_size=4),
    data=st.data(),
)
def test_any_cut_of_events_gives_the_same_rows(
    table: str, first: int, cuts: list[int], data: st.DataObject
) -> None:
    columns = data.draw(st.lists(st.sampled_from(SCHEMAS[table].names), min_size=1, unique=True))
    whole = generate(table, first, sum(cuts), 3).select(columns)
    parts, at = [], first
    for count in cuts:
        parts.append(generate(table, at, count, 3, columns))
        at += count
    assert pa.Table.from_batches(parts) == pa.Table.from_batches([whole])


@settings(max_examples=40, deadline=None)
@given(
    table=st.sampled_from(TABLES),
    splits=st.integers(1, 5),
    events=st.integers(0, 700),
    sizes=st.lists(st.integers(1, 90), max_size=4),
)
def test_union_of_splits_is_the_single_split(table: str, splits: int, events: int, sizes: list[int]) -> None:
    spec = NexmarkSpec(table, events, seed=9, splits=splits)
    assert spec.build(Surroundings()).discover() == [str(k) for k in range(splits)]
    rows = []
    for split in range(splits):
        head, position = read(spec, str(split), None, sizes)
        tail, _ = read(spec, str(split), position, [-64])
        rows += head.to_pylist() + tail.to_pylist()
    whole = generate(table, 0, events, 9).to_pylist()
    assert sorted(map(repr, rows)) == sorted(map(repr, whole))
    if splits == 1:
        assert rows == whole


def test_reader_continues_from_any_position() -> None:
    spec = NexmarkSpec("auction", 2_000, splits=3)
    whole, _ = read(spec, "1", None, [-1000])
    for rows in range(0, whole.num_rows + 1, 7):
        _, position = read(spec, "1", None, [rows] if rows else [])
        rest, _ = read(spec, "1", position, [-50])
        assert rest == whole.slice(rows)


def test_rate_paces_by_the_clock() -> None:
    surroundings = Surroundings()
    reader = (
        NexmarkSpec("event", rate=1_000, columns=("event_type",))
        .build(surroundings)
        .open("0", {"event": 500})
    )
    first = reader.poll(10_000)
    assert first is not None and first.batch is not None and first.batch.num_rows == 1
    assert reader.poll(10_000) is None
    surroundings.time = 100_000
    later = reader.poll(10_000)
    assert later is not None and later.batch is not None and later.batch.num_rows == 100
    assert not reader.ended and reader.position == {"event": 601}


def test_seeds_give_different_rows_and_columns_are_independent() -> None:
    one, other = generate("bid", 0, 5_000, 1), generate("bid", 0, 5_000, 2)
    for name in ("price", "channel", "extra", "auction", "bidder"):
        assert one[name] != other[name]
    auction = generate("auction", 0, 50_000)
    initial, raised = (
        auction["initialBid"].to_numpy(),
        auction["reserve"].to_numpy() - auction["initialBid"].to_numpy(),
    )
    assert abs(np.corrcoef(np.log(initial), np.log(raised))[0, 1]) < 0.06


def test_ids_referred_to_exist_by_then_or_soon_after() -> None:
    persons = set(generate("person", 0, 61_000, columns=["id"])[0].to_pylist())
    auctions = set(generate("auction", 0, 61_000, columns=["id"])[0].to_pylist())
    bids = generate("bid", 0, 60_000, columns=["auction", "bidder"])
    assert set(bids["auction"].to_pylist()) <= auctions
    assert set(bids["bidder"].to_pylist()) <= persons
    assert set(generate("auction", 0, 60_000, columns=["seller"])[0].to_pylist()) <= persons
    assert min(persons) == min(auctions) == 1000
    assert len(persons) == 61_000 // 50 and len(auctions) == 61_000 * 3 // 50


def test_half_of_the_bids_go_to_hot_auctions_and_three_quarters_come_from_hot_bidders() -> None:
    bids = generate("bid", 1_000_000, 200_000, columns=["auction", "bidder"])
    hot = np.mean(bids["auction"].to_numpy() % 100 == 0)
    assert 0.5 < hot < 0.52
    assert 0.745 < np.mean(bids["bidder"].to_numpy() % 100 == 1) < 0.76
    sellers = generate("auction", 1_000_000, 1_000_000, columns=["seller"])["seller"].to_numpy()
    assert 0.745 < np.mean(sellers % 100 == 0) < 0.76


def test_prices_are_ten_to_a_uniform_power() -> None:
    price = generate("bid", 0, 200_000, columns=["price"])["price"].to_numpy()
    assert price.min() >= 100 and price.max() <= 100_000_000
    exponent = np.log10(price / 100) / 6
    assert np.allclose(
        np.quantile(exponent, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.01
    )


def test_times_advance_by_100_us_an_event_from_2015_07_15() -> None:
    times = generate("event", 0, 100, columns=["person", "bid"]).to_pylist()
    assert str(times[0]["person"]["dateTime"]) == "2015-07-15 00:00:00"
    assert str(times[99]["bid"]["dateTime"]) == "2015-07-15 00:00:00.009000"
    auctions = generate("auction", 0, 100_000)
    lasting = np.asarray(auctions["expires"].cast("int64")) - np.asarray(auctions["dateTime"].cast("int64"))
    assert lasting.min() >= 1 and lasting.max() <= 334 and 160 < lasting.mean() < 174


def test_channels_and_urls_agree() -> None:
    bids = generate("bid", 0, 100_000, columns=["channel", "url"])
    channels = np.array(bids["channel"].to_pylist())
    urls = np.array(bids["url"].to_pylist())
    hot = np.isin(channels, ["Google", "Facebook", "Baidu", "Apple"])
    assert 0.49 < hot.mean() < 0.51
    assert all(c.startswith("channel-") for c in channels[~hot])
    assert len(set(zip(channels, urls, strict=True))) == len(set(channels))
    with_id = np.char.find(urls, "&channel_id=") >= 0
    assert not with_id[hot].any() and 0.88 < with_id[~hot].mean() < 0.92
    assert all(len(url.split("/")) == 7 and url.split("/")[2] == "www.nexmark.com" for url in urls[:100])


@pytest.mark.parametrize(("table", "size"), [("bid", 100), ("auction", 500), ("person", 208)])
def test_extra_fills_rows_to_their_average_size(table: str, size: int) -> None:
    rows = generate(table, 0, 100_000)
    fixed = sum(8 for f in rows.schema if not pa.types.is_string(f.type))
    text = [f.name for f in rows.schema if pa.types.is_string(f.type) and f.name not in ("channel", "url")]
    total = sum(len("".join(rows[name].to_pylist())) for name in text) / rows.num_rows + fixed
    assert abs(total - size) < 0.03 * size


def test_persons_look_like_people() -> None:
    rows = generate("person", 0, 50_000).to_pylist()
    for row in rows[:200]:
        first, last = row["name"].split(" ")
        name, host = row["emailAddress"].split("@")
        assert first and last and name.isalpha() and host.endswith(".com")
        assert [len(group) for group in row["creditCard"].split(" ")] == [4] * 4
        assert row["creditCard"].replace(" ", "").isdigit()
    assert len({row["state"] for row in rows}) == 6 and len({row["city"] for row in rows}) == 10
    assert {row["category"] for row in generate("auction", 0, 5_000).to_pylist()} == set(range(10, 15))


def test_projection_gives_only_the_columns_asked_for() -> None:
    spec = NexmarkSpec("bid", 100).with_columns((5, 0))
    assert spec.output_schema.names == ["dateTime", "auction"]
    assert spec.with_columns((1,)).output_schema.names == ["auction"]
    rows, _ = read(spec, "0", None, [-1000])
    assert rows == pa.Table.from_batches([generate("bid", 0, 100)]).select(["dateTime", "auction"])
    empty, _ = read(spec.with_columns(()), "0", None, [-1000])
    assert empty.num_columns == 0


def test_connector_reads_options_and_refuses_what_is_wrong() -> None:
    spec = registry.source_spec(
        "nexmark", {"table": "bid", "events": "1000", "seed": "4", "splits": "2"}, None, None
    )
    assert spec == NexmarkSpec("bid", 1000, 0.0, 4, 2)
    assert decode(encode(spec)) == spec
    declared = pa.schema([("price", pa.int64()), ("auction", pa.int64())])
    assert registry.source_spec("nexmark", {"table": "bid"}, declared, None).output_schema == declared
    wrong = [
        ({"table": "bids"}, None, None, "MR1402"),
        ({"splits": "0"}, None, None, "MR1432"),
        ({"events": "-1"}, None, None, "MR1432"),
        ({"rate": "nan"}, None, None, "MR1432"),
        ({"rate": "inf"}, None, None, "MR1432"),
        ({"table": "bid"}, pa.schema([("prise", pa.int64())]), None, "MR1433"),
        ({"table": "bid"}, pa.schema([("price", pa.int32())]), None, "MR1434"),
        ({}, None, "json", "MR1435"),
    ]
    for options, schema, format, code in wrong:
        with pytest.raises(Invalid, match=code):
            registry.source_spec("nexmark", options, schema, format)
    with pytest.raises(Invalid, match="MR1430"):
        generate("bids", 0, 1)
