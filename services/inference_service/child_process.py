"""A child process that runs uploaded models: how it talks to its parent, and the limits that it sets itself."""

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from services.inference_service.limited_process import LENGTH_BYTES, packed

_NICENESS = 10
"""Lets the services go first, which answer for the models whose cost is known."""


class ParentPipes:
    """The child's side: its standard input and output, which nothing else may use from then on."""

    def __init__(self) -> None:
        self._input: BinaryIO = sys.stdin.buffer
        self._output: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not write into a message

    def read(self) -> list[bytes]:
        """The next message; empty when the parent has ended or wants no more."""
        head = self._input.read(LENGTH_BYTES)
        if len(head) < LENGTH_BYTES:
            return []
        return [self._input.read(int.from_bytes(self._input.read(LENGTH_BYTES))) for _ in range(int.from_bytes(head))]

    def write(self, parts: Sequence[bytes]) -> None:
        """Send a message."""
        for piece in packed(parts):
            self._output.write(piece)
        self._output.flush()


def limit_files() -> None:
    """Write no files, leave no core, and let the services go first."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)


def limit_memory(size: int) -> None:
    """Take no more address space than `size` bytes, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


@contextmanager
def growth_limited(size: int) -> Iterator[None]:
    """Take no more within the block than `size` bytes beside those in use now; a larger request fails."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = _address_space()
    limit = used + size if used else hard
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


@contextmanager
def time_limited(seconds: int) -> Iterator[None]:
    """Take no more within the block than so much processor time; a process that takes more ends."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + seconds, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def _address_space() -> int:
    """Bytes of address space in use; 0 where the system does not report them."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 0
