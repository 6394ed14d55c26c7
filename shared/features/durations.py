"""Durations as people write them: `90s`, `5m`, `1h`, `7d`."""

import re

from shared.features.errors import DefinitionError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9]\d{0,8})([smhd])")


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
