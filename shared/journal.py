"""A local append-only journal: what was acknowledged is on disk, and stays there until Kafka has it.

The journal is a folder of segments `<first sequence number>.log`. A record is a 4-byte length, a 4-byte CRC-32 and
the msgpack of a JournalRecord; a torn record at the end of the last segment, left by a crash, was never
acknowledged and is cut off on opening. The file `acknowledged` holds how far the publisher got, and `refused` the
records that Kafka would not have.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from shared.errors import JournalFull, RecordTooLarge
from shared.journal_files import (
    Acknowledged,
    JournalDamagedError,
    JournalRecord,
    Position,
    bytes_from,
    checked_end,
    framed,
    name_of,
    open_segment,
    read_acknowledged,
    read_body,
    refused_records,
    segment_path,
    segments_of,
)
from shared.topics import LARGEST_RECORD_BYTES

__all__ = [
    "FULL_REASON",
    "Acknowledged",
    "Journal",
    "JournalDamagedError",
    "JournalInUseError",
    "JournalRecord",
    "Position",
]

SEGMENT_BYTES = 64 * 1024**2
FULL_REASON = "the journal is full because Kafka has not taken events for a while"
_NEARLY_FULL = 0.95
_FULL = 0.99
_RETRY_AFTER_S = 5
_PROBE_S = 1.0
_PROBE_BYTES = 64 * 1024


class JournalInUseError(RuntimeError):
    """Another process writes to this journal."""


@dataclass
class Journal:
    """Appends records; a flush makes everything appended before it durable with one fdatasync.

    A write or a flush that fails takes the file back to its last good end, and while even that fails nothing more is
    appended: behind a torn record everything would be lost. All bytes that are not durable yet lie in one segment.
    """

    folder: Path
    limit_bytes: int
    segment_bytes: int
    _lock: BinaryIO
    _file: int
    _end: Position
    unsent_bytes: int
    _acknowledged: Acknowledged
    appended: asyncio.Event = field(default_factory=asyncio.Event)
    sync_file: Callable[[int], None] = os.fdatasync
    _durable: Position = field(init=False)
    _refused: list[str] = field(init=False)
    _flushing: asyncio.Task[None] | None = None
    _torn: bool = False
    _losses: int = 0
    _fault: str = ""
    _wanted_bytes: int = _PROBE_BYTES
    _probed_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._durable = self._end
        self._refused = [name_of(record) for record in refused_records(self.folder)]

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Open or make the journal in `folder` and cut off a record that a crash left torn.

        Raises:
            JournalInUseError: another process holds the journal.
            JournalDamagedError: a record that is not the last one can't be read; the message says where it lies.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise JournalInUseError(
                f"{folder} is written by another process; stop it or set another CONTENDER_DATA"
            ) from error
        try:
            at = read_acknowledged(folder)
            end = checked_end(folder, at)
            file = open_segment(folder, end.segment)
            os.ftruncate(file, end.byte)
            os.fdatasync(file)  # what a crash left unsynced may be sent from now on
        except BaseException:
            lock.close()
            raise
        unsent = bytes_from(folder, at)
        return cls(folder, limit_bytes, segment_bytes, lock, file, end, unsent, at)

    def append(
        self, topic: str, partition: int, key: bytes | None, headers: list[tuple[str, bytes]], value: bytes
    ) -> None:
        """Write one record; see append_all."""
        self.append_all([JournalRecord(topic, partition, key, headers, value)])

    def append_all(self, records: Sequence[JournalRecord]) -> None:
        """Write records, all or none; they are durable after a flush, to be begun before anything else is awaited.

        Raises:
            RecordTooLarge: one of them is larger than Kafka takes; nothing was written.
            JournalFull: the unsent bytes have reached the limit, or the disk takes no more; nothing was written.
        """
        for record in records:
            if len(record.value) > LARGEST_RECORD_BYTES:
                raise RecordTooLarge(
                    f"a record of {len(record.value)} bytes is too large; Kafka takes {LARGEST_RECORD_BYTES}"
                )
        content = b"".join([framed(record) for record in records])
        if self.unsent_bytes + len(content) > self.limit_bytes:
            raise JournalFull(FULL_REASON, retry_after_s=_RETRY_AFTER_S)
        try:
            if self._torn:
                self._mend()
            if self._end.byte >= self.segment_bytes and self._flushing is None:
                self._roll()
            self._write(content)
        except OSError as error:
            self._wanted_bytes = max(_PROBE_BYTES, len(content))
            raise self._failed(error) from error
        self._end = Position(self._end.segment, self._end.byte + len(content))
        self.unsent_bytes += len(content)

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
            raise JournalFull(FULL_REASON, retry_after_s=_RETRY_AFTER_S)

    @property
    def fault(self) -> str:
        """Why the disk takes no records at the moment; empty while it does.

        While nothing is appended, since work is refused early, this tries at most once a second whether the disk has
        room for what it did not take the last time.
        """
        if self._fault and time.monotonic() - self._probed_at > _PROBE_S:
            self._probed_at = time.monotonic()
            try:
                self._probe()
            except OSError as error:
                self._fault = _fault_of(error)
            else:
                self._fault = ""
        return self._fault

    async def flush(self) -> None:
        """Return once everything appended so far is on disk. Concurrent callers share one fdatasync.

        Raises:
            JournalFull: the disk does not take it; what was not durable yet is not in the journal any more.
        """
        losses = self._losses
        while self._flushing is not None:
            await asyncio.shield(self._flushing)  # one that began before our append does not cover it
        if self._losses != losses:
            raise JournalFull("the journal can't write to its disk", retry_after_s=_RETRY_AFTER_S)
        if self._end != self._durable:
            self._flushing = asyncio.create_task(self._sync())
            await asyncio.shield(self._flushing)

    async def _sync(self) -> None:
        end = self._end
        try:
            await asyncio.to_thread(self.sync_file, self._file)
        except OSError as error:
            self._lose()
            raise self._failed(error) from error
        finally:
            self._flushing = None
        self._durable = end
        self._fault = ""
        self.appended.set()
        # Under load there is always a flush under way, and no moment to roll but this one.
        if self._end != end and self._end.byte >= self.segment_bytes and not self._torn:
            with suppress(OSError):
                self._roll()

    def _failed(self, error: OSError) -> JournalFull:
        if not self._fault:
            self._probed_at = time.monotonic()
        self._fault = _fault_of(error)
        with suppress(OSError):
            self._drop_sent()
        return JournalFull(self._fault, retry_after_s=_RETRY_AFTER_S)

    def _probe(self) -> None:
        """Try the disk with a file of its own, after what is in Kafka already has made room.

        Raises:
            OSError: the disk does not take it.
        """
        self._drop_sent()
        path = self.folder / "probe"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self._wanted_bytes)
            self.sync_file(file)
        finally:
            os.close(file)
            path.unlink(missing_ok=True)

    def _drop_sent(self) -> None:
        """Free the newest segment, too, if Kafka has all that it holds; the next one begins empty."""
        sent = Position(self._acknowledged.segment, self._acknowledged.position)
        if self._flushing is None and self._end.byte and self._end == self._durable == sent:
            self._roll()
            for number in segments_of(self.folder):
                if number < self._end.segment:
                    segment_path(self.folder, number).unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        written = 0
        try:
            written = os.write(self._file, content)
        finally:
            if written < len(content):
                self._torn = True
                with suppress(OSError):
                    self._mend()
        if written < len(content):
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    def _mend(self) -> None:
        """Cut off what a failed write or flush left behind the end."""
        os.ftruncate(self._file, self._end.byte)
        self._torn = False

    def _lose(self) -> None:
        """Forget what was not durable when a flush failed: the kernel has dropped it and reports that only once."""
        self.unsent_bytes -= self._end.byte - self._durable.byte
        self._end = self._durable
        self._losses += 1
        self._torn = True
        with suppress(OSError):
            self._mend()

    def _roll(self) -> None:
        try:
            self.sync_file(self._file)
        except OSError:
            self._lose()
            raise
        self._durable = self._end
        file = open_segment(self.folder, self._end.segment + 1)
        os.close(self._file)
        self._file = file
        self._end = self._durable = Position(self._end.segment + 1, 0)

    def acknowledged(self) -> Acknowledged:
        """How far the publisher got."""
        return self._acknowledged

    def bytes_between(self, start: Acknowledged, end: Acknowledged) -> int:
        """Bytes of records from one place to a later one."""
        return bytes_from(self.folder, start) - bytes_from(self.folder, end)

    def acknowledge(self, at: Acknowledged, sent_bytes: int) -> None:
        """Note how far the publisher got and drop the segments before it; `store_acknowledged` makes it durable."""
        self._acknowledged = at
        self.unsent_bytes -= sent_bytes
        for number in segments_of(self.folder):
            if number < at.segment:
                segment_path(self.folder, number).unlink(missing_ok=True)

    def store_acknowledged(self) -> None:
        """Make durable how far the publisher got; takes as long as the disk, so it runs in a thread.

        Raises:
            OSError: the disk does not take it; what was stored before still stands.
        """
        temporary = self.folder / "acknowledged.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(self._acknowledged))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / "acknowledged")

    def refuse(self, record: JournalRecord) -> None:
        """Keep a record that Kafka refuses for good in the file `refused`.

        Raises:
            OSError: the disk does not take it.
        """
        with (self.folder / "refused").open("ab") as file:
            file.write(framed(record))
            file.flush()
            os.fsync(file.fileno())
        self._refused.append(name_of(record))

    @property
    def remarks(self) -> list[str]:
        """What an operator should know though the journal works."""
        if not self._refused:
            return []
        which = f"{len(self._refused)} records, the last of them {self._refused[-1]}"
        return [f"Kafka has refused {which}: they lie in {self.folder / 'refused'}"]

    def read(self, start: Position, limit_bytes: int) -> Iterator[tuple[JournalRecord, Position]]:
        """Durable records from `start`, each with the position after it, until about `limit_bytes` are read.

        Raises:
            JournalDamagedError: a record can't be read.
        """
        budget = limit_bytes
        durable = self._durable
        for number in segments_of(self.folder):
            if not start.segment <= number <= durable.segment:
                continue
            path = segment_path(self.folder, number)
            with path.open("rb") as file:
                end = durable.byte if number == durable.segment else path.stat().st_size
                file.seek(start.byte if number == start.segment else 0)
                while (at := file.tell()) < end:
                    body = read_body(file)
                    if body is None:
                        raise JournalDamagedError(f"{path} can't be read at byte {at}")
                    yield msgspec.msgpack.decode(body, type=JournalRecord), Position(number, file.tell())
                    budget -= len(body)
                    if budget <= 0:
                        return

    def close(self) -> None:
        """Make what was appended durable and give the journal free."""
        if self._torn:
            self._mend()
        self.sync_file(self._file)
        os.close(self._file)
        self._lock.close()


def _fault_of(error: OSError) -> str:
    return f"the journal can't write to its disk: {error.strerror}"
