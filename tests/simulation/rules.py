"""An explicit-state check of the rules for one sink partition: every interleaving of slow and dead owners.

The state is small on purpose: a source of `rows` numbers, one sink stream, and owners (each a coordinator with its
partition) that start at any time and are never known to be dead. `RULES` can be left out one at a time: then
`explore` answers the shortest schedule that loses, doubles or misorders a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

RULES = ("ledger", "marker-first", "last-only", "no-fence", "stop-early")


@dataclass(frozen=True, slots=True)
class Outside:
    """What outlives owners: the ledger (takeovers < 0, decided offsets >= 0), and the sink with its fence and marker.

    `marker` counts decided outboxes that were published.
    """

    ledger: tuple[int, ...] = ()
    producer: int = 0
    marker: int = 0
    shown: tuple[int, ...] = ()

    @property
    def decided(self) -> tuple[int, ...]:
        return tuple(entry for entry in self.ledger if entry >= 0)


@dataclass(frozen=True, slots=True)
class Owner:
    """`folded`: how many records it has read; `read`: rows it has read; `cuts`: offsets persisted, not decided;
    `cursor`: the next outbox to publish, by place among the decided ones."""

    phase: str = "take over"
    folded: int = 0
    read: int = 0
    cuts: tuple[int, ...] = ()
    cursor: int = 0


World = tuple[Outside, tuple[Owner, ...]]
DEAD = Owner("dead")


def _moves_of(
    number: int, owner: Owner, out: Outside, rows: int, broken: str
) -> Iterator[tuple[str, Outside, Owner]]:
    decided = tuple(entry for entry in out.ledger[: owner.folded] if entry >= 0)
    reached = decided[-1] if decided else 0
    match owner.phase:
        case "take over":
            if any(entry < -number for entry in out.ledger):
                yield "is late", out, DEAD
            elif owner.folded < len(out.ledger):
                yield "reads on", out, replace(owner, folded=len(out.ledger))
            else:
                ledger = (*out.ledger, -number)
                first = "marker" if broken == "marker-first" else "fence"
                yield "takes over", replace(out, ledger=ledger), Owner(first, len(ledger), reached)
        case "fence":
            after = "run" if broken == "marker-first" else "marker"
            if broken == "no-fence":
                yield "does not fence", out, replace(owner, phase=after)
            else:
                yield "fences", replace(out, producer=number), replace(owner, phase=after)
        case "marker":
            start = max(out.marker, len(decided) - 1) if broken == "last-only" else out.marker
            after = "fence" if broken == "marker-first" else "run"
            yield "reads the marker", out, replace(owner, phase=after, cursor=start)
        case "run":
            yield from _running(number, owner, out, rows, broken, decided)


def _running(
    number: int, owner: Owner, out: Outside, rows: int, broken: str, decided: tuple[int, ...]
) -> Iterator[tuple[str, Outside, Owner]]:
    reached = decided[-1] if decided else 0
    if owner.cursor < len(decided):
        if out.producer == number or broken == "no-fence":
            first = decided[owner.cursor - 1] if owner.cursor else 0
            shown = (*out.shown, *range(first, decided[owner.cursor]))
            published = replace(out, marker=owner.cursor + 1, shown=shown)
            yield "publishes", published, replace(owner, cursor=owner.cursor + 1)
        else:
            yield "is refused", out, DEAD
    if owner.read < rows:
        yield "reads a row", out, replace(owner, read=owner.read + 1)
    if owner.read > (owner.cuts[-1] if owner.cuts else reached) and len(owner.cuts) < 2:
        yield "cuts", out, replace(owner, cuts=(*owner.cuts, owner.read))
    if owner.cuts:
        if owner.folded == len(out.ledger) or broken == "ledger":
            ledger = (*out.ledger, owner.cuts[0])
            yield (
                "decides",
                replace(out, ledger=ledger),
                replace(owner, folded=len(ledger), cuts=owner.cuts[1:]),
            )
        else:
            yield "is fenced", out, DEAD
    done = owner.read == rows == reached and not owner.cuts
    if done and (owner.cursor == len(decided) or broken == "stop-early"):
        yield "ends", out, replace(owner, phase="ended")


def _wrong(world: World, rows: int) -> bool:
    out, owners = world
    if out.shown != tuple(range(len(out.shown))):
        return True
    return any(owner.phase == "ended" for owner in owners) and len(out.shown) != rows


def explore(broken: str = "", rows: int = 2, owners: int = 3) -> tuple[int, list[str] | None]:
    """How many states there are, and the shortest schedule to one that is wrong (None: there is none).

    Unlike our ledger, the sink's fence knows no epoch: as with Kafka, who initialises last may write.
    """
    start: World = (Outside(), ())
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        if _wrong(world, rows):
            return len(came_from), _story(world, came_from)
        out, alive = world
        following: list[tuple[str, World]] = []
        if len(alive) < owners:
            following.append(("starts", (out, (*alive, Owner(folded=len(out.ledger))))))
        for place, owner in enumerate(alive):
            for label, after, moved in _moves_of(place + 1, owner, out, rows, broken):
                changed = (*alive[:place], moved, *alive[place + 1 :])
                following.append((f"{place + 1} {label}", (after, changed)))
        for label, next_world in following:
            if next_world not in came_from:
                came_from[next_world] = world, label
                queue.append(next_world)
    return len(came_from), None


def _story(world: World, came_from: dict[World, tuple[World, str] | None]) -> list[str]:
    story = []
    while (step := came_from[world]) is not None:
        world, label = step
        story.append(label)
    return story[::-1]
