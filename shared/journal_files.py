"""The files of a journal: its records, its segments, and how far the publisher got."""

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from shared.logs import logger

_HEAD = struct.Struct(">II")
_BEGINNING = re.compile(rb"[\x95\x96]")
"""How the msgpack of a JournalRecord begins: an array of six, or of five in the first releases."""


class JournalDamagedError(RuntimeError):
    """A record that was acknowledged can't be read any more."""


class JournalInUseError(RuntimeError):
    """Another process writes to this journal."""


class JournalRecord(msgspec.Struct, frozen=True, array_like=True):
    """A Kafka record that is to be sent."""

    topic: str
    partition: int
    key: bytes | None
    headers: list[tuple[str, bytes]]
    value: bytes
    is_part: bool = False

    @property
    def event_id(self) -> bytes:
        """The id of the record's event; empty where it has none."""
        return next((value for name, value in self.headers if name == "ce_id"), b"")


class Acknowledged(msgspec.Struct, frozen=True):
    """How far the publisher got: the next record to send, and per topic-partition the last offset Kafka gave.

    `lost` marks a guess, made because the stored one can't be read: any record may have been sent already.
    """

    segment: int = 0
    position: int = 0
    offsets: dict[str, int] = {}
    lost: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A position in the journal: the number of a segment and a byte in it."""

    segment: int
    byte: int


def framed(record: JournalRecord) -> bytes:
    """The record as it lies in a segment: length, checksum, msgpack."""
    body = msgspec.msgpack.encode(record)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def lock_folder(folder: Path) -> BinaryIO:
    """Make the folder and lock it; closing the file releases it.

    Raises:
        JournalInUseError: another process has locked it.
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
    return lock


def segment_path(folder: Path, number: int) -> Path:
    """The file of a segment."""
    return folder / f"{number:012d}.log"


def segments_of(folder: Path) -> list[int]:
    """The numbers of all segments, oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.log"))


def remove_segments(folder: Path, *, before: int) -> None:
    """Remove the segments with a lower number."""
    for number in segments_of(folder):
        if number < before:
            segment_path(folder, number).unlink(missing_ok=True)


def open_segment(folder: Path, number: int) -> int:
    """Open a segment without a buffer, and make its name durable.

    Raises:
        OSError: the disk is full or fails.
    """
    file = os.open(segment_path(folder, number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _sync_folder(folder)
    except OSError:
        os.close(file)
        raise
    return file


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_from(folder: Path, at: Acknowledged) -> int:
    """Bytes of the records behind the acknowledged ones."""
    sizes = {
        number: segment_path(folder, number).stat().st_size for number in segments_of(folder) if number >= at.segment
    }
    return sum(sizes.values()) - min(at.position, sizes.get(at.segment, 0))


def read_body(file: BinaryIO) -> bytes | None:
    """The next record's bytes; None where it is not whole."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    body = file.read(length)
    # No record is empty; a power cut may leave zeros.
    return body if body and len(body) == length and zlib.crc32(body) == checksum else None


def read_records(
    folder: Path, start: Position, end: Position, limit_bytes: int
) -> Iterator[tuple[JournalRecord, Position]]:
    """Records from `start` up to `end`, each with the position after it, until about `limit_bytes` are read.

    Raises:
        JournalDamagedError: a record can't be read.
    """
    budget = limit_bytes
    for number in segments_of(folder):
        if not start.segment <= number <= end.segment:
            continue
        path = segment_path(folder, number)
        with path.open("rb") as file:
            size = end.byte if number == end.segment else path.stat().st_size
            file.seek(start.byte if number == start.segment else 0)
            while (at := file.tell()) < size:
                body = read_body(file)
                if body is None:
                    raise JournalDamagedError(f"{path} can't be read at byte {at}")
                yield msgspec.msgpack.decode(body, type=JournalRecord), Position(number, file.tell())
                budget -= len(body)
                if budget <= 0:
                    return


def checked_end(folder: Path, at: Acknowledged) -> Position:
    """Check that every record which is not acknowledged can be read; return where the next record goes.

    Raises:
        JournalDamagedError: a record can't be read.
    """
    segments = segments_of(folder)
    last = segments[-1] if segments else 0
    end = Position(last, 0)
    for number in segments:
        if number >= at.segment:
            path = segment_path(folder, number)
            end = Position(number, _whole_bytes(path, at.position if number == at.segment else 0))
            if end.byte < path.stat().st_size:
                if bytes_from(folder, Acknowledged(number + 1)):
                    raise _damaged(path, end.byte)
                break  # the segments behind are empty
    if end < Position(at.segment, at.position):
        logger(__name__).warning("the journal ends before its acknowledged position", folder=str(folder), at=at.segment)
        return Position(at.segment + 1, 0)
    return end


def _whole_bytes(path: Path, start: int) -> int:
    """Where the whole records from `start` on end; at most one partial record lies behind."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = min(start, size)
        file.seek(end)
        while read_body(file) is not None:
            end = file.tell()
        file.seek(end)
        if end < size and _holds_record(file.read()[1:]):
            raise _damaged(path, end)
        return end


def _damaged(path: Path, byte: int) -> JournalDamagedError:
    return JournalDamagedError(
        f"{path} is damaged at byte {byte}, and whole records follow: restore the file, "
        "or move it away and lose what it holds"
    )


def _holds_record(content: bytes) -> bool:
    """Whether a whole record begins anywhere in it."""
    for match in _BEGINNING.finditer(content, _HEAD.size):
        at = match.start()
        length, checksum = _HEAD.unpack_from(content, at - _HEAD.size)
        if length <= len(content) - at and zlib.crc32(memoryview(content)[at : at + length]) == checksum:
            return True
    return False


def read_acknowledged(folder: Path) -> Acknowledged:
    """How far the publisher got, as last stored; a guess where that can't be read."""
    path = folder / "acknowledged"
    if not path.exists():
        return Acknowledged()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Acknowledged)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        logger(__name__).warning(
            "the acknowledged position can't be read and is looked up in Kafka", path=str(path), error=str(error)
        )
        return Acknowledged(min(segments_of(folder), default=0), 0, {}, lost=True)


def write_acknowledged(folder: Path, at: Acknowledged) -> None:
    """Store how far the publisher got, and return once it is durable.

    Raises:
        OSError: the disk is full or fails; what was stored before still stands.
    """
    temporary = folder / "acknowledged.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(at))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / "acknowledged")


def add_refused(folder: Path, record: JournalRecord) -> None:
    """Keep a record that Kafka refused, and return once it is durable.

    Raises:
        OSError: the disk is full or fails.
    """
    with (folder / "refused").open("ab") as file:
        file.write(framed(record))
        file.flush()
        os.fsync(file.fileno())


def refused_records(folder: Path) -> Iterator[JournalRecord]:
    """The records that Kafka refused."""
    path = folder / "refused"
    if path.exists():
        with path.open("rb") as file:
            while (body := read_body(file)) is not None:
                yield msgspec.msgpack.decode(body, type=JournalRecord)


def name_of(record: JournalRecord) -> str:
    """Topic, partition and event id of a record."""
    return f"{record.topic}:{record.partition} {record.event_id.decode('ascii', 'replace')}"
