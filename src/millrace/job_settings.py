"""Settings that only jobs on a cluster have: where partitions run, how long they may be silent, how they talk. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millrace.cluster.exchange.security import ExchangeTls
from millrace.cluster.job import PLACEMENTS
from millrace.errors import Invalid

TLS = {"certificate": True, "key": True, "authority": True, "name": False}
"""Parts of `exchange.tls.…`, and whether they are needed."""


def is_job_setting(name: str) -> bool:
    """Whether SET of that name is for jobs on a cluster only."""
    return name.lower() in _READERS or name.lower().startswith("exchange.tls.")


def take_job_settings(values: Mapping[str, str]) -> dict[str, Any]:
    """What `values` (names as in SET) says of a JobSpec.

    Raises Invalid MR1541 for a value that does not do, MR1543 where a part is missing.
    """
    found: dict[str, Any] = {}
    for name in [n for n in values if n.lower() in _READERS]:
        field, read = _READERS[name.lower()]
        found[field] = read(name, values[name].strip())
    given = {
        n.lower().removeprefix("exchange.tls."): n for n in values if n.lower().startswith("exchange.tls.")
    }
    if given:
        unknown = sorted(set(given) - TLS.keys())
        missing = [part for part, needed in TLS.items() if needed and part not in given]
        if unknown or missing:
            what = (
                f"exchange.tls.{unknown[0]} is not a setting"
                if unknown
                else f"exchange.tls.{missing[0]} is missing"
            )
            raise Invalid(what, code="MR1543", hint=f"parts of it are {', '.join(TLS)}")
        found["exchange_tls"] = ExchangeTls(**{part: values[name] for part, name in given.items()})
    liveness, lease = found.get("liveness_s"), found.get("lease_s")
    if liveness is not None and lease is None:
        found["lease_s"] = 3 * liveness
    elif liveness is not None and lease is not None and lease < liveness:
        raise Invalid(
            f"a lease of {lease:g} s is shorter than the {liveness:g} s that a partition may be silent",
            code="MR1541",
            hint="make the lease some times as long",
        )
    return found


def _placement(name: str, text: str) -> str:
    if text.lower() not in PLACEMENTS:
        raise Invalid(f"{name} can not be {text!r}", code="MR1541", hint=f"one of {', '.join(PLACEMENTS)}")
    return text.lower()


def _seconds(name: str, text: str) -> float:
    number, _, unit = text.partition(" ")
    if not unit and text.endswith("ms"):
        number, unit = text[:-2], "ms"
    elif not unit and text.endswith("s"):
        number, unit = text[:-1], "s"
    try:
        seconds = float(number) * {"": 1.0, "s": 1.0, "ms": 0.001}[unit.strip()]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise Invalid(
            f"{name} can not be {text!r}", code="MR1541", hint="give seconds, such as '2 s' or '500 ms'"
        )
    return seconds


def _resources(name: str, text: str) -> tuple[tuple[str, float], ...]:
    found = []
    for part in text.split(","):
        resource, mark, amount = part.partition(":")
        try:
            number = float(amount) if mark else 1.0
        except ValueError:
            number = 0.0
        if not resource.strip() or not number > 0:
            raise Invalid(
                f"{name} can not be {text!r}",
                code="MR1541",
                hint="name resources of nodes: 'ssd, gpu_node:0.5'",
            )
        found.append((resource.strip(), number))
    return tuple(found)


_READERS = {
    "placement": ("placement", _placement),
    "placement.resources": ("resources", _resources),
    "liveness": ("liveness_s", _seconds),
    "lease": ("lease_s", _seconds),
}
