"""The aggregations that a feature can be: of one column of a source, over a window or all time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from contender.contracts.values import Scalar
from contender.features.conditions import Condition, check_filter
from contender.features.durations import seconds
from contender.features.errors import DefinitionError
from contender.features.places import caller

Kind = Literal[
    "count", "sum", "mean", "min", "max", "std", "first", "last", "last_n", "distinct_count", "quantile", "ratio"
]
ALL_TIME = "all"
"""The window that has no beginning."""

NAME = re.compile(r"[a-z](?:[a-z0-9]|_(?=[a-z0-9])){0,62}")
"""What things may be called; two underscores in a row part view and feature in the name of a column,
so none may stand at an end either."""

MOST_LAST = 100
MOST_DISTINCT = 4096
USUAL_DISTINCT = 128
COUNTS: frozenset[Kind] = frozenset({"count", "distinct_count"})
"""Kinds that are 0 over a window without events; everything else is null there."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One feature of a view.

    `name` is `<kind>_<column>_<window>` unless it is given. `where` says which events count. `n` is how many values
    `last_n` lists, `q` the quantile, `exact_to` below how many different values `distinct_count` is exact, and `of`
    the two features of a ratio. `default` stands in for a null where a model is served without the feature.
    """

    kind: Kind
    column: str | None
    window: str
    name: str
    description: str = ""
    where: Condition | None = None
    n: int = 0
    q: float = 0.0
    exact_to: int = 0
    of: tuple["Aggregation", ...] = ()
    default: Scalar = None
    place: str = field(default_factory=caller, compare=False, repr=False)

    @property
    def window_s(self) -> float:
        """The length of the window in seconds; infinite over all time."""
        return float("inf") if self.window == ALL_TIME else seconds(self.window)

    @property
    def parts(self) -> tuple["Aggregation", ...]:
        """What is read from tiles for it: itself, or the two features of a ratio."""
        return self.of or (self,)


Features = tuple[Aggregation, ...]
"""What the functions below give: one feature per window."""


def count(
    *windows: str, name: str = "", description: str = "", where: Condition | None = None, default: Scalar = None
) -> Features:
    """The number of events."""
    return _features(Aggregation("count", None, "", name, description, where, default=default), windows)


def sum(  # noqa: A001 - the field's word
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The sum of a column."""
    return _features(Aggregation("sum", column, "", name, description, where, default=default), windows)


def mean(
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The mean of a column."""
    return _features(Aggregation("mean", column, "", name, description, where, default=default), windows)


def min(  # noqa: A001
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The least value of a column."""
    return _features(Aggregation("min", column, "", name, description, where, default=default), windows)


def max(  # noqa: A001
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The greatest value of a column."""
    return _features(Aggregation("max", column, "", name, description, where, default=default), windows)


def std(
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The sample standard deviation of a column (one degree of freedom less); null below two events."""
    return _features(Aggregation("std", column, "", name, description, where, default=default), windows)


def first(
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The earliest value of a column; of values with the same time the least."""
    return _features(Aggregation("first", column, "", name, description, where, default=default), windows)


def last(
    column: str,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """The latest value of a column; of values with the same time the greatest."""
    return _features(Aggregation("last", column, "", name, description, where, default=default), windows)


def last_n(
    column: str, n: int, *windows: str, name: str = "", description: str = "", where: Condition | None = None
) -> Features:
    """The latest `n` values of a column as a list, the latest first; fewer where there are fewer."""
    if not 1 <= n <= MOST_LAST:
        raise DefinitionError(f"last_n of {n} values; from 1 to {MOST_LAST} are held", caller())
    return _features(Aggregation("last_n", column, "", name, description, where, n=n), windows)


def distinct_count(
    column: str,
    *windows: str,
    exact_to: int = USUAL_DISTINCT,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """How many different values a column has.

    Exact below `exact_to` values in the window; from there on an estimate whose relative standard error is
    1 / sqrt(exact_to - 2). Every tile takes 8 bytes per value that is held.
    """
    if not 16 <= exact_to <= MOST_DISTINCT:  # noqa: PLR2004 - below, the estimate would say little
        raise DefinitionError(f"exact_to is {exact_to}; from 16 to {MOST_DISTINCT} can be held", caller())
    made = Aggregation("distinct_count", column, "", name, description, where, exact_to=exact_to, default=default)
    return _features(made, windows)


def quantile(
    column: str,
    q: float,
    *windows: str,
    name: str = "",
    description: str = "",
    where: Condition | None = None,
    default: Scalar = None,
) -> Features:
    """An approximate quantile of a column: the value is within 5 % of the exact one (see `contender.features.bins`)."""
    if not 0 < q < 1:
        raise DefinitionError(f"the quantile {q} is not between 0 and 1", caller())
    made = Aggregation("quantile", column, "", name, description, where, q=q, default=default)
    return _features(made, windows)


def ratio(
    numerator: Features, denominator: Features, *, name: str, description: str = "", default: Scalar = None
) -> Features:
    """One feature of the view divided by another, window by window; null where either is null or the divisor is 0."""
    place = caller()
    sides: Any = (numerator, denominator)  # people type what comes to mind
    for side in sides:
        if isinstance(side, str) or not all(isinstance(one, Aggregation) for one in side):
            message = f"ratio {name!r}: {side!r} is no feature; give one as it is defined, such as count('1h')"
            raise DefinitionError(message, place)
    if len(numerator) != len(denominator):
        raise DefinitionError(f"ratio {name!r}: the two sides have different numbers of windows", place)
    pairs = list(zip(numerator, denominator, strict=True))
    for pair in pairs:
        for one in pair:
            if one.kind in ("last_n", "ratio"):
                raise DefinitionError(f"ratio {name!r}: {one.kind} is no number to divide", place)
    names = [name] if len(pairs) == 1 else [f"{name}_{pair[0].window}" for pair in pairs]
    return tuple(
        _named(Aggregation("ratio", None, pair[0].window, own, description, of=pair, default=default, place=place))
        for own, pair in zip(names, pairs, strict=True)
    )


def _features(made: Aggregation, windows: Sequence[str]) -> Features:
    if not windows:
        raise DefinitionError(f"{made.kind} takes at least one window, such as '1h' or 'all'", made.place)
    if made.name and len(windows) > 1:
        raise DefinitionError(f"{made.name!r} can name one window only; leave name= out", made.place)
    for window in windows:
        _check_window(made, window)
    return tuple(_checked(replace(made, window=window, name=made.name or _name(made, window))) for window in windows)


def _checked(made: Aggregation) -> Aggregation:
    check_filter(made.where, made.place)
    return _named(made)


def _check_window(made: Aggregation, window: str) -> None:
    if window != ALL_TIME:
        try:
            seconds(window)
        except DefinitionError as error:
            raise DefinitionError(f"window of {made.kind}: {error}, or 'all' for all time", made.place) from error


def _named(made: Aggregation) -> Aggregation:
    if not NAME.fullmatch(made.name):
        raise DefinitionError(
            f"{made.name!r} can't be a feature's name: it takes lower-case letters, digits and single underscores, at "
            "most 63, a letter first; give another one with name=",
            made.place,
        )
    return made


def _name(made: Aggregation, window: str) -> str:
    kinds = {
        "last_n": f"last_{made.n}",
        "distinct_count": "distinct",
        "quantile": f"p{made.q * 100:g}".replace(".", "_"),
    }
    return "_".join([kinds.get(made.kind, made.kind), *([made.column] if made.column else []), window])
