"""What a process that runs models of others allows itself."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NICENESS = 10
"""Behind the services, which answer for the models whose cost is known."""


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
    """Within the block no more than `size` bytes beside what is taken now; what asks for more fails."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = _address_space()
    limit = taken + size if taken else hard
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


@contextmanager
def time_limited(seconds: int) -> Iterator[None]:
    """Within the block no more than so much processor time; the process ends where it takes more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + seconds, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def _address_space() -> int:
    """Bytes of address space that are taken; 0 where the system does not tell."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[0]) * resource.getpagesize() if told.exists() else 0
