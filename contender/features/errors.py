"""What can be wrong with feature definitions and with the tables of a training set.

FeatureError
├── DefinitionError     a definition contradicts itself or another one
├── UnknownFeatureError a reference names no view or feature
└── TrainingSetError    a table lacks columns or values that the definitions ask for
"""

import sys

_OURS = ("contender.features", "dataclasses")
"""Packages whose lines are skipped, with all below them."""


class FeatureError(ValueError):
    """Something about features that their author can correct."""


class DefinitionError(FeatureError):
    """A definition contradicts itself or another one; the message names it and says what would be right.

    Args:
        message: what is wrong, and what would be right.
        location: `file:line` of the definition, which then leads the message.
    """

    def __init__(self, message: str, location: str = "") -> None:
        super().__init__(f"{location}: {message}" if location else message)
        self.location = location


class UnknownFeatureError(FeatureError):
    """A reference names no view or feature."""


class TrainingSetError(FeatureError):
    """A table lacks columns or values that the definitions ask for."""


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
