"""The ingest log: what was synced survives, cut-off ends are dropped, damage is named, one owner at a time."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from millrace.errors import Corrupt, Invalid
from millrace.state.wal import IngestLog


def _fill(folder: Path, count: int, segment_bytes: int = 1 << 20) -> list[bytes]:
    log = IngestLog(folder, segment_bytes)
    made = random.Random(count)
    payloads = [made.randbytes(made.randrange(200)) for _ in range(count)]
    for payload in payloads:
        log.append(payload)
    log.sync()
    log.close()
    return payloads


def _all(log: IngestLog, first: int = 1) -> list[bytes]:
    found = list(log.read(first))
    assert [number for number, _ in found] == list(range(first, first + len(found)))
    return [payload for _, payload in found]


@pytest.mark.parametrize("segment_bytes", [1, 300, 1 << 20])
def test_what_was_appended_is_read_again(tmp_path: Path, segment_bytes: int) -> None:
    payloads = _fill(tmp_path, 50, segment_bytes)
    log = IngestLog(tmp_path, segment_bytes)
    assert _all(log) == payloads
    assert _all(log, 17) == payloads[16:]
    assert log.append(b"more") == 51
    assert _all(log, 50) == [payloads[49], b"more"]
    log.close()


def test_every_cut_of_the_last_segment_keeps_whole_entries(tmp_path: Path) -> None:
    payloads = _fill(tmp_path, 6)
    path = tmp_path / f"{1:016d}.wal"
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        log = IngestLog(tmp_path)
        kept = _all(log)
        assert kept == payloads[: len(kept)]
        assert log.append(b"next") == len(kept) + 1
        log.close()
        again = IngestLog(tmp_path)
        assert _all(again) == [*kept, b"next"]
        again.close()


def test_a_tail_of_zeros_is_cut_off(tmp_path: Path) -> None:
    payloads = _fill(tmp_path, 3)
    path = tmp_path / f"{1:016d}.wal"
    path.write_bytes(path.read_bytes() + bytes(4096))
    log = IngestLog(tmp_path)
    assert _all(log) == payloads
    log.close()


def test_every_flipped_byte_before_the_last_entry_is_found(tmp_path: Path) -> None:
    payloads = _fill(tmp_path, 6)
    path = tmp_path / f"{1:016d}.wal"
    data = path.read_bytes()
    last_entry = len(data) - 16 - len(payloads[-1])
    for at in range(last_entry):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        with pytest.raises(Corrupt, match="MR5031") as caught:
            IngestLog(tmp_path)
        assert path.name in str(caught.value)


def test_a_damaged_older_segment_and_a_missing_one_are_named(tmp_path: Path) -> None:
    _fill(tmp_path, 30, 300)
    segments = sorted(tmp_path.glob("*.wal"))
    whole = segments[0].read_bytes()
    segments[0].write_bytes(whole[:-3])
    with pytest.raises(Corrupt, match="MR5031"):
        IngestLog(tmp_path)
    segments[0].write_bytes(whole)
    kept = segments[1].read_bytes()
    segments[1].unlink()
    with pytest.raises(Corrupt, match="MR5032"):
        IngestLog(tmp_path)
    segments[1].write_bytes(kept)
    IngestLog(tmp_path).close()


def test_trimming_removes_only_whole_segments_below(tmp_path: Path) -> None:
    payloads = _fill(tmp_path, 60, 300)
    log = IngestLog(tmp_path, 300)
    before = len(list(tmp_path.glob("*.wal")))
    assert log.trim(31) > 0
    assert len(list(tmp_path.glob("*.wal"))) < before
    assert _all(log, 31) == payloads[30:]
    with pytest.raises(Corrupt, match="MR5033"):
        list(log.read(1))
    log.close()
    again = IngestLog(tmp_path, 300)
    assert again.next_number == 61
    assert _all(again, 31) == payloads[30:]
    again.close()


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    log = IngestLog(tmp_path)
    with pytest.raises(Invalid, match=r"process \d+ \[MR1563\]"):
        IngestLog(tmp_path)
    log.close()
    IngestLog(tmp_path).close()


def test_threads_share_a_sync_and_lose_nothing(tmp_path: Path) -> None:
    log = IngestLog(tmp_path)

    def write(name: int) -> None:
        for at in range(25):
            log.sync(log.append(f"{name}-{at}".encode()))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(_all(log)) == sorted(f"{n}-{at}".encode() for n in range(4) for at in range(25))
    log.close()


def test_what_was_acknowledged_survives_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from millrace.state.wal import IngestLog\n"
        "log = IngestLog(Path(sys.argv[1]))\n"
        "for at in range(10_000):\n"
        "    log.sync(log.append(b'row %d' % at)); print(at, flush=True)\n"
        "    if at == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    acknowledged = [int(line) for line in done.stdout.split()]
    log = IngestLog(tmp_path)
    kept = _all(log)
    assert acknowledged and kept[: len(acknowledged)] == [b"row %d" % at for at in acknowledged]
    log.close()
