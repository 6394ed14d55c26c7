"""On-demand features of a training set: the function that also serves, over the columns that it needs."""

from math import nan
from typing import Any

import numpy as np
import polars as pl

from contender.features import OnDemandView, TrainingSetError
from contender.features.arrays import Computed, Values, computed
from contender.features.limits import MOST_EXACT
from contender.features.offline.tables import TYPES, SourceTable


def on_demand_features(
    view: OnDemandView, rows: SourceTable, inputs: list[tuple[type, pl.Series]]
) -> dict[str, pl.Series]:
    """The features of an on-demand view.

    Args:
        view: the view.
        rows: have its request columns.
        inputs: type and values of its inputs, shape (rows,) each.

    Raises:
        TrainingSetError: a request column is missing, of another type, or holds whole numbers beyond 2**53.
        DefinitionError: the function fails, or a feature is not of its type.
    """
    request = rows.frame.select(
        _requested(rows, name, kind, view).alias(name) for name, kind in view.request.items()
    ).collect()
    columns = [*zip(view.request.values(), request.get_columns(), strict=True), *inputs]
    for kind, column in columns[: len(view.request)]:
        _check_exact(rows, kind, column)
    features = computed(view, [(kind, _values(kind, column)) for kind, column in columns])
    return {name: _series(name, view.features[name], feature) for name, feature in features.items()}


def _requested(rows: SourceTable, name: str, kind: Any, view: OnDemandView) -> pl.Expr:
    try:
        return rows.column(name, kind)
    except TrainingSetError as error:
        raise TrainingSetError(f"{error}; on-demand view {view.name!r} takes it from the request") from error


def _check_exact(rows: SourceTable, kind: type, column: pl.Series) -> None:
    """Refuse what a request may not bring either."""
    if kind is int and not column.is_between(-MOST_EXACT, MOST_EXACT).all():  # nulls aside
        raise TrainingSetError(
            f"{rows.where}: column {column.name!r} goes beyond 2**53, up to which whole numbers are exact"
        )


def _values(kind: type, column: pl.Series) -> Values:
    if kind in (str, list):
        return column.to_list()
    return np.asarray(column.cast(pl.Float64).fill_null(nan).to_numpy())


def _series(name: str, kind: type, feature: Computed) -> pl.Series:
    if kind is str:
        return pl.Series(name, feature.listed, dtype=pl.String)
    return pl.Series(name, feature.values, dtype=TYPES[kind]).set(pl.Series(feature.missing, dtype=pl.Boolean), None)
