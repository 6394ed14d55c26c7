"""What on-demand functions take and give, by declared types: one rule for serving and for training sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from contender.contracts.values import Scalar
from contender.features.errors import DefinitionError
from contender.features.limits import MOST_EXACT
from contender.features.on_demand import Array, OnDemandView

Values: TypeAlias = "Sequence[Any] | Array"
"""One value per row: a sequence in which a null is None, or of numbers an array in which it is NaN."""

_NUMBER = (int, float, np.integer, np.floating, np.bool_)
_NUMERIC_DTYPES = "biuf"
_SHOWN = (str, int, float)


@dataclass(frozen=True, slots=True)
class Computed:
    """An on-demand feature of rows: its values in the declared type, anything where they are `missing`.

    Both have shape (rows,). Values are float64, int64, bool or, of text, objects.
    """

    values: Array
    missing: NDArray[np.bool_]

    @property
    def listed(self) -> list[Scalar]:
        """The values one by one, None where they are missing."""
        values: list[Scalar] = self.values.tolist()
        return [None if gone else value for value, gone in zip(values, self.missing.tolist(), strict=True)]


def computed(view: OnDemandView, columns: Sequence[tuple[type, Values]]) -> dict[str, Computed]:
    """The features of an on-demand view.

    Args:
        view: the view.
        columns: type and values of each request column, then of each input.

    Raises:
        DefinitionError: the function fails, or gives what is not of the declared type.
    """
    features = view.compute([to_argument(values, kind) for kind, values in columns])
    return {name: to_result(view, name, array) for name, array in features.items()}


def to_argument(values: Values, kind: type) -> Array:
    """Values as a function takes them, in an array of its own.

    Args:
        values: one per row.
        kind: the declared type: str, int, float, bool, or list for those of last_n.

    Returns:
        Shape (rows,): float64 with NaN for null, or of text and lists objects with None.
    """
    if kind not in (str, list):
        if isinstance(values, np.ndarray):
            return np.array(values, dtype=np.float64)
        return np.array([nan if value is None else float(value) for value in values], dtype=np.float64)
    own = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # numpy would take lists of one length for a second dimension
        own[row] = list(value) if isinstance(value, list) else value
    return own


def to_result(view: OnDemandView, name: str, array: Array) -> Computed:
    """A function's array as a feature in its declared type; refuses what is not of that type."""
    kind = view.features[name]
    if kind is str:
        return _texts(view, name, array)
    if not len(array):
        return Computed(np.zeros(0, dtype=kind), np.zeros(0, dtype=np.bool_))
    numbers = _numbers(view, name, array)
    missing = ~np.isfinite(numbers)
    known = np.where(missing, 0.0, numbers)
    if kind is int:
        _check_exact(view, name, array, known)
    return Computed(known.astype(kind), missing)


def _texts(view: OnDemandView, name: str, array: Array) -> Computed:
    values = np.empty(len(array), dtype=object)
    for row, value in enumerate(array.tolist()):
        if isinstance(value, str):
            values[row] = str(value)
        elif not (value is None or (isinstance(value, float | np.floating) and isnan(value))):
            _refuse_type(view, name, value)
    return Computed(values, np.array([value is None for value in values.tolist()], dtype=np.bool_))


def _numbers(view: OnDemandView, name: str, array: Array) -> NDArray[np.float64]:
    """As float64, NaN for None; text is not a number, even if it reads like one."""
    if array.dtype == object:
        for value in array.tolist():
            if value is not None and not isinstance(value, _NUMBER):
                _refuse_type(view, name, value)
    elif array.dtype.kind not in _NUMERIC_DTYPES:
        _refuse_type(view, name, array.tolist()[0])
    try:
        return array.astype(np.float64)
    except OverflowError:
        _refuse(view, name, "beyond all float64")


def _check_exact(view: OnDemandView, name: str, array: Array, known: NDArray[np.float64]) -> None:
    """Refuse whole numbers that float64 does not tell apart; in float64 the first of them is 2**53 itself."""
    for row in np.flatnonzero(np.abs(known) >= MOST_EXACT).tolist():
        value = cast("float", array[row : row + 1].tolist()[0])
        if not -MOST_EXACT <= value <= MOST_EXACT:
            _refuse(view, name, f"{value}, beyond 2**53, up to which whole numbers are exact")


def _refuse_type(view: OnDemandView, name: str, value: object) -> NoReturn:
    reason = f"{value!r:.100}" if isinstance(value, _SHOWN) else f"a {type(value).__name__}"
    _refuse(view, name, f"{reason}, not {view.features[name].__name__}")


def _refuse(view: OnDemandView, name: str, reason: str) -> NoReturn:
    raise DefinitionError(f"on-demand view {view.name!r}: feature {name!r} is {reason}", view.location)
