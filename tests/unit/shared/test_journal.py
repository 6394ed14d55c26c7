"""The journal keeps what was flushed, cuts off what was torn, and refuses when it is full."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.journal import Acknowledged, Journal, JournalFull, JournalInUseError, Position

START = Position(0, 0)
MIB = 1024**2


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


async def test_segments_roll_and_go_once_they_are_acknowledged(tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=MIB, segment_bytes=100)
    for number in range(10):
        journal.append("t", 0, None, [], b"%d" % number * 60)
    await journal.flush()
    assert len(list(tmp_path.glob("*.log"))) == 5
    read = list(journal.read(START, MIB))
    end = Acknowledged(read[-1][1].segment, read[-1][1].byte, {"t:0": 9})
    journal.acknowledge(end, journal.bytes_between(Acknowledged(), end))
    assert journal.unsent_bytes == 0
    assert len(list(tmp_path.glob("*.log"))) == 1
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
