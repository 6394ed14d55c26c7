"""Durations as people write them: `90s`, `5m`, `1h`, `7d`."""

import re

from contender.features.errors import DefinitionError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9]\d{0,8})([smhd])")
_UNITS = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"))
"""From how many seconds on a duration is written in which unit."""


def format_duration(duration_s: float | None) -> str:
    """A duration for people: `12 ms`, `1.5 s`, `35 min`, `7 h`, `1,204 d`; None is `-`."""
    if duration_s is None:
        return "-"
    for least, unit_s, unit in _UNITS:
        if duration_s >= least:
            return f"{duration_s / unit_s:,.0f} {unit}"
    return f"{duration_s:.1f} s" if duration_s >= 1 else f"{duration_s * 1000:.0f} ms"


def seconds(text: str) -> int:
    """The duration in seconds.

    Raises:
        DefinitionError: the text is not a whole number with one of the units s, m, h, d.
    """
    match = _DURATION.fullmatch(str(text))
    if match is None:
        raise DefinitionError(
            f"{text!r} is not a duration: write a whole number with s, m, h or d, from 1 on, such as '30m'"
        )
    return int(match[1]) * _SECONDS[match[2]]
