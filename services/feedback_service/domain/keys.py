"""The keys of a partition's table: every entry of one partition lies in one table, and its kind is the first letter."""

from struct import Struct

MARKS = b"m"
"""Up to which offsets everything is durable; the last record of every flush."""

INTENT = b"i"
"""Up to which offsets the entries of an unfinished flush may reach; the first record of every flush."""

COUNTS = b"x"
"""Counts of the whole partition."""

FRAMES, LABELS, WAITING = b"f/", b"l/", b"w/"
EXPERIMENTS, TOTALS, COHORTS, DAYS = b"e/", b"g/", b"c/", b"d/"

GROUP_BYTES = 16
_NUMBER = Struct(">Q")
_SIGN = 1 << 63  # added, so that negative numbers sort before positive ones


def frame_key(frame_id: str) -> bytes:
    """Where a prediction frame is kept."""
    return FRAMES + frame_id.encode()


def chunk_key(frame_id: str, chunk: int) -> bytes:
    """Where the reports on a chunk of a frame's rows are kept."""
    return b"%b%b/%d" % (LABELS, frame_id.encode(), chunk)


def waiting_key(frame_id: str) -> bytes:
    """Where the chunks are listed that wait for their frame."""
    return WAITING + frame_id.encode()


def experiment_key(name: str) -> bytes:
    """Where an experiment's clock and groups are kept."""
    return EXPERIMENTS + name.encode()


def total_key(group_id: bytes) -> bytes:
    """Where the matured rows of a group are summed up."""
    return TOTALS + group_id


def cohort_key(group_id: bytes, number: int, day: int) -> bytes:
    """Where the rows of one open cohort and one day are summed up."""
    return COHORTS + group_id + _NUMBER.pack(number + _SIGN) + _NUMBER.pack(day + _SIGN)


def parse_cohort_key(key: bytes) -> tuple[bytes, int, int]:
    """The group, the cohort's number and the day in a key."""
    start = len(COHORTS) + GROUP_BYTES
    number, day = (_NUMBER.unpack_from(key, start + at)[0] - _SIGN for at in (0, _NUMBER.size))
    return key[len(COHORTS) : start], number, day


def day_key(group_id: bytes, day: int) -> bytes:
    """Where the matured rows of one day are summed up."""
    return DAYS + group_id + _NUMBER.pack(day + _SIGN)


def expires_at(key: bytes, value: bytes) -> int | None:
    """When an entry may be deleted, in seconds since the Unix epoch; None for entries that stay."""
    if key[:2] not in {FRAMES, WAITING}:
        return None
    expiry: int = _NUMBER.unpack_from(value)[0]
    return expiry or None


def with_expiry(seconds: float, value: bytes) -> bytes:
    """The value of an entry that expires; infinity means never."""
    whole = int(seconds) if 0.0 < seconds < _SIGN else 0
    return _NUMBER.pack(whole) + value


def without_expiry(value: bytes) -> bytes:
    """The value as it was before `with_expiry`."""
    return value[_NUMBER.size :]
