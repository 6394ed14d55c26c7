"""The entries of the worker's table on this machine, in RocksDB; `changelog` restores them.

The disk holds the state of a flush that Kafka has, and its offset in the changelog. A worker that starts again
therefore reads only the records after it.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Env,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
)

from services.feedback_service.changes import Write
from services.feedback_service.domain.keys import expires_at
from shared.clock import Clock, SystemClock
from shared.logs import logger

CACHE_BYTES = 32 * 1024**2
"""Memory for blocks, and again for buffered writes, of all partitions of a worker: enough for the entries of an open
window. The operating system caches the files besides."""

LIFETIME_S = 12 * 3600.0
"""How old a partition's last note may be before it is read anew. Kafka drops deletions from the changelog a day after
compaction (`delete.retention.ms`): a worker that was away for longer would miss them and keep deleted entries."""

_NOTED_EVERY_S = 3600.0
_WRITE_BUFFER_BYTES = 8 * 1024**2
_OPEN_FILES = 64
_LOG_FILES = 2
_BLOOM_BITS = 10
_LOG_BYTES = 1024**2
_CHANGELOG_OFFSET = b"o"
_EXPIRING = b"t/"
_SECONDS = Struct(">Q")


class LocalPartition:
    """One partition's entries on this machine. Entries that expire have a second key, which begins with the time.

    Args:
        database: holds them.
        clock: the time of writes.
    """

    def __init__(self, database: Rdict, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        offset, _, noted_at = (database.get(_CHANGELOG_OFFSET) or b"").partition(b" ")
        self.changelog_offset = int(offset) if offset else None
        """The offset of the changelog up to which the partition is read; None before the first record."""
        self._noted_at = float(noted_at or 0.0)

    @property
    def is_outdated(self) -> bool:
        """Whether the changelog may have dropped deletions that were not read."""
        return self.changelog_offset is not None and self._clock.now() - self._noted_at > LIFETIME_S

    def note_current(self) -> None:
        """Note from time to time that the changelog has no new records; its owner calls this."""
        if self.changelog_offset is not None and self._clock.now() - self._noted_at >= _NOTED_EVERY_S:
            self.write([], self.changelog_offset)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        value: bytes | None = self._database.get(key)
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The entries whose keys begin with the prefix, in the order of their keys."""
        for key, value in cast("Iterator[tuple[bytes, bytes]]", self._database.items(from_key=prefix)):
            if not key.startswith(prefix):
                return
            yield key, value

    def expired(self, until: float, limit: int) -> list[bytes]:
        """The keys of entries that expire by then, in the order of their expiry."""
        if until <= 0.0 or limit < 1:
            return []
        keys: list[bytes] = []
        end = _EXPIRING + _SECONDS.pack(int(until) + 1)
        for expiring in cast("Iterator[bytes]", self._database.keys(from_key=_EXPIRING)):
            if expiring >= end or len(keys) >= limit:
                break
            keys.append(expiring[len(_EXPIRING) + _SECONDS.size :])
        return keys

    def write(self, writes: Iterable[Write], changelog_offset: int, noted_at: float | None = None) -> None:
        """Apply writes and note the offset of the last one in the changelog, both or neither.

        `noted_at` is when the changelog ended there, by default now.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in writes:
            if value is None:
                known = self.get(key)
                if known is not None and (expiry := expires_at(key, known)) is not None:
                    batch.delete(_expiring_key(expiry, key))
                batch.delete(key)
            else:
                if (expiry := expires_at(key, value)) is not None:
                    batch.put(_expiring_key(expiry, key), b"")
                batch.put(key, value)
        noted_at = self._clock.now() if noted_at is None else noted_at
        batch.put(_CHANGELOG_OFFSET, f"{changelog_offset} {noted_at}".encode())
        self._database.write(batch)
        self.changelog_offset, self._noted_at = changelog_offset, noted_at

    def close(self) -> None:
        """Close the files."""
        self._database.close()


@dataclass
class LocalTables:
    """The partitions on this machine, opened when they are first asked for.

    Args:
        folder: holds a database per partition; None keeps them in memory.
        clock: the time of writes.
    """

    folder: Path | None
    clock: Clock = field(default_factory=SystemClock)
    _open: dict[int, LocalPartition] = field(default_factory=dict)
    _cache: Cache = field(default_factory=lambda: Cache(CACHE_BYTES))
    _buffers: WriteBufferManager = field(default_factory=lambda: WriteBufferManager(CACHE_BYTES, False))

    def partition(self, number: int) -> LocalPartition:
        """A partition's entries."""
        if number not in self._open:
            opened = LocalPartition(self._database(number), self.clock)
            if opened.is_outdated and self.folder is not None:
                logger(__name__).warning("a table was unused for long and is read anew", partition=number)
                opened.close()
                shutil.rmtree(self._path(self.folder, number))
                opened = LocalPartition(self._database(number), self.clock)
            self._open[number] = opened
        return self._open[number]

    def close(self, number: int) -> None:
        """Close a partition, so that another process may open it."""
        opened = self._open.pop(number, None)
        if opened is not None and self.folder is not None:  # closing would lose those in memory
            opened.close()

    def close_all(self) -> None:
        """Close all partitions."""
        for number in list(self._open):
            self.close(number)

    def _database(self, number: int) -> Rdict:
        if self.folder is None:
            return Rdict(f"/partition-{number}", self._options(Env.mem_env()), access_type=AccessType.read_write())
        path = self._path(self.folder, number)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return Rdict(str(path), self._options(), access_type=AccessType.read_write())
        except Exception as error:
            if "Corruption" not in str(error):  # rocksdict has one exception type for all faults
                raise
            logger(__name__).warning(
                "corrupt table is read anew from its changelog", partition=number, error=str(error)
            )
            shutil.rmtree(path)
            return Rdict(str(path), self._options(), access_type=AccessType.read_write())

    @staticmethod
    def _path(folder: Path, number: int) -> Path:
        return folder / f"partition-{number}"

    def _options(self, environment: Env | None = None) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_open_files(_OPEN_FILES)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_write_buffer_manager(self._buffers)
        options.set_keep_log_file_num(_LOG_FILES)
        options.set_max_log_file_size(_LOG_BYTES)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_bloom_filter(_BLOOM_BITS, False)
        options.set_block_based_table_factory(blocks)
        if environment is not None:
            options.set_env(environment)
        return options


def _expiring_key(expiry: int, key: bytes) -> bytes:
    return _EXPIRING + _SECONDS.pack(expiry) + key
