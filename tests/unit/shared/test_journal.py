"""The journal keeps what was flushed, cuts off what was torn, and refuses when it is full."""

import asyncio
import os
import resource
import signal
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EIO
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.clock import FixedClock
from shared.errors import JournalFull, RecordTooLarge
from shared.journal import Acknowledged, Journal, JournalDamagedError, JournalInUseError, JournalRecord, Position
from shared.topics import LARGEST_RECORD_BYTES

START = Position(0, 0)
MIB = 1024**2
PROBE_S = 1.0
DEADLINE_S = 60


def values(journal: Journal) -> list[bytes]:
    return [record.value for record, _ in journal.read(START, 100 * MIB)]


async def test_what_was_flushed_is_read_back_after_opening_again(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.append("t", 3, b"k", [("ce_id", b"1")], b"one")
    await journal.flush()
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    [(record, _)] = list(again.read(START, MIB))
    assert (record.topic, record.partition, record.key, record.value) == ("t", 3, b"k", b"one")
    assert record.headers == [("ce_id", b"1")]
    again.close()


@settings(deadline=None)  # a disk may be slow
@given(cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_record_is_cut_off_and_writing_goes_on(tmp_path_factory: pytest.TempPathFactory, cut: int):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal.open(folder, limit_bytes=MIB)
    journal.append("t", 0, None, [], b"whole")
    asyncio.run(journal.flush())
    whole = (folder / "000000000000.log").stat().st_size
    journal.append("t", 0, None, [], b"x" * 60)
    journal.close()
    path = folder / "000000000000.log"
    path.write_bytes(path.read_bytes()[: max(whole, path.stat().st_size - cut)])
    again = Journal.open(folder, limit_bytes=MIB)
    again.append("t", 0, None, [], b"after")
    asyncio.run(again.flush())
    assert values(again) == [b"whole", b"after"]
    again.close()


async def test_a_full_journal_refuses_and_writes_nothing(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=300)
    journal.append("t", 0, None, [], b"x" * 200)
    with pytest.raises(JournalFull):
        journal.append("t", 0, None, [], b"y" * 200)
    await journal.flush()
    assert values(journal) == [b"x" * 200]
    journal.close()


async def test_a_nearly_full_journal_is_unready_before_it_refuses(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=1_000_000)
    journal.append("t", 0, None, [], bytes(940_000))
    assert journal.unready_reasons == []
    journal.append("t", 0, None, [], bytes(20_000))
    assert journal.unready_reasons == ["the journal is full because Kafka has not taken events for a while"]
    journal.check_room()
    journal.append("t", 0, None, [], b"fits")
    journal.close()


async def test_segments_roll_and_go_once_they_are_acknowledged(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=100)
    for number in range(10):
        journal.append("t", 0, None, [], b"%d" % number * 60)
        await journal.flush()
    assert len(list(tmp_path.glob("*.log"))) == 6  # the last one is empty
    read = list(journal.read(START, MIB))
    end = Acknowledged(read[-1][1].segment, read[-1][1].byte, {"t:0": 9})
    journal.acknowledge(end)
    assert journal.unsent_bytes == 0
    assert [path.stem for path in sorted(tmp_path.glob("*.log"))] == ["000000000004", "000000000005"]
    assert journal.acknowledged() == end
    journal.close()


async def test_reading_resumes_where_it_stopped(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=100)
    for number in range(10):
        journal.append("t", 0, None, [], b"%d" % number)
        await journal.flush()
    seen: list[bytes] = []
    position = START
    while chunk := list(journal.read(position, 3)):
        seen += [record.value for record, _ in chunk]
        position = chunk[-1][1]
    assert seen == [b"%d" % number for number in range(10)]
    journal.close()


def test_a_second_process_is_refused(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    with pytest.raises(JournalInUseError, match="another process"):
        Journal.open(tmp_path, limit_bytes=MIB)
    journal.close()


async def test_concurrent_flushes_all_return_durable(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)

    async def write(number: int) -> None:
        journal.append("t", 0, None, [], b"%d" % number)
        await journal.flush()
        assert b"%d" % number in values(journal)

    await asyncio.gather(*(write(number) for number in range(50)))
    journal.close()


@contextmanager
def disk_with_room(journal: Journal, more_bytes: int) -> Iterator[None]:
    """A disk that takes no file longer than the newest segment and some bytes: a write stops in its middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = max(path.stat().st_size for path in journal.folder.glob("*.log"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_a_disk_that_fills_up_within_a_record_tears_nothing(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    kept: list[bytes] = []
    for number in range(10):
        value = b"%d" % number * 500
        if number % 3 == 1:
            with disk_with_room(journal, 200), pytest.raises(JournalFull, match="disk") as refused:
                journal.append("t", 0, None, [], value)
            assert refused.value.retry_after_s == 5
        else:
            journal.append("t", 0, None, [], value)
            await journal.flush()
            kept.append(value)
    held = journal.unsent_bytes
    assert values(journal) == kept
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    assert values(again) == kept
    assert again.unsent_bytes == held
    again.close()


async def test_records_that_belong_together_are_appended_all_or_none(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=20 * MIB)
    small = JournalRecord("t", 0, None, [], b"small")
    large = JournalRecord("t", 0, None, [], bytes(LARGEST_RECORD_BYTES + 1))
    with pytest.raises(RecordTooLarge):
        journal.append_all([small, large])
    with disk_with_room(journal, 150), pytest.raises(JournalFull):
        journal.append_all([small, JournalRecord("t", 0, None, [], bytes(500))])
    with pytest.raises(JournalFull):
        journal.append_all([JournalRecord("t", 0, None, [], bytes(7 * MIB))] * 3)
    await journal.flush()
    assert (values(journal), journal.unsent_bytes) == ([], 0)
    journal.append_all([small, small])
    await journal.flush()
    assert values(journal) == [b"small"] * 2
    journal.close()


async def test_a_disk_that_takes_nothing_is_named_until_it_has_room_for_what_it_refused(tmp_path: Path):
    journal, clock = Journal.open(tmp_path, limit_bytes=20 * MIB), FixedClock()
    journal.clock = clock.now
    assert journal.fault == ""
    with disk_with_room(journal, 300_000):
        with pytest.raises(JournalFull):
            journal.append("t", 0, None, [], bytes(MIB))
        assert journal.fault == "the journal can't write to its disk: No space left on device"
        assert journal.unready_reasons == [journal.fault]
        # Nobody appends any more: whoever asks finds out, and room for less than was refused is none.
        clock.advance(PROBE_S + 0.1)
        assert journal.fault
    assert journal.fault  # it was tried just now
    clock.advance(PROBE_S + 0.1)
    assert not journal.fault
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000000.log", "lock"]
    journal.append("t", 0, None, [], bytes(MIB))
    await journal.flush()
    assert values(journal) == [bytes(MIB)]
    journal.close()


async def test_a_disk_that_fails_is_tried_no_more_than_once_a_second(tmp_path: Path):
    journal, clock = Journal.open(tmp_path, limit_bytes=MIB), FixedClock()
    journal.clock = clock.now
    tried: list[float] = []

    def fail(_: int) -> None:
        tried.append(clock.now())
        raise OSError(EIO, os.strerror(EIO))

    journal.sync_file = fail
    journal.append("t", 0, None, [], b"lost")
    with pytest.raises(JournalFull):
        await journal.flush()
    for _ in range(50):
        assert journal.fault == "the journal can't write to its disk: Input/output error"
        clock.advance(0.05)
    assert len(tried) == 3
    assert all(later - sooner >= PROBE_S for sooner, later in pairwise(tried))
    journal.sync_file = os.fdatasync
    journal.close()


async def test_a_flush_that_works_again_clears_the_fault(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.clock = FixedClock().now
    journal.sync_file = failing
    journal.append("t", 0, None, [], b"lost")
    with pytest.raises(JournalFull):
        await journal.flush()
    journal.sync_file = os.fdatasync
    assert journal.fault  # it was tried just now
    journal.append("t", 0, None, [], b"kept")
    await journal.flush()
    assert journal.fault == ""
    journal.close()


async def test_a_full_disk_gets_back_what_kafka_has(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.append("t", 0, None, [], b"sent" * 1000)
    await journal.flush()
    [(_, end)] = list(journal.read(START, MIB))
    at = Acknowledged(end.segment, end.byte, {"t:0": 0})
    with disk_with_room(journal, 100), pytest.raises(JournalFull):
        journal.append("t", 0, None, [], b"one" * 1000)
    assert values(journal) == [b"sent" * 1000]  # not acknowledged yet
    journal.acknowledge(at)
    with disk_with_room(journal, 100), pytest.raises(JournalFull):
        journal.append("t", 0, None, [], b"two" * 2000)
    assert [path.stat().st_size for path in tmp_path.glob("*.log")] == [0]
    journal.append("t", 0, None, [], b"next")
    await journal.flush()
    journal.store_acknowledged()
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    at = again.acknowledged()
    unsent = [(record.value, end) for record, end in again.read(Position(at.segment, at.position), MIB)]
    assert [value for value, _ in unsent] == [b"next"]
    end = unsent[-1][1]
    assert again.unsent_bytes > 0
    again.acknowledge(Acknowledged(end.segment, end.byte))
    assert again.unsent_bytes == 0
    again.close()


def failing(_: int) -> None:
    raise OSError(EIO, os.strerror(EIO))


async def test_what_a_failed_flush_did_not_keep_is_not_in_the_journal(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.append("t", 0, None, [], b"kept")
    await journal.flush()

    async def write(value: bytes) -> None:
        journal.append("t", 0, None, [], value)
        await journal.flush()

    journal.sync_file = failing
    failures = await asyncio.gather(*(write(b"lost") for _ in range(5)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [JournalFull] * 5
    journal.sync_file = os.fdatasync
    await write(b"after")
    assert values(journal) == [b"kept", b"after"]
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    assert values(again) == [b"kept", b"after"]
    again.close()


class SlowDisk:
    """A flush that waits until it is released, and then does what it is given."""

    def __init__(self, finish: Callable[[int], None]) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        self.finish = finish

    def __call__(self, file: int) -> None:
        self.begun.set()
        self.released.wait(DEADLINE_S)
        self.finish(file)

    async def reached(self) -> None:
        while not self.begun.is_set():
            await asyncio.sleep(0)


async def test_what_waits_for_its_flush_is_told_when_the_disk_fails_before(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=100)

    def fail_from_now_on(_: int) -> None:
        journal.sync_file = failing

    journal.sync_file = disk = SlowDisk(fail_from_now_on)
    journal.append("t", 0, None, [], b"x" * 100)
    first = asyncio.create_task(journal.flush())
    await disk.reached()
    journal.append("t", 0, None, [], b"y")  # held until the next segment is there; its own flush fails
    second = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    disk.released.set()
    assert await first is None
    with pytest.raises(JournalFull):
        await second
    assert values(journal) == [b"x" * 100]
    journal.sync_file = os.fdatasync
    journal.close()


async def test_what_comes_while_a_segment_ends_waits_for_the_next_one(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=100)
    journal.sync_file = disk = SlowDisk(os.fdatasync)
    journal.append("t", 0, None, [], b"x" * 100)
    flushes = [asyncio.create_task(journal.flush())]
    await disk.reached()
    journal.append("t", 0, None, [], b"y")
    flushes.append(asyncio.create_task(journal.flush()))
    await asyncio.sleep(0)
    assert values(journal) == []
    disk.released.set()
    await asyncio.gather(*flushes)
    first, second = sorted(tmp_path.glob("*.log"))
    assert (b"y" in first.read_bytes(), b"y" in second.read_bytes()) == (False, True)
    assert values(journal) == [b"x" * 100, b"y"]
    assert journal.unsent_bytes == first.stat().st_size + second.stat().st_size
    journal.close()


async def test_what_comes_while_a_segment_ends_is_lost_with_it_and_its_callers_know(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=100)
    journal.sync_file = disk = SlowDisk(failing)
    journal.append("t", 0, None, [], b"x" * 100)
    flushes = [asyncio.create_task(journal.flush())]
    await disk.reached()
    journal.append("t", 0, None, [], b"y")
    flushes.append(asyncio.create_task(journal.flush()))
    await asyncio.sleep(0)
    disk.released.set()
    failures = await asyncio.gather(*flushes, return_exceptions=True)
    assert [type(failure) for failure in failures] == [JournalFull] * 2
    assert (values(journal), journal.unsent_bytes) == ([], 0)
    journal.sync_file = os.fdatasync
    journal.append("t", 0, None, [], b"after")
    await journal.flush()
    assert values(journal) == [b"after"]
    journal.close()


async def test_under_a_steady_load_segments_roll_and_nothing_is_lost(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=500)

    async def write(caller: int) -> None:
        for number in range(40):
            journal.append("t", caller, None, [], b"%d" % number)
            await journal.flush()

    await asyncio.gather(write(0), write(1))
    assert len(list(tmp_path.glob("*.log"))) >= 3
    assert len(values(journal)) == 80
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    assert len(values(again)) == 80
    again.close()


async def written(folder: Path, *, segment_bytes: int = MIB) -> None:
    journal = Journal.open(folder, limit_bytes=MIB, segment_bytes=segment_bytes)
    for number in range(6):
        journal.append("t", 0, None, [("ce_id", b"%d" % number)], b"%d" % number * 50)
        await journal.flush()
    journal.close()


@pytest.mark.parametrize("spoiled", [0, 4, 30])
@pytest.mark.parametrize("segment_bytes", [MIB, 150])
async def test_damage_before_the_end_stops_the_start_and_says_where(tmp_path: Path, spoiled: int, segment_bytes: int):
    await written(tmp_path, segment_bytes=segment_bytes)
    path = tmp_path / "000000000000.log"
    content = bytearray(path.read_bytes())
    content[spoiled] ^= 0xFF  # in the first record's length, its checksum or its body
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(JournalDamagedError, match=r"000000000000\.log is damaged at byte 0"):
            Journal.open(tmp_path, limit_bytes=MIB)
    assert path.read_bytes() == content


async def test_a_segment_that_is_cut_short_stops_the_start_unless_it_is_the_last(tmp_path: Path):
    await written(tmp_path, segment_bytes=150)
    path = tmp_path / "000000000000.log"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JournalDamagedError, match=r"000000000000\.log"):
        Journal.open(tmp_path, limit_bytes=MIB)


async def test_a_torn_record_before_a_segment_that_was_not_begun_is_cut_off(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.append("t", 0, None, [], b"kept")
    await journal.flush()
    journal.close()
    with (tmp_path / "000000000000.log").open("ab") as file:
        file.write(b"\0\0\0\x20torn")
    (tmp_path / "000000000001.log").touch()
    again = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=1)
    for value in (b"next", b"last"):
        again.append("t", 0, None, [], value)
        await again.flush()
    assert values(again) == [b"kept", b"next", b"last"]
    again.close()


async def test_zeros_that_a_power_cut_left_at_the_end_are_cut_off(tmp_path: Path):
    await written(tmp_path)
    with (tmp_path / "000000000000.log").open("ab") as file:
        file.write(bytes(5000))
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    assert len(values(journal)) == 6
    journal.close()


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b'{"segment":', b'{"segment":"x"}', b"\xff"])
async def test_a_damaged_note_of_what_was_acknowledged_means_the_oldest_segment(tmp_path: Path, content: bytes):
    await written(tmp_path, segment_bytes=150)
    (tmp_path / "000000000000.log").unlink()
    (tmp_path / "acknowledged").write_bytes(content)
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    assert journal.acknowledged() == Acknowledged(1, 0, {}, lost=True)
    assert journal.unsent_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    journal.close()


async def test_a_note_that_is_ahead_of_the_segments_hides_nothing_that_comes(tmp_path: Path):
    (tmp_path / "acknowledged").write_bytes(msgspec.json.encode(Acknowledged(5, 100)))
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.append("t", 0, None, [], b"new")
    await journal.flush()
    assert [record.value for record, _ in journal.read(Position(5, 100), MIB)] == [b"new"]
    journal.close()


async def test_a_note_is_on_disk_before_it_takes_the_place_of_the_last_one(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.acknowledge(Acknowledged(0, 0, {"t:0": 3}))
    journal.store_acknowledged()
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    assert again.acknowledged().offsets == {"t:0": 3}
    again.close()


async def test_a_refused_record_is_kept_and_named(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    assert journal.remarks == []
    journal.refuse(JournalRecord("t", 3, None, [("ce_id", b"\xffid")], b"value"))
    journal.close()
    again = Journal.open(tmp_path, limit_bytes=MIB)
    for remarks in (journal.remarks, again.remarks):
        assert "refused 1 records, the last of them t:3 " in remarks[0]
    again.close()
    assert b"value" in (tmp_path / "refused").read_bytes()


async def test_a_loss_closes_the_records_that_were_to_get_further_parts(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.open_keys.add(b"k")
    journal.append_all([JournalRecord("t", 0, b"k", [], b"kept", is_part=True)])
    await journal.flush()
    assert journal.open_keys == {b"k"}
    journal.append_all([JournalRecord("t", 0, b"k", [], b"lost", is_part=True)])
    journal.sync_file = failing
    with pytest.raises(JournalFull):
        await journal.flush()
    journal.sync_file = os.fdatasync
    assert journal.open_keys == set()
    journal.close()


async def test_records_of_the_release_without_parts_are_read(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    journal.close()
    old = framed_bytes(msgspec.msgpack.encode(["t", 0, b"k", [("ce_id", b"1")], b"value"]))
    (tmp_path / "000000000000.log").write_bytes(old)
    journal = Journal.open(tmp_path, limit_bytes=MIB)
    ((record, _),) = journal.read(Position(0, 0), MIB)
    assert record == JournalRecord("t", 0, b"k", [("ce_id", b"1")], b"value")
    journal.close()


def framed_bytes(body: bytes) -> bytes:
    return struct.pack(">II", len(body), zlib.crc32(body)) + body
