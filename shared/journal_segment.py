"""The newest segment of a journal, to which records are appended."""

import os
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Self

from shared.journal_files import Position, open_segment


@dataclass(slots=True)
class Segment:
    """An open segment. Nothing is appended behind a partial record, for it would be lost.

    Attributes:
        number: of the segment.
        file: its descriptor.
        end: bytes of whole records that were written.
        durable: bytes that are on disk for sure.
    """

    number: int
    file: int
    end: int = 0
    durable: int = 0
    _has_partial_record: bool = False

    @classmethod
    def open(cls, folder: Path, position: Position) -> Self:
        """Open or make a segment and cut off what lies behind a position."""
        file = open_segment(folder, position.segment)
        os.ftruncate(file, position.byte)
        os.fdatasync(file)  # what a crash left unsynced may be sent from now on
        return cls(position.segment, file, position.byte, position.byte)

    def write(self, content: bytes) -> None:
        """Append all of the content or nothing.

        Raises:
            OSError: the disk is full or fails.
        """
        self.repair()
        written = 0
        try:
            written = os.write(self.file, content)
        finally:
            if written < len(content):
                self._cut()
        if written < len(content):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        self.end += len(content)

    def repair(self) -> None:
        """Cut off a partial record that could not be cut off before.

        Raises:
            OSError: the disk is full or fails.
        """
        if self._has_partial_record:
            os.ftruncate(self.file, self.end)
            self._has_partial_record = False

    def forget(self) -> int:
        """Go back to what is durable; return the number of bytes that are lost."""
        lost, self.end = self.end - self.durable, self.durable
        self._cut()
        return lost

    def close(self) -> None:
        """Close the file as it is."""
        os.close(self.file)

    def _cut(self) -> None:
        self._has_partial_record = True
        with suppress(OSError):
            self.repair()
