"""The file and line of a definition, so that an error can name the line to correct."""

import sys

_OURS = ("contender.features", "dataclasses")
"""Packages whose lines are skipped, with all below them."""


def caller() -> str:
    """`file:line` of the nearest caller outside of this package; empty where there is none."""
    frame = sys._getframe(1)  # noqa: SLF001 - the one way to a caller that costs microseconds
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        generated = frame.f_code.co_filename.startswith("<")  # a dataclass's own __init__
        if not generated and not f"{module}.".startswith(tuple(f"{ours}." for ours in _OURS)):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""
