"""One contract for every place that a partition's entries are kept in, and what only a disk can do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.feedback_service.changes import InMemoryTable, Write
from services.feedback_service.domain.keys import with_expiry
from services.feedback_service.tables import LocalPartition, LocalTables

FRAME, WAITING, OTHER = b"f/a", b"w/b", b"e/c"
Apply = Callable[[list[Write]], None]


@pytest.fixture(params=["dictionary", "memory", "disk"])
def table(request, tmp_path: Path) -> tuple[InMemoryTable | LocalPartition, Apply]:
    if request.param == "dictionary":
        entries = InMemoryTable()
        return entries, entries.write
    partition = LocalTables(tmp_path if request.param == "disk" else None).partition(3)
    return partition, lambda writes: partition.write(writes, 0)


def test_what_was_written_is_found_by_key_and_by_prefix(table):
    entries, write = table
    write([(OTHER, b"1"), (b"e/d", b"2"), (b"d/c", b"3"), (b"f/", with_expiry(1.0, b""))])
    assert (entries.get(OTHER), entries.get(b"e/")) == (b"1", None)
    assert list(entries.scan(b"e/")) == [(OTHER, b"1"), (b"e/d", b"2")]


def test_what_was_deleted_is_gone(table):
    entries, write = table
    write([(OTHER, b"1"), (FRAME, with_expiry(5.0, b"x"))])
    write([(OTHER, None), (FRAME, None), (b"e/never", None)])
    assert (list(entries.scan(b"")), entries.get(FRAME)) in (([], None), ([(b"o", b"0")], None))
    assert entries.expired(10.0, 9) == []


def test_entries_expire_in_the_order_of_their_time(table):
    entries, write = table
    write([(FRAME, with_expiry(50.0, b"x")), (WAITING, with_expiry(20.0, b"y")), (OTHER, b"never")])
    write([(b"f/never", with_expiry(float("inf"), b"z"))])
    assert entries.expired(19.0, 9) == []
    assert entries.expired(49.9, 9) == [WAITING]
    assert entries.expired(1e9, 9) == [WAITING, FRAME]
    assert entries.expired(1e9, 1) == [WAITING]


def test_a_partition_is_on_the_disk_with_the_offset_that_it_reaches_to(tmp_path: Path):
    tables = LocalTables(tmp_path)
    assert tables.partition(0).changelog_offset is None
    tables.partition(0).write([(OTHER, b"1")], 41)
    tables.partition(1).write([(OTHER, b"2")], 7)
    tables.close_all()
    again = LocalTables(tmp_path)
    assert [(again.partition(n).changelog_offset, again.partition(n).get(OTHER)) for n in (0, 1)] == [
        (41, b"1"),
        (7, b"2"),
    ]
    again.close_all()


def test_a_partition_that_is_damaged_is_read_anew_from_its_changelog(tmp_path: Path):
    tables = LocalTables(tmp_path)
    tables.partition(0).write([(OTHER, b"1")], 41)
    tables.close_all()
    for manifest in (tmp_path / "partition-0").glob("MANIFEST-*"):
        manifest.write_bytes(b"damaged" * 100)
    again = LocalTables(tmp_path)
    assert (again.partition(0).changelog_offset, again.partition(0).get(OTHER)) == (None, None)
    again.close_all()
