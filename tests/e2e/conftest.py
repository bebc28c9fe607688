"""Services that end-to-end tests run against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e import broker as kafka


@pytest.fixture(scope="session")
def broker() -> Iterator[kafka.Broker]:
    """A real Kafka broker, one a session."""
    yield from kafka.running()
