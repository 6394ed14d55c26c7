"""One contract for every place that a partition's entries are kept in, and what only a disk can do."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.feedback_service.changelog import ChangelogStore
from services.feedback_service.changes import InMemoryTable, Write
from services.feedback_service.domain.keys import with_expiry
from services.feedback_service.tables import LIFETIME_S, LocalPartition, LocalTables
from shared.clock import FixedClock

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
    assert ([key for key, _ in entries.scan(b"") if key != b"o"], entries.get(FRAME)) == ([], None)
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


def test_a_partition_that_nobody_held_for_long_is_read_anew_from_its_changelog(tmp_path: Path):
    clock = FixedClock(1_800_000_000.0)
    for away_s, held, left in ((LIFETIME_S, False, b"1"), (LIFETIME_S + 1, True, b"1"), (LIFETIME_S + 1, False, None)):
        tables = LocalTables(tmp_path, clock)
        tables.partition(0).write([(OTHER, b"1")], 41)
        clock.advance(LIFETIME_S * held)
        tables.partition(0).note_current()
        tables.close_all()
        clock.advance(away_s - LIFETIME_S * held)
        again = LocalTables(tmp_path, clock)
        assert (again.partition(0).get(OTHER), again.partition(0).changelog_offset) == (left, left and 41)
        again.close_all()


def changelog_record(offset: int, value: bytes | None, timestamp: float = 1_800_000_000.0) -> Any:
    return SimpleNamespace(
        message=SimpleNamespace(partition=0, offset=offset, key=OTHER, value=value, timestamp=timestamp)
    )


def test_what_recovery_held_back_does_not_overwrite_what_came_since(tmp_path: Path):
    store = ChangelogStore.__new__(ChangelogStore)
    store.tables = LocalTables(tmp_path)
    store.apply_changelog_batch([changelog_record(4, b"old"), changelog_record(5, b"1")], None, None)
    store.tables.partition(0).write([(OTHER, b"2")], 9)
    store.apply_changelog_batch([changelog_record(offset, b"held back") for offset in (6, 9)], None, None)
    assert (store.tables.partition(0).get(OTHER), store.tables.partition(0).changelog_offset) == (b"2", 9)
    store.apply_changelog_batch([changelog_record(10, None)], None, None)
    assert (store.tables.partition(0).get(OTHER), store.tables.partition(0).changelog_offset) == (None, 10)
    store.tables.close_all()


def test_a_recovery_that_was_broken_off_is_as_old_as_what_it_has_read(tmp_path: Path):
    clock = FixedClock(1_800_000_000.0)
    store = ChangelogStore.__new__(ChangelogStore)
    for read_at, left in ((clock.at - 60.0, b"1"), (clock.at - LIFETIME_S - 1.0, None)):
        store.tables = LocalTables(tmp_path, clock)
        store.apply_changelog_batch([changelog_record(5, b"1", read_at)], None, None)
        store.tables.close_all()
        again = LocalTables(tmp_path, clock)
        assert again.partition(0).get(OTHER) == left
        again.close_all()
        shutil.rmtree(tmp_path / "partition-0")


def test_a_partition_that_is_damaged_is_read_anew_from_its_changelog(tmp_path: Path):
    tables = LocalTables(tmp_path)
    tables.partition(0).write([(OTHER, b"1")], 41)
    tables.close_all()
    for manifest in (tmp_path / "partition-0").glob("MANIFEST-*"):
        manifest.write_bytes(b"damaged" * 100)
    again = LocalTables(tmp_path)
    assert (again.partition(0).changelog_offset, again.partition(0).get(OTHER)) == (None, None)
    again.close_all()
