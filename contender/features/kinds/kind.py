"""The base of all kinds of aggregations: a feature of one column of a source, over a window or all time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from contender.contracts.values import Scalar
from contender.features.conditions import Condition, check_filter
from contender.features.durations import seconds
from contender.features.errors import DefinitionError, caller
from contender.features.layouts import Layout, Sums
from contender.features.limits import NAME
from contender.features.spans import Floats, Spans
from contender.features.windows import Window

ALL_TIME = "all"
"""The window that has no beginning."""


@dataclass(frozen=True)
class Aggregation:
    """One feature of a view. A subclass is a kind: it says how the value is computed, on both sides, and in words.

    `name` is `<kind>_<column>_<window>` unless it is given. `where` filters the events. `default` stands in for a null
    where a model is served without the feature. `of` are the features that this one is computed from.
    """

    kind: ClassVar[str]
    """The name of the kind, in documents, references and the name of its function."""

    never_null: ClassVar[bool] = False
    """Whether the value over a window without events is 0 instead of null."""

    least_events: ClassVar[int] = 1
    """The value is null below so many events, unless it is never null."""

    needs_numbers: ClassVar[bool] = True
    """Whether the column must be int or float; else only hashes of the values are compared."""

    is_whole: ClassVar[bool | None] = None
    """Whether values are whole numbers; None: if those of the column are."""

    is_list: ClassVar[bool] = False
    """Whether a value is a list of numbers."""

    column: str | None
    window: str
    name: str
    description: str = ""
    where: Condition | None = None
    of: tuple["Aggregation", ...] = ()
    default: Scalar = None
    location: str = field(default_factory=caller, compare=False, repr=False)

    @property
    def window_s(self) -> float:
        """The length of the window in seconds; infinite over all time."""
        return np.inf if self.window == ALL_TIME else seconds(self.window)

    @property
    def parts(self) -> tuple["Aggregation", ...]:
        """The features that are read from tiles for this one: itself, or those that it is computed from."""
        return self.of or (self,)

    @property
    def parameters(self) -> dict[str, Any]:
        """What a kind has beyond every other, such as the `q` of a quantile, by name."""
        shared = {each.name for each in fields(Aggregation)}
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in shared}

    @property
    def layout(self) -> Layout:
        """The form of the tiles that the feature is read from; meaningless for one that is computed from others."""
        return Sums()

    @property
    def prefix(self) -> str:
        """What the feature's own name begins with."""
        return self.kind

    @property
    def words(self) -> str:
        """The aggregation in words: `mean of dep_delay`."""
        return f"{self.kind} of {self.column}"

    @property
    def filtered_words(self) -> str:
        """The aggregation in words, with its filter."""
        return self.words if self.where is None else f"{self.words} where {self.where.words}"

    def value_type(self, column_type: type | None) -> type:
        """The type of the values, int, float or list, for a column of a type."""
        if self.is_list:
            return list
        return int if self.is_integer(column_type) else float

    def is_integer(self, column_type: type | None) -> bool:
        """Whether values, or those in the lists, are whole numbers."""
        return column_type is int if self.is_whole is None else self.is_whole

    def online(self, window: Window, span: slice) -> list[Any]:
        """The values of some moments, anything where there are fewer events than `least_events`.

        Args:
            window: the cells of all moments.
            span: which moments.
        """
        values: list[Any] = window.remember(self.kind, lambda every: self.of_window(every).tolist())
        return values[span]

    def of_window(self, window: Window) -> Floats:
        """The values of all moments, shape (moments,), for a kind without parameters."""
        raise NotImplementedError

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The values of rows, anything where there are fewer events than `least_events`.

        Args:
            values: of the history, in the order of entity, time and value, shape (events,); hashes where the kind needs
                no numbers.
            spans: the events that each row sees.

        Returns:
            Shape (rows,); of lists shape (rows, entries), NaN beyond the end of a list.
        """
        raise NotImplementedError

    def combine(self, parts: Sequence[Floats]) -> Floats:
        """The values of rows from those of the features in `of`; NaN is null, shape (rows,) each."""
        raise NotImplementedError

    def combine_lists(self, parts: Sequence[Sequence[Any]]) -> list[Any]:
        """The values of rows from those of `parts`, None for null."""
        if not self.of:
            return list(parts[0])
        arrays = [
            np.array([np.nan if value is None else value for value in values], dtype=np.float64) for values in parts
        ]
        combined = self.combine(arrays)
        values: list[Any] = np.where(np.isnan(combined), None, combined).tolist()  # type: ignore[call-overload]
        return values


Features = tuple[Aggregation, ...]
"""What the functions of kinds return: one feature per window."""


class OfColumn(Aggregation):
    """A kind that has no parameters."""

    @classmethod
    def over(
        cls,
        column: str,
        *windows: str,
        name: str = "",
        description: str = "",
        where: Condition | None = None,
        default: Scalar = None,
    ) -> Features:
        """The aggregation of a column over each of some windows."""
        return over_windows(
            cls, windows, column=column, name=name, description=description, where=where, default=default
        )


def over_windows(kind: type[Aggregation], windows: Sequence[str], *, name: str, **values: Any) -> Features:
    """One feature of a kind per window.

    Raises:
        DefinitionError: a window is missing or not a duration, several have one name, or the filter is not a condition.
    """
    location = caller()
    check_filter(values.get("where"), location)
    if not windows:
        raise DefinitionError(f"{kind.kind} takes at least one window, such as '1h' or 'all'", location)
    if name and len(windows) > 1:
        raise DefinitionError(f"{name!r} can name one window only; leave name= out", location)
    features = []
    for window in windows:
        _check_window(kind, window, location)
        feature = kind(window=window, name=name, **values)
        named = "_".join([feature.prefix, *([feature.column] if feature.column else []), window])
        features.append(with_name(feature, name or named))
    return tuple(features)


def with_name(feature: Aggregation, name: str) -> Aggregation:
    """The feature under a name.

    Raises:
        DefinitionError: it can't be a feature's name.
    """
    if not NAME.fullmatch(name):
        raise DefinitionError(
            f"{name!r} can't be a feature's name: it takes lower-case letters, digits and single underscores, at "
            "most 63, a letter first; give another one with name=",
            feature.location,
        )
    return replace(feature, name=name)


def sharing(parts: Iterable[Aggregation]) -> list[list[Aggregation]]:
    """The parts of features in groups that are read from the same tiles: of one filter, column and layout.

    A part without a column joins the first sums of its filter. The last part of a group has its column and layout.
    """
    groups: dict[tuple[str, str, Layout], list[Aggregation]] = {}
    without_column: dict[str, list[Aggregation]] = {}
    for part in parts:
        where = repr(part.where)
        if part.column is None:
            without_column.setdefault(where, []).append(part)
        else:
            groups.setdefault((where, part.column, part.layout), []).append(part)
    for where, counts in without_column.items():
        columns = [column for filter_, column, layout in groups if (filter_, layout) == (where, Sums())]
        key = (where, min(columns, default=""), Sums())
        groups[key] = [*counts, *groups.get(key, [])]
    return list(groups.values())


def _check_window(kind: type[Aggregation], window: str, location: str) -> None:
    if window != ALL_TIME:
        try:
            seconds(window)
        except DefinitionError as error:
            raise DefinitionError(f"window of {kind.kind}: {error}, or 'all' for all time", location) from error
