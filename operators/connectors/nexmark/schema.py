"""What the Nexmark benchmark fixes: its tables, proportions, id spaces and times. Generates nothing.

Source: the Apache Beam Nexmark suite and the benchmark's SQL edition for Flink (which added `channel` and `url`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

PERSON = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("emailAddress", pa.string()),
        ("creditCard", pa.string()),
        ("city", pa.string()),
        ("state", pa.string()),
        ("dateTime", pa.timestamp("ms")),
        ("extra", pa.string()),
    ]
)
AUCTION = pa.schema(
    [
        ("id", pa.int64()),
        ("itemName", pa.string()),
        ("description", pa.string()),
        ("initialBid", pa.int64()),
        ("reserve", pa.int64()),
        ("dateTime", pa.timestamp("ms")),
        ("expires", pa.timestamp("ms")),
        ("seller", pa.int64()),
        ("category", pa.int64()),
        ("extra", pa.string()),
    ]
)
BID = pa.schema(
    [
        ("auction", pa.int64()),
        ("bidder", pa.int64()),
        ("price", pa.int64()),
        ("channel", pa.string()),
        ("url", pa.string()),
        ("dateTime", pa.timestamp("ms")),
        ("extra", pa.string()),
    ]
)
EVENT = pa.schema(
    [
        ("event_type", pa.int32()),
        ("person", pa.struct(list(PERSON))),
        ("auction", pa.struct(list(AUCTION))),
        ("bid", pa.struct(list(BID))),
    ]
)
"""All in one: `event_type` is 0 for a person, 1 for an auction, 2 for a bid; the other two structs are NULL."""

SCHEMAS = {"person": PERSON, "auction": AUCTION, "bid": BID, "event": EVENT}

EPOCH_EVENTS = 50
"""Events come in groups of 50: one person, then three auctions, then 46 bids."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which events of each group of 50 are rows of a table: `count` of them from `first`."""

    first: int
    count: int


SHARES = {"person": Share(0, 1), "auction": Share(1, 3), "bid": Share(4, 46), "event": Share(0, 50)}

BASE_TIME_MS = 1_436_918_400_000
"""2015-07-15T00:00:00Z, the event time of event 0."""
EVENTS_PER_MS = 10
"""Event time advances by 100 µs an event: 10,000 events a second."""

FIRST_PERSON_ID = 1000
FIRST_AUCTION_ID = 1000
FIRST_CATEGORY_ID = 10
CATEGORIES = 5
IN_FLIGHT_AUCTIONS = 100
"""Bids that do not go to the hot auction go to one of the last 100 (or the 10 that come next)."""

PERSON_BYTES = 200
AUCTION_BYTES = 500
BID_BYTES = 100
"""Average size of a row, which `extra` fills up."""

HOT_CHANNELS = ("Google", "Facebook", "Baidu", "Apple")
CHANNELS = 10_000
"""Half of the bids come over a hot channel, the rest over `channel-0` to `channel-9999`."""

FIRST_NAMES = ("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter")
LAST_NAMES = ("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris")
CITIES = (
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
)
STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
