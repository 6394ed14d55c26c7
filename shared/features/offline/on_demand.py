"""On-demand features of a training set: the function that also serves, over the columns that it needs."""

from math import isnan, nan
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.features.errors import TrainingSetError
from shared.features.offline.tables import Opened
from shared.features.on_demand import OnDemandView


def computed(view: OnDemandView, rows: Opened, inputs: list[pl.Series]) -> dict[str, pl.Series]:
    """The features of an on-demand view.

    Args:
        view: the view.
        rows: have its request columns.
        inputs: its inputs, shape (rows,) each.

    Raises:
        TrainingSetError: a request column is missing or of another type, or a feature is not of its own.
        DefinitionError: the function fails.
    """
    request = rows.frame.select(
        _requested(rows, name, kind, view).alias(name) for name, kind in view.request.items()
    ).collect()
    found = view.compute([_array(column) for column in [*request.get_columns(), *inputs]])
    return {name: _series(view, name, values) for name, values in found.items()}


def _requested(rows: Opened, name: str, kind: Any, view: OnDemandView) -> pl.Expr:
    try:
        return rows.column(name, kind)
    except TrainingSetError as error:
        raise TrainingSetError(f"{error}; on-demand view {view.name!r} takes it from the request") from error


def _array(column: pl.Series) -> NDArray[Any]:
    """As the function takes it: float64 with NaN for null, or objects for text and lists."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return np.asarray(column.cast(pl.Float64).fill_null(nan).to_numpy())
    values = np.empty(len(column), dtype=object)
    values[:] = pl.Series(column.to_list(), dtype=pl.Object).to_numpy() if len(column) else []
    return values


def _series(view: OnDemandView, name: str, values: NDArray[Any]) -> pl.Series:
    """As a column: NaN and infinity are null."""
    kind = view.features[name]
    if kind is str:
        listed = values.tolist()
        missing = [value is None or (isinstance(value, float) and isnan(value)) for value in listed]
        texts = [None if gone else str(value) for value, gone in zip(listed, missing, strict=True)]
        return pl.Series(name, texts, dtype=pl.String)
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TrainingSetError(f"on-demand view {view.name!r}: {name} is not {kind.__name__}: {error}") from error
    unknown = ~np.isfinite(numbers)
    whole = np.where(unknown, 0.0, numbers)
    typed = whole if kind is float else whole.astype(np.int64 if kind is int else np.bool_)
    return pl.Series(name, typed).set(pl.Series(unknown), None)
