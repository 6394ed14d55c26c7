"""A local append-only journal: what was acknowledged is on disk, and stays there until Kafka has it.

The journal is a folder of segments `<first sequence number>.log`. A record is a 4-byte length, a 4-byte CRC-32 and
the msgpack of a JournalRecord; a torn record at the end of the last segment, left by a crash, was never
acknowledged and is cut off on opening. The file `acknowledged` holds how far the publisher got.
"""

import asyncio
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from shared.problems import Unavailable

_HEAD = struct.Struct(">II")
SEGMENT_BYTES = 64 * 1024**2
FULL_REASON = "the journal is full because Kafka has not taken events for a while"
_NEARLY_FULL = 0.95
_FULL = 0.99


class JournalFull(Unavailable):
    """The journal holds as many unsent bytes as it may."""

    slug = "journal-full"


class JournalInUseError(RuntimeError):
    """Another process writes to this journal."""


class JournalRecord(msgspec.Struct, frozen=True, array_like=True):
    """One Kafka record to be."""

    topic: str
    partition: int
    key: bytes | None
    headers: list[tuple[str, bytes]]
    value: bytes


class Acknowledged(msgspec.Struct, frozen=True):
    """How far the publisher got: the next record to send, and per topic-partition the last offset Kafka gave."""

    segment: int = 0
    position: int = 0
    offsets: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the journal: the number of a segment and a byte in it."""

    segment: int
    byte: int


@dataclass
class Journal:
    """Appends records; a flush makes everything appended before it durable with one fdatasync."""

    folder: Path
    limit_bytes: int
    segment_bytes: int
    _lock: BinaryIO
    _file: BinaryIO
    _end: Position
    unsent_bytes: int
    appended: asyncio.Event = field(default_factory=asyncio.Event)
    _flushing: asyncio.Task[None] | None = None
    _dirty: bool = False

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Open or make the journal in `folder` and cut off a record that a crash left torn.

        Raises:
            JournalInUseError: another process holds the journal.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise JournalInUseError(
                f"{folder} is written by another process; stop it or set another CONTENDER_DATA"
            ) from error
        segments = _segments(folder) or [0]
        path = _path(folder, segments[-1])
        whole = _whole_bytes(path)
        file = path.open("ab")
        file.truncate(whole)
        at = _read_acknowledged(folder)
        unsent = sum(_path(folder, number).stat().st_size for number in segments if number >= at.segment) - at.position
        return cls(folder, limit_bytes, segment_bytes, lock, file, Position(segments[-1], whole), max(0, unsent))

    def append(
        self, topic: str, partition: int, key: bytes | None, headers: list[tuple[str, bytes]], value: bytes
    ) -> None:
        """Write one record; it is durable after the next flush.

        Raises:
            JournalFull: the unsent bytes have reached the limit; nothing was written.
        """
        body = msgspec.msgpack.encode(JournalRecord(topic, partition, key, headers, value))
        size = _HEAD.size + len(body)
        if self.unsent_bytes + size > self.limit_bytes:
            raise JournalFull(FULL_REASON, retry_after_s=5)
        if self._end.byte >= self.segment_bytes:
            self._roll()
        self._file.write(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        self._end = Position(self._end.segment, self._end.byte + size)
        self.unsent_bytes += size
        self._dirty = True

    @property
    def nearly_full(self) -> bool:
        """Whether readiness should say no, before anything is refused."""
        return self.unsent_bytes > _NEARLY_FULL * self.limit_bytes

    def check_room(self) -> None:
        """Refuse work early whose result could hardly be appended.

        Raises:
            JournalFull: the unsent bytes come close to the limit.
        """
        if self.unsent_bytes > _FULL * self.limit_bytes:
            raise JournalFull(FULL_REASON, retry_after_s=5)

    async def flush(self) -> None:
        """Return once everything appended so far is on disk. Concurrent callers share one fdatasync."""
        while self._flushing is not None:
            await asyncio.shield(self._flushing)  # one that began before our append does not cover it
        if self._dirty:
            self._flushing = asyncio.create_task(self._sync())
            await asyncio.shield(self._flushing)

    async def _sync(self) -> None:
        try:
            self._dirty = False
            self._file.flush()
            await asyncio.to_thread(os.fdatasync, self._file.fileno())
            self.appended.set()
        except OSError as error:
            self._dirty = True
            raise JournalFull(f"the journal can't write to its disk: {error.strerror}", retry_after_s=5) from error
        finally:
            self._flushing = None

    def _roll(self) -> None:
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self._file.close()
        self._end = Position(self._end.segment + 1, 0)
        self._file = _path(self.folder, self._end.segment).open("ab")

    def acknowledged(self) -> Acknowledged:
        """How far the publisher got, as last stored."""
        return _read_acknowledged(self.folder)

    def bytes_between(self, start: Acknowledged, end: Acknowledged) -> int:
        """Bytes of records from one place to a later one."""
        sizes = sum(
            _path(self.folder, n).stat().st_size for n in _segments(self.folder) if start.segment <= n < end.segment
        )
        return sizes - start.position + end.position

    def acknowledge(self, at: Acknowledged, sent_bytes: int) -> None:
        """Store how far the publisher got and drop the segments before it."""
        temporary = self.folder / "acknowledged.new"
        temporary.write_bytes(msgspec.json.encode(at))
        temporary.replace(self.folder / "acknowledged")
        self.unsent_bytes -= sent_bytes
        for number in _segments(self.folder):
            if number < at.segment:
                _path(self.folder, number).unlink(missing_ok=True)

    def read(self, start: Position, limit_bytes: int) -> Iterator[tuple[JournalRecord, Position]]:
        """Durable records from `start`, each with the position after it, until about `limit_bytes` are read."""
        budget = limit_bytes
        for number in _segments(self.folder):
            if number < start.segment:
                continue
            with _path(self.folder, number).open("rb") as file:
                file.seek(start.byte if number == start.segment else 0)
                for body in _bodies(file):
                    yield msgspec.msgpack.decode(body, type=JournalRecord), Position(number, file.tell())
                    budget -= len(body)
                    if budget <= 0:
                        return

    def close(self) -> None:
        """Make what was appended durable and give the journal free."""
        self._file.flush()
        os.fdatasync(self._file.fileno())
        self._file.close()
        self._lock.close()


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.log"


def _segments(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.log"))


def _bodies(file: BinaryIO) -> Iterator[bytes]:
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        body = file.read(length)
        if len(body) < length or zlib.crc32(body) != checksum:
            return
        yield body


def _whole_bytes(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        end = 0
        for _ in _bodies(file):
            end = file.tell()
        return end


def _read_acknowledged(folder: Path) -> Acknowledged:
    path = folder / "acknowledged"
    return msgspec.json.decode(path.read_bytes(), type=Acknowledged) if path.exists() else Acknowledged()
