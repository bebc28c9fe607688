"""The connection to a Ray cluster, and the names of actors there. Starts no job."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from millrace.errors import MillraceError, Unavailable

NAMESPACE = "millrace"
METADATA = "millrace:metadata"


def connect(address: str) -> None:
    """Join the cluster at `address` ('auto', 'local', 'host:port' or ray://…), if this process has not joined one.

    Whether clusters ask for a token differs between versions of Ray, so it is said: none, unless
    RAY_AUTH_MODE says otherwise. Raises Unavailable where nothing answers.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}",
            code="MR3017",
            hint="start one with `ray start --head`, or give its address",
        ) from error


def coordinator_name(job: str) -> str:
    """The name of a job's coordinator."""
    return f"millrace:{job}:coordinator"


def partition_name(job: str, partition: int) -> str:
    """The name of a partition's present owner."""
    return f"millrace:{job}:partition-{partition}"


def standby_name(job: str, number: int) -> str:
    """The name of a process that is there to take the place of a lost one."""
    return f"millrace:{job}:standby-{number}"


def living(name: str) -> Any | None:
    """The actor of that name, or None."""
    try:
        return ray.get_actor(name, NAMESPACE)
    except (ValueError, RayError):
        return None


def answer(reference: Any, timeout: float) -> Any:
    """What an actor answers. Raises what it raised, and Unavailable where it does not answer."""
    try:
        return ray.get(reference, timeout=timeout)
    except RayTaskError as error:
        if isinstance(error.cause, MillraceError):
            raise error.cause from None
        raise
    except RayError as error:
        raise Unavailable(f"the cluster did not answer: {error}", code="MR3011", hint="try again") from error
