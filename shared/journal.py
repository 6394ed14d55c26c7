"""A local append-only journal: what was acknowledged is on disk, and stays there until Kafka has it.

The journal is a folder of segments `<sequence number>.log`. A record is a 4-byte length, a 4-byte CRC-32 and the
msgpack of a JournalRecord. A crash may leave a partial record at the end of the last segment; nobody has acknowledged
it, and opening cuts it off. The file `acknowledged` holds how far the publisher got, and `refused` the records that
Kafka refused.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from shared.errors import JournalFull, RecordTooLarge
from shared.journal_files import (
    Acknowledged,
    JournalDamagedError,
    JournalInUseError,
    JournalRecord,
    Position,
    add_refused,
    bytes_from,
    checked_end,
    framed,
    lock_folder,
    name_of,
    read_acknowledged,
    read_records,
    refused_records,
    remove_segments,
    write_acknowledged,
)
from shared.journal_segment import Segment
from shared.topics import LARGEST_RECORD_BYTES

__all__ = [
    "Acknowledged",
    "Journal",
    "JournalDamagedError",
    "JournalFull",
    "JournalInUseError",
    "JournalRecord",
    "Position",
]

SEGMENT_BYTES = 64 * 1024**2
_FULL_REASON = "the journal is full because Kafka has not taken events for a while"
_NEARLY_FULL = 0.95
_FULL = 0.99
_RETRY_AFTER_S = 5
_PROBE_S = 1.0
_PROBE_BYTES = 64 * 1024


@dataclass
class Journal:
    """Appends records; a flush makes everything appended before it durable with one fdatasync.

    A write or a flush that fails takes the file back to its last good end. While even that fails nothing more is
    appended: everything behind a partial record would be lost.

    The flush that finds a segment full also begins the next one. Meanwhile what is appended is held in memory: a new
    segment takes no byte before all of the last one are durable, or a power cut would look like damage.
    """

    folder: Path
    limit_bytes: int
    segment_bytes: int
    _lock: BinaryIO
    _segment: Segment
    unsent_bytes: int
    _acknowledged: Acknowledged
    open_keys: set[bytes] = field(default_factory=set)
    """Keys of the records that may get further parts; a lost write and the publisher close them."""

    appended: asyncio.Event = field(default_factory=asyncio.Event)
    sync_file: Callable[[int], None] = os.fdatasync
    clock: Callable[[], float] = time.monotonic
    _refused: list[str] = field(init=False)
    _flushing: asyncio.Task[None] | None = None
    _held: list[bytes] | None = None
    _losses: int = 0
    _fault: str = ""
    _needed_bytes: int = _PROBE_BYTES
    _probed_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._refused = [name_of(record) for record in refused_records(self.folder)]

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Open or make the journal in `folder` and cut off a partial record that a crash left.

        Raises:
            JournalInUseError: another process holds the journal.
            JournalDamagedError: a record that is not the last one can't be read; the message says where it lies.
        """
        lock = lock_folder(folder)
        try:
            at = read_acknowledged(folder)
            segment = Segment.open(folder, checked_end(folder, at))
        except BaseException:
            lock.close()
            raise
        return cls(folder, limit_bytes, segment_bytes, lock, segment, bytes_from(folder, at), at)

    def append(
        self, topic: str, partition: int, key: bytes | None, headers: list[tuple[str, bytes]], value: bytes
    ) -> None:
        """Write one record; see append_all."""
        self.append_all([JournalRecord(topic, partition, key, headers, value)])

    def append_all(self, records: Sequence[JournalRecord]) -> None:
        """Write records, all or none; they are durable after a flush, which the caller begins before any other await.

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
            raise JournalFull(_FULL_REASON, retry_after_s=_RETRY_AFTER_S)
        if self._held is not None:
            self._held.append(content)
        else:
            self._write(content)
        self.unsent_bytes += len(content)

    @property
    def unready_reasons(self) -> list[str]:
        """Why the process should get no further calls; a nearly full journal is named before it refuses any."""
        is_nearly_full = self.unsent_bytes > _NEARLY_FULL * self.limit_bytes
        return [reason for reason in (_FULL_REASON if is_nearly_full else "", self.fault) if reason]

    def check_room(self) -> None:
        """Refuse work early when there is hardly room for its result.

        Raises:
            JournalFull: the unsent bytes come close to the limit.
        """
        if self.unsent_bytes > _FULL * self.limit_bytes:
            raise JournalFull(_FULL_REASON, retry_after_s=_RETRY_AFTER_S)

    @property
    def fault(self) -> str:
        """Why the disk takes no records at the moment; empty while it does.

        Work is refused early meanwhile, so nothing is appended. Therefore this tries, at most once a second, whether
        the disk has room for what it did not take the last time.
        """
        if self._fault and self.clock() - self._probed_at > _PROBE_S:
            self._probed_at = self.clock()
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
            JournalFull: the disk is full or fails; the journal has dropped what was not durable yet.
        """
        losses = self._losses
        while self._flushing is not None:
            await asyncio.shield(self._flushing)  # one that began before our append does not cover it
        if self._losses != losses:
            raise JournalFull("the journal can't write to its disk", retry_after_s=_RETRY_AFTER_S)
        if self._segment.end != self._segment.durable:
            self._flushing = asyncio.create_task(self._sync())
            await asyncio.shield(self._flushing)

    async def close_records(self) -> None:
        """Let the records that are open get no further parts, and make all their parts durable."""
        self.open_keys.clear()
        with suppress(JournalFull):  # what could not be written is no part of them
            await self.flush()

    async def _sync(self) -> None:
        segment, end = self._segment, self._segment.end
        is_full = end >= self.segment_bytes
        self._held = [] if is_full else None
        try:
            following = await asyncio.to_thread(self._sync_segment, segment, opens_next=is_full)
        except OSError as error:
            held, self._held = self._held, None
            self.unsent_bytes -= segment.forget() + sum(map(len, held or ()))
            self._note_loss()  # the kernel has dropped it and reports that only once
            raise self._failed(error) from error
        finally:
            self._flushing = None
        segment.durable = end
        self._fault = ""
        self.appended.set()
        if following is not None:
            segment.close()
            self._segment = following
        held, self._held = self._held, None
        if held:
            self._write_held(b"".join(held))

    def _sync_segment(self, segment: Segment, *, opens_next: bool) -> Segment | None:
        """Make a segment durable. Returns the next one if it should be opened and the disk has room for its file."""
        self.sync_file(segment.file)
        if opens_next:
            with suppress(OSError):
                return Segment.open(self.folder, Position(segment.number + 1, 0))
        return None

    def _write_held(self, content: bytes) -> None:
        """Write what was held during a flush; if the disk refuses it, the flushes of its callers raise."""
        try:
            self._write(content)
        except JournalFull:
            self.unsent_bytes -= len(content)
            self._note_loss()

    def _note_loss(self) -> None:
        """Parts behind a lost one would be numbered wrongly, so the records that are open get none."""
        self._losses += 1
        self.open_keys.clear()

    def _write(self, content: bytes) -> None:
        try:
            self._segment.write(content)
        except OSError as error:
            self._needed_bytes = max(_PROBE_BYTES, len(content))
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> JournalFull:
        if not self._fault:
            self._probed_at = self.clock()
        self._fault = _fault_of(error)
        with suppress(OSError):
            self._drop_sent()
        return JournalFull(self._fault, retry_after_s=_RETRY_AFTER_S)

    def _probe(self) -> None:
        """Try the disk with a file of its own, after dropping what Kafka has already.

        Raises:
            OSError: the disk is full or fails.
        """
        self._drop_sent()
        path = self.folder / "probe"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self._needed_bytes)
            self.sync_file(file)
        finally:
            os.close(file)
            path.unlink(missing_ok=True)

    def _drop_sent(self) -> None:
        """Free the newest segment, too, if Kafka has all that was appended; the next one begins empty."""
        if self._flushing is None and self.unsent_bytes == 0:
            if self._segment.end:
                following = Segment.open(self.folder, Position(self._segment.number + 1, 0))
                self._segment.close()
                self._segment = following
            remove_segments(self.folder, before=self._segment.number)

    def acknowledged(self) -> Acknowledged:
        """How far the publisher got."""
        return self._acknowledged

    def acknowledge(self, at: Acknowledged) -> None:
        """Note how far the publisher got and drop the segments before it; `store_acknowledged` makes it durable."""
        self.unsent_bytes -= bytes_from(self.folder, self._acknowledged) - bytes_from(self.folder, at)
        self._acknowledged = at
        remove_segments(self.folder, before=at.segment)

    def store_acknowledged(self) -> None:
        """Make durable how far the publisher got; takes as long as the disk, so it runs in a thread.

        Raises:
            OSError: the disk is full or fails; what was stored before still stands.
        """
        write_acknowledged(self.folder, self._acknowledged)

    def refuse(self, record: JournalRecord) -> None:
        """Keep a record that Kafka refuses for good in the file `refused`.

        Raises:
            OSError: the disk is full or fails.
        """
        add_refused(self.folder, record)
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
        segment = self._segment  # another thread may read while the next one begins
        end = Position(segment.number, segment.durable)
        return read_records(self.folder, start, end, limit_bytes)

    def close(self) -> None:
        """Make what was appended durable and release the journal."""
        self._segment.repair()
        self.sync_file(self._segment.file)
        self._segment.close()
        self._lock.close()


def _fault_of(error: OSError) -> str:
    return f"the journal can't write to its disk: {error.strerror}"
