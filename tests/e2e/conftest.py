"""Services that end-to-end tests run against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e import broker as kafka
from tests.e2e import postgres_server as postgresql
from tests.e2e import ray_jobs, s3_server

from millrace.cluster.jobs import Cluster


@pytest.fixture(scope="session")
def broker() -> Iterator[kafka.Broker]:
    """A real Kafka broker, one a session."""
    yield from kafka.running()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Server]:
    """A real PostgreSQL server, one a session."""
    yield from postgresql.running()


@pytest.fixture
def s3() -> Iterator[s3_server.Server]:
    """An S3-compatible server, and an environment that leads to it."""
    yield from s3_server.running()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A local Ray cluster, one a session."""
    yield from ray_jobs.local_cluster()


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of numbered rows."""
    return ray_jobs.write_numbers(tmp_path_factory.mktemp("numbers"))
