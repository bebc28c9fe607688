"""Nexmark rows by event number: the row of an event is a function of (seed, event number) and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.nexmark import schema as nexmark
from millrace.operators.connectors.nexmark import text
from millrace.operators.connectors.nexmark.schema import SCHEMAS, SHARES
from millrace.operators.connectors.nexmark.text import Int64Array, Texts

NAMES = Texts.of([f"{first} {last}" for first in nexmark.FIRST_NAMES for last in nexmark.LAST_NAMES])
CITIES = Texts.of(nexmark.CITIES)
STATES = Texts.of(nexmark.STATES)


def generate(
    table: str, first_event: int, count: int, seed: int = 0, columns: Sequence[str] | None = None
) -> pa.RecordBatch:
    """The rows of `table` among events `first_event` to `first_event + count`.

    `table` is person, auction, bid or event (all in one). Of 50 events one is a person, 3 are auctions and 46 bids,
    so 50 events give 46 rows of `bid`. `columns` are names, all of the table where None.
    """
    if table not in SCHEMAS:
        raise Invalid(f"nexmark has no table {table!r}", code="MR1430", hint=f"one of {', '.join(SCHEMAS)}")
    names = tuple(SCHEMAS[table].names if columns is None else columns)
    first_row = rows_before(table, first_event)
    rows = rows_before(table, first_event + count) - first_row
    return rows_of(table, table_events(table, first_row, rows), seed, names)


def rows_before(table: str, event: int) -> int:
    """How many rows of `table` the events below `event` are."""
    share = SHARES[table]
    group, within = divmod(event, nexmark.EPOCH_EVENTS)
    return group * share.count + min(max(within - share.first, 0), share.count)


def table_events(table: str, first_row: int, count: int, split: int = 0, splits: int = 1) -> Int64Array:
    """Event numbers of `count` rows of `table` from row `first_row` of split `split` of `splits`."""
    events = np.empty(count, np.int64)
    share = SHARES[table]
    _kernels().event_numbers(first_row, share.first, share.count, split, splits, events)
    return events


def rows_of(table: str, events: Int64Array, seed: int, columns: Sequence[str]) -> pa.RecordBatch:
    """The rows of these events, which must all be of `table`, with these columns in this order."""
    schema = SCHEMAS[table]
    if table == "event":
        arrays = [_event_column(name, events, seed) for name in columns]
    else:
        arrays = [COLUMNS[table][name](events, seed) for name in columns]
    fields = [schema.field(name) for name in columns]
    if not arrays:
        return pa.RecordBatch.from_arrays([pa.nulls(len(events))], names=["_"]).select([])
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _kernels() -> ModuleType:
    # Deferred: Numba costs a third of a second to import.
    from millrace.operators.connectors.nexmark import column_kernels

    return column_kernels


def _event_column(name: str, events: Int64Array, seed: int) -> pa.Array:
    within = events % nexmark.EPOCH_EVENTS
    if name == "event_type":
        return pa.array(np.where(within == 0, 0, np.where(within < 4, 1, 2)).astype(np.int32))
    share = SHARES[name]
    mine = (within >= share.first) & (within < share.first + share.count)
    rows = rows_of(name, events[mine], seed, SCHEMAS[name].names)
    compact = pa.StructArray.from_arrays(rows.columns, fields=list(SCHEMAS[name]))
    return compact.take(pa.array(np.cumsum(mine) - 1, mask=~mine))


def _random(events: Int64Array, seed: int, stream: int) -> npt.NDArray[np.uint64]:
    bits = np.empty(len(events), np.uint64)
    _kernels().draws(events, np.uint64(text.stream_key(seed, stream)), bits)
    return bits


def _below(events: Int64Array, seed: int, stream: int, bound: int) -> Int64Array:
    out = np.empty(len(events), np.int64)
    _kernels().numbers_below(events, np.uint64(text.stream_key(seed, stream)), bound, out)
    return out


@lru_cache(maxsize=1)
def _powers() -> npt.NDArray[np.float64]:
    """Row r, entry j: 10**(6 j / 1024**(r + 1)), so that a product of one of each row is 10**(6 u)."""
    rows = [[math.pow(10.0, 6.0 * j / 1024 ** (r + 1)) for j in range(1024)] for r in range(3)]
    return np.array(rows)


def _prices(events: Int64Array, seed: int, stream: int) -> Int64Array:
    out = np.empty(len(events), np.int64)
    _kernels().prices(events, np.uint64(text.stream_key(seed, stream)), _powers(), out)
    return out


def _times(events: Int64Array) -> Int64Array:
    return events // nexmark.EVENTS_PER_MS + nexmark.BASE_TIME_MS


def _timestamps(values: Int64Array) -> pa.Array:
    return pa.Array.from_buffers(pa.timestamp("ms"), len(values), [None, pa.py_buffer(values)], 0)


def _date_time(events: Int64Array, seed: int) -> pa.Array:
    return _timestamps(_times(events))


def _padding(events: Int64Array, seed: int, stream: int, size: Int64Array, wanted: int) -> pa.Array:
    """Letters that bring a row of `size` bytes to `wanted` on average, give or take a fifth of what is missing."""
    missing = wanted - size
    spread = np.floor(missing * 0.2 + 0.5).astype(np.int64)
    bits = _random(events, seed, stream)
    extent = np.maximum(2 * spread, 1).astype(np.uint64)
    more = (((bits & np.uint64(0xFFFFFFFF)) * extent) >> np.uint64(32)).astype(np.int64)
    begins = (bits >> np.uint64(48)).astype(np.int64)
    return text.slices(text.letters(seed), begins, np.maximum(missing - spread + more, 0))


def _word_slices(events: Int64Array, seed: int, stream: int, longest: int) -> tuple[Int64Array, Int64Array]:
    """Begin and length of a text of 3 to `longest` - 1 letters and blanks in the pool of words."""
    bits = _random(events, seed, stream)
    begins = (bits >> np.uint64(48)).astype(np.int64)
    extent = np.uint64(longest - 3)
    lengths = 3 + (((bits & np.uint64(0xFFFFFFFF)) * extent) >> np.uint64(32)).astype(np.int64)
    _kernels().trim(text.words(seed), begins, lengths)
    return begins, lengths


def _words(stream: int, longest: int) -> Column:
    def column(events: Int64Array, seed: int) -> pa.Array:
        return text.slices(text.words(seed), *_word_slices(events, seed, stream, longest))

    return column


def _chosen(stream: int, choices: Texts) -> Column:
    def column(events: Int64Array, seed: int) -> pa.Array:
        return choices.take(_below(events, seed, stream, len(choices.offsets) - 1))

    return column


def _bid_auction(events: Int64Array, seed: int) -> pa.Array:
    out = np.empty(len(events), np.int64)
    key = np.uint64(text.stream_key(seed, 1))
    _kernels().bid_auctions(events, key, nexmark.IN_FLIGHT_AUCTIONS, nexmark.FIRST_AUCTION_ID, out)
    return pa.array(out)


def _bidder(events: Int64Array, seed: int) -> pa.Array:
    # Hot bidders are the second of each hundred persons, so that they are not the hot sellers.
    return _person(events, seed, 2, 1)


def _seller(events: Int64Array, seed: int) -> pa.Array:
    return _person(events, seed, 3, 0)


def _person(events: Int64Array, seed: int, stream: int, hot: int) -> pa.Array:
    out = np.empty(len(events), np.int64)
    key = np.uint64(text.stream_key(seed, stream))
    _kernels().person_ids(events, key, hot, nexmark.FIRST_PERSON_ID, out)
    return pa.array(out)


def _bid_price(events: Int64Array, seed: int) -> pa.Array:
    return pa.array(_prices(events, seed, 4))


def _channel_numbers(events: Int64Array, seed: int) -> Int64Array:
    out = np.empty(len(events), np.int64)
    key = np.uint64(text.stream_key(seed, 5))
    _kernels().channel_numbers(events, key, nexmark.CHANNELS, len(nexmark.HOT_CHANNELS), out)
    return out


def _channel(events: Int64Array, seed: int) -> pa.Array:
    return text.channels(seed)[0].take(_channel_numbers(events, seed))


def _url(events: Int64Array, seed: int) -> pa.Array:
    return text.channels(seed)[1].take(_channel_numbers(events, seed))


def _bid_extra(events: Int64Array, seed: int) -> pa.Array:
    return _padding(events, seed, 6, np.full(len(events), 32), nexmark.BID_BYTES)


def _auction_id(events: Int64Array, seed: int) -> pa.Array:
    group, within = np.divmod(events, nexmark.EPOCH_EVENTS)
    return pa.array(group * 3 + within - 1 + nexmark.FIRST_AUCTION_ID)


def _initial_bid(events: Int64Array, seed: int) -> pa.Array:
    return pa.array(_prices(events, seed, 12))


def _reserve(events: Int64Array, seed: int) -> pa.Array:
    return pa.array(_prices(events, seed, 12) + _prices(events, seed, 13))


def _expires(events: Int64Array, seed: int) -> pa.Array:
    """On average when as many auctions have begun as are in flight: within twice the time 1,666 events take."""
    ahead = nexmark.IN_FLIGHT_AUCTIONS * nexmark.EPOCH_EVENTS // SHARES["auction"].count
    now = _times(events)
    horizon = (2 * (_times(events + ahead) - now)).astype(np.uint64)
    bits = _random(events, seed, 14) >> np.uint64(32)
    return _timestamps(now + 1 + ((bits * horizon) >> np.uint64(32)).astype(np.int64))


def _category(events: Int64Array, seed: int) -> pa.Array:
    return pa.array(nexmark.FIRST_CATEGORY_ID + _below(events, seed, 15, nexmark.CATEGORIES))


def _auction_extra(events: Int64Array, seed: int) -> pa.Array:
    size = 48 + _word_slices(events, seed, 10, 20)[1] + _word_slices(events, seed, 11, 100)[1]
    return _padding(events, seed, 16, size, nexmark.AUCTION_BYTES)


def _person_id(events: Int64Array, seed: int) -> pa.Array:
    return pa.array(events // nexmark.EPOCH_EVENTS + nexmark.FIRST_PERSON_ID)


def _email_parts(events: Int64Array, seed: int) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """Begins of name and host in the pool of letters, length of the name (3 to 6) and of the host (3 or 4)."""
    bits = _random(events, seed, 21)
    names = (bits >> np.uint64(48)).astype(np.int64)
    hosts = ((bits >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.int64)
    return (
        names,
        hosts,
        3 + (bits & np.uint64(3)).astype(np.int64),
        3 + (bits >> np.uint64(2) & np.uint64(1)).astype(np.int64),
    )


def _email(events: Int64Array, seed: int) -> pa.Array:
    names, hosts, name_lengths, host_lengths = _email_parts(events, seed)
    offsets = text.string_offsets(name_lengths + host_lengths + 5)
    data = np.empty(int(offsets[-1]), np.uint8)
    _kernels().addresses(text.letters(seed), names, hosts, name_lengths, offsets, data)
    return text.string_array(offsets, data)


def _credit_card(events: Int64Array, seed: int) -> pa.Array:
    data = np.empty(19 * len(events), np.uint8)
    _kernels().card_numbers(_random(events, seed, 22), data)
    return text.string_array(text.string_offsets(np.full(len(events), 19)), data)


def _person_extra(events: Int64Array, seed: int) -> pa.Array:
    size = np.full(len(events), 8 + 19 + 5)
    _, _, name_lengths, host_lengths = _email_parts(events, seed)
    size += name_lengths + host_lengths
    for stream, choices in ((20, NAMES), (23, CITIES), (24, STATES)):
        size += choices.lengths(_below(events, seed, stream, len(choices.offsets) - 1))
    return _padding(events, seed, 25, size, nexmark.PERSON_BYTES)


Column = Callable[[Int64Array, int], pa.Array]

COLUMNS: dict[str, dict[str, Column]] = {
    "bid": {
        "auction": _bid_auction,
        "bidder": _bidder,
        "price": _bid_price,
        "channel": _channel,
        "url": _url,
        "dateTime": _date_time,
        "extra": _bid_extra,
    },
    "auction": {
        "id": _auction_id,
        "itemName": _words(10, 20),
        "description": _words(11, 100),
        "initialBid": _initial_bid,
        "reserve": _reserve,
        "dateTime": _date_time,
        "expires": _expires,
        "seller": _seller,
        "category": _category,
        "extra": _auction_extra,
    },
    "person": {
        "id": _person_id,
        "name": _chosen(20, NAMES),
        "emailAddress": _email,
        "creditCard": _credit_card,
        "city": _chosen(23, CITIES),
        "state": _chosen(24, STATES),
        "dateTime": _date_time,
        "extra": _person_extra,
    },
}
