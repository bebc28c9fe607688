"""Reads what is committed and says what is lost, doubled, wrong or out of order."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.workload import Topics, event, runs, totals_of, windows_of
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import messages

SHOWN = 8


@dataclass(slots=True)
class Verdict:
    """What came out against what had to. `faults` is empty for a clean run."""

    events: int
    copies: int = 0
    lost: int = 0
    doubled: int = 0
    unordered: int = 0
    windows: int = 0
    totals: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every event had its effect once."""
        return not self.faults


def judge(broker: Broker, topics: Topics, count: int) -> Verdict:
    """Compare all three outputs with what `count` events must give."""
    verdict = Verdict(count)
    check_copies(broker, topics.copies, verdict)
    check_windows(broker, topics.windows, verdict)
    check_totals(broker, topics.totals, verdict)
    return verdict


def check_copies(broker: Broker, topic: str, verdict: Verdict) -> None:
    """Every event once, those of one key in the order in which they were produced."""
    seen: Counter[int] = Counter()
    last: dict[str, int] = {}
    for message in messages(broker, topic, patience=120):
        row = json.loads(message.value() or b"")
        number, key = row["id"], row["k"]
        seen[number] += 1
        if event(number)[0] != key:
            verdict.faults.append(f"event {number} came out as {row}")
        if number <= last.get(key, -1) and seen[number] == 1:
            verdict.unordered += 1
        last[key] = max(last.get(key, -1), number)
    verdict.copies = sum(seen.values())
    missing = [i for i in range(verdict.events) if i not in seen]
    twice = sorted(i for i, times in seen.items() if times > 1)
    verdict.lost, verdict.doubled = len(missing), len(twice)
    for numbers, what in ((missing, "lost"), (twice, "doubled")):
        if numbers:
            shown = ", ".join(list(runs(numbers))[:SHOWN])
            verdict.faults.append(f"{len(numbers)} events {what} of the stateless job: {shown}")
    if verdict.unordered:
        verdict.faults.append(f"{verdict.unordered} events came before an earlier one of their key")


def check_windows(broker: Broker, topic: str, verdict: Verdict) -> None:
    """Every window of every group once, with its exact count and sum."""
    wanted = windows_of(verdict.events)
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for message in messages(broker, topic, patience=120):
        row = json.loads(message.value() or b"")
        at = datetime.datetime.fromisoformat(row["at"]).replace(tzinfo=datetime.UTC)
        found.setdefault((row["g"], round(at.timestamp() * 1000)), []).append((row["n"], row["total"]))
    verdict.windows = len(found)
    missing = [key for key in wanted if key not in found]
    wrong = [key for key, rows in found.items() if rows != [wanted.get(key)]]
    if missing:
        verdict.faults.append(f"{len(missing)} windows are missing: {missing[:SHOWN]}")
    for key in wrong[:SHOWN]:
        verdict.faults.append(f"window {key} is {found[key]}, not {wanted.get(key)}")
    if len(wrong) > SHOWN:
        verdict.faults.append(f"{len(wrong)} windows are wrong")


def check_totals(broker: Broker, topic: str, verdict: Verdict) -> None:
    """The last total of every group is exact, and no total comes after a later one."""
    wanted = totals_of(verdict.events)
    last: dict[int, tuple[int, int]] = {}
    back = 0
    for message in messages(broker, topic, patience=120):
        row = json.loads(message.value() or b"")
        now = row["n"], row["total"]
        back += now[0] <= last.get(row["g"], (0, 0))[0]
        last[row["g"]] = now
    verdict.totals = len(last)
    wrong = [group for group in wanted if last.get(group) != wanted[group]]
    if wrong:
        group = wrong[0]
        verdict.faults.append(
            f"{len(wrong)} totals are wrong: group {group} is {last.get(group)}, not {wanted[group]}"
        )
    if back:
        verdict.faults.append(f"{back} totals came after a later one of their group")
