"""The aggregations that a feature can be: one column of a source, over one window."""

import re
from dataclasses import dataclass
from typing import Literal

from shared.features.durations import seconds
from shared.features.errors import DefinitionError

Kind = Literal["count", "sum", "mean", "min", "max", "std", "last"]
NAME = re.compile(r"[a-z](?:[a-z0-9]|_(?!_)){0,62}")
"""What things may be called; two underscores in a row part view and feature in the name of a column."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One feature of a view. `name` is `<kind>_<column>_<window>`, or `count_<window>`, unless it is given.

    Over a window without events `count` is 0 and everything else is null.
    """

    kind: Kind
    column: str | None
    window: str
    name: str
    description: str = ""

    @property
    def window_s(self) -> int:
        """The length of the window in seconds."""
        return seconds(self.window)


def count(window: str, *, name: str = "", description: str = "") -> Aggregation:
    """The number of events."""
    return _aggregation("count", None, window, name, description)


def sum(column: str, window: str, *, name: str = "", description: str = "") -> Aggregation:  # noqa: A001 - the field's word
    """The sum of a column."""
    return _aggregation("sum", column, window, name, description)


def mean(column: str, window: str, *, name: str = "", description: str = "") -> Aggregation:
    """The mean of a column."""
    return _aggregation("mean", column, window, name, description)


def min(column: str, window: str, *, name: str = "", description: str = "") -> Aggregation:  # noqa: A001 - the field's word
    """The least value of a column."""
    return _aggregation("min", column, window, name, description)


def max(column: str, window: str, *, name: str = "", description: str = "") -> Aggregation:  # noqa: A001 - the field's word
    """The greatest value of a column."""
    return _aggregation("max", column, window, name, description)


def std(column: str, window: str, *, name: str = "", description: str = "") -> Aggregation:
    """The sample standard deviation of a column (one degree of freedom less); null below two events."""
    return _aggregation("std", column, window, name, description)


def last(column: str, window: str, *, name: str = "", description: str = "") -> Aggregation:
    """The latest value of a column; of values with the same time the greatest."""
    return _aggregation("last", column, window, name, description)


def _aggregation(kind: Kind, column: str | None, window: str, name: str, description: str) -> Aggregation:
    seconds(window)
    name = name or "_".join([kind, *([column] if column else []), window])
    if not NAME.fullmatch(name):
        raise DefinitionError(
            f"{name!r} can't be a feature's name: it takes lower-case letters, digits and single underscores; "
            "give another one with name="
        )
    return Aggregation(kind, column, window, name, description)
