"""The keys of a partition's table, which holds all its entries: the first letter is the kind of entry."""

from math import inf
from struct import Struct

MARKS = b"m"
"""The offsets up to which everything is durable; the last record of every flush."""

INTENT = b"i"
"""The offsets that the entries of an unfinished flush may reach; the first record of every flush."""

COUNTS = b"x"
"""Counts of the whole partition."""

NO_EXPERIMENT = "outside"
"""The name under which `Counts.no_experiment` is stored there."""

FRAMES, LABELS, WAITING, SHADOWS = b"f/", b"l/", b"w/", b"s/"
EXPERIMENTS, WATERMARKS, TOTALS, COHORTS, DAYS = b"e/", b"k/", b"g/", b"c/", b"d/"

NEVER = inf
"""The expiry of entries that stay."""

GROUP_BYTES = 16
_NUMBER = Struct(">Q")
_SIGN = 1 << 63  # added, so that negative numbers sort before positive ones


def frame_key(frame_id: str) -> bytes:
    """The key of a prediction frame."""
    return FRAMES + frame_id.encode()


def shadow_key(frame_id: str) -> bytes:
    """The key of what other variants answered to a frame's rows in shadow."""
    return SHADOWS + frame_id.encode()


def chunk_key(frame_id: str, chunk: int) -> bytes:
    """The key of the reports on a chunk of a frame's rows."""
    return b"%b%b/%d" % (LABELS, frame_id.encode(), chunk)


def waiting_key(frame_id: str) -> bytes:
    """The key of the list of chunks that wait for their frame."""
    return WAITING + frame_id.encode()


def experiment_key(name: str) -> bytes:
    """The key of an experiment's clock and groups."""
    return EXPERIMENTS + name.encode()


def watermark_key(name: str) -> bytes:
    """The key of the time up to which an experiment's cohorts were added to their totals."""
    return WATERMARKS + name.encode()


def total_key(group_id: bytes) -> bytes:
    """The key of a group's matured rows."""
    return TOTALS + group_id


def cohort_key(group_id: bytes, number: int, day: int) -> bytes:
    """The key of the rows of one open cohort and one day."""
    return COHORTS + group_id + _NUMBER.pack(number + _SIGN) + _NUMBER.pack(day + _SIGN)


def parse_cohort_key(key: bytes) -> tuple[bytes, int, int]:
    """The group, the cohort's number and the day in a key."""
    start = len(COHORTS) + GROUP_BYTES
    number, day = (_NUMBER.unpack_from(key, start + at)[0] - _SIGN for at in (0, _NUMBER.size))
    return key[len(COHORTS) : start], number, day


def day_key(group_id: bytes, day: int) -> bytes:
    """The key of a group's matured rows of one day."""
    return DAYS + group_id + _NUMBER.pack(day + _SIGN)


def parse_day_key(key: bytes) -> tuple[bytes, int]:
    """The group and the day in a key."""
    start = len(DAYS) + GROUP_BYTES
    return key[len(DAYS) : start], _NUMBER.unpack_from(key, start)[0] - _SIGN


def expires_at(key: bytes, value: bytes) -> int | None:
    """When an entry may be deleted, in seconds since the Unix epoch; None for entries that stay."""
    if key[:2] not in {FRAMES, WAITING, SHADOWS}:
        return None
    expiry: int = _NUMBER.unpack_from(value)[0]
    return expiry or None


def with_expiry(seconds: float, value: bytes) -> bytes:
    """The value of an entry that expires; infinity means never."""
    whole = int(seconds) if 0.0 < seconds < _SIGN else 0
    return _NUMBER.pack(whole) + value


def without_expiry(value: bytes) -> bytes:
    """The value without its expiry."""
    return value[_NUMBER.size :]
