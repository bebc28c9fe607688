"""Settings of Kafka clients and what their errors mean to a job. Reads and writes nothing itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from millrace.errors import Fenced, Invalid, MillraceError, Unavailable
from millrace.operators.spec import serialisable

LOG = logging.getLogger("millrace.kafka")

_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
    }
)
_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError._INVALID_ARG,
    }
)
TRANSIENT = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
    }
)
"""The client tries these again by itself."""
_OWN = frozenset(
    {"enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof", "transactional.id"}
)
"""Settings on which the guarantees rest; they are not the user's to change."""


@serialisable
@dataclass(frozen=True, slots=True)
class Servers:
    """How to reach a cluster: `bootstrap.servers` and what passes through to librdkafka (SASL, TLS, tuning)."""

    bootstrap: str
    settings: tuple[tuple[str, str], ...] = ()

    def client(self, own: Mapping[str, object]) -> dict[str, Any]:
        """A client's configuration: `own` are the connector's choices, which the user's settings override."""
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": "millrace",
            "log_level": 2,
            "error_cb": _log,
            **own,
            **dict(self.settings),
        }


def _log(error: KafkaError) -> None:
    LOG.warning("%s", error.str())


def read_servers(bootstrap: str, settings: Mapping[str, str]) -> Servers:
    """The cluster that the options name. Raises Invalid MR1470 for a setting that is not the user's."""
    for name in settings:
        if name in _OWN:
            raise Invalid(
                f"option 'kafka.{name}' can not be set: the connector needs its own value",
                code="MR1470",
                hint="leave it out",
            )
    return Servers(bootstrap, tuple(sorted(settings.items())))


def translated(error: KafkaError | KafkaException, doing: str) -> MillraceError:
    """A client's error as the kind that says what to do: Fenced, Invalid or Unavailable."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(cause, KafkaError):
        return Invalid(f"{doing}: {cause}", code="MR1471", hint="check the kafka.* options")
    if is_fenced(cause):
        return Fenced(f"{doing}: another owner took over ({cause.str()})", code="MR4030")
    if cause.code() in _REFUSED:
        return Invalid(f"{doing}: {cause.str()}", code="MR1471", hint="check the kafka.* options")
    return Unavailable(f"{doing}: {cause.str()}", code="MR3030", hint="check that the brokers can be reached")


def is_fenced(error: object) -> bool:
    """Whether a client's error says that another producer with the same transactional id has begun."""
    return isinstance(error, KafkaError) and error.code() in _FENCED
