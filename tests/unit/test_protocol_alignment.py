"""Barriers of several channels line up; what is held back comes later, in order, and never goes missing."""

import random

import pytest

from millrace.cluster.protocol.alignment import BarrierAligner
from millrace.state.checkpoints.number import CheckpointNumber


def n(count: int) -> CheckpointNumber:
    return CheckpointNumber(1, count)


class Seen:
    def __init__(self, channels: str) -> None:
        self.log: list[object] = []
        self.aligner: BarrierAligner[str, int] = BarrierAligner(
            channels, lambda channel, item: self.log.append((channel, item)), self.log.append
        )


def test_items_behind_a_barrier_wait_for_the_others() -> None:
    seen = Seen("ab")
    seen.aligner.barrier("a", n(1))
    seen.aligner.take("a", 1)
    seen.aligner.take("b", 2)
    assert seen.log == [("b", 2)] and seen.aligner.waiting_for == ("b",)
    seen.aligner.barrier("b", n(1))
    assert seen.log == [("b", 2), n(1), ("a", 1)] and seen.aligner.held == 0


def test_future_barrier_is_stashed_and_serves_its_own_checkpoint() -> None:
    seen = Seen("ab")
    seen.aligner.barrier("a", n(1))
    seen.aligner.barrier("a", n(2))
    seen.aligner.take("a", 5)
    seen.aligner.barrier("b", n(1))
    assert seen.log == [n(1)]
    seen.aligner.barrier("b", n(2))
    assert seen.log == [n(1), n(2), ("a", 5)]


def test_barrier_that_was_given_up_on_one_channel_blocks_nobody() -> None:
    seen = Seen("ab")
    seen.aligner.barrier("a", n(1))
    seen.aligner.take("a", 1)
    seen.aligner.barrier("b", n(2))
    assert seen.log == [("a", 1)]
    seen.aligner.barrier("a", n(2))
    assert seen.log == [("a", 1), n(2)]


def test_ended_channel_owes_nothing() -> None:
    seen = Seen("ab")
    seen.aligner.barrier("a", n(1))
    seen.aligner.end("b")
    assert seen.log == [n(1)]
    seen.aligner.barrier("a", n(2))
    assert seen.log == [n(1), n(2)]


@pytest.mark.parametrize("seed", range(30))
def test_every_cut_divides_each_channel_at_its_barrier(seed: int) -> None:
    rng = random.Random(seed)
    seen = Seen("abc")
    streams: dict[str, list[int | CheckpointNumber]] = {}
    for channel in "abc":
        stream: list[int | CheckpointNumber] = []
        for count in range(1, 6):
            stream += range(100 * count, 100 * count + rng.randrange(4))
            stream.append(n(count))
        streams[channel] = stream
    left = {channel: list(stream) for channel, stream in streams.items()}
    while any(left.values()):
        channel = rng.choice([c for c in left if left[c]])
        item = left[channel].pop(0)
        if isinstance(item, CheckpointNumber):
            seen.aligner.barrier(channel, item)
        else:
            seen.aligner.take(channel, item)
    for channel, stream in streams.items():
        assert [x if isinstance(x, CheckpointNumber) else x[1] for x in _of(seen.log, channel)] == stream


def _of(log: list[object], channel: str) -> list[object]:
    return [x for x in log if isinstance(x, CheckpointNumber) or x[0] == channel]  # type: ignore[index]
