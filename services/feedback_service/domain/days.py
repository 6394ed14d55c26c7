"""The days of rows in a time zone: which day a row belongs to is decided once, when its frame is recorded."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400.0

_UTC = {"UTC", "Etc/UTC"}
_CALM_S = 7 * DAY_S
"""The clocks of a time zone do not change twice within so many seconds: an offset at both ends holds between them."""

_EARLIEST_S, _LATEST_S = -62_135_500_000.0, 253_402_200_000.0  # the years 1 and 9999, but for a day

Floats = NDArray[np.float64]


def is_time_zone(name: str) -> bool:
    """Whether the time zone is known here."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name that is none, a path, a folder
        return False
    return True


def utc_offsets(times: Floats, time_zone: str) -> NDArray[np.int32]:
    """How far the clocks of a time zone are ahead of UTC at these times, in seconds.

    Returns:
        Shape (rows,), or (1,) where all rows have one offset, or (0,) where it is zero.

    Raises:
        KeyError, ValueError, OSError: the time zone is not known (see `is_time_zone`).
    """
    if time_zone in _UTC or not times.size:
        return np.zeros(0, dtype=np.int32)
    zone = ZoneInfo(time_zone)
    first, last = float(times.min()), float(times.max())
    offsets = [_utc_offset(first, zone), _utc_offset(last, zone)]
    if offsets[0] != offsets[1] or last - first > _CALM_S:
        offsets = [_utc_offset(time, zone) for time in times.tolist()]
    if not any(offsets):
        return np.zeros(0, dtype=np.int32)
    is_same = min(offsets) == max(offsets)
    return np.array(offsets[:1] if is_same else offsets, dtype=np.int32)


def day_numbers(times: Floats, offsets: NDArray[np.int32]) -> NDArray[np.int64]:
    """The day of each row, counted from 1970-01-01 in the time zone of `utc_offsets`, shape (rows,)."""
    local = times + offsets if offsets.size else times
    return np.floor(local / DAY_S).astype(np.int64)


def _utc_offset(time: float, zone: ZoneInfo) -> int:
    within = min(max(time, _EARLIEST_S), _LATEST_S)
    offset = datetime.fromtimestamp(within, zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())
