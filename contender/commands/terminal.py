"""What services, records and logs hold is text for a terminal, never orders to it."""

import re

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# C0, C1, half characters, and what turns the direction of the text around it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def visible(text: str, *, kept: str = "") -> str:
    """The text without colours, with a replacement character for each control character that is not to be kept."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in kept else _REPLACEMENT, _COLOUR.sub("", text))
