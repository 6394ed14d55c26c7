"""Which columns of a file make the rows of a call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from contender.contracts.feature_ref import FeatureRef
from contender.contracts.feature_service import ViewDescription
from contender.contracts.inference_service import ModelVersion
from contender.contracts.values import REQUEST
from contender.errors import ContenderError

_TIME = "\0time"
"""The column of the rows' times in seconds; no column of a file has the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowColumns:
    """Which columns of a file make the parts of a row.

    Attributes:
        unit: the column of units.
        time: of times, as dates or seconds since the Unix epoch; None: the time of the call.
        context: columns that are recorded as context.
        entities: the column by the name of each join key.
        inputs: columns that are sent as inputs.
    """

    unit: str
    time: str | None = None
    context: Sequence[str] = ()
    entities: Mapping[str, str]
    inputs: Sequence[str]

    def expressions(self, schema: pl.Schema) -> list[pl.Expr]:
        """The columns as a call takes them: a number that is none becomes null, a date the seconds since 1970."""
        names = dict.fromkeys([self.unit, *self.context, *self.entities.values(), *self.inputs])
        columns = [_sendable(pl.col(name), schema[name]) for name in names]
        if self.time:
            time = pl.col(self.time)
            seconds = time.dt.epoch("us") / 1e6 if schema[self.time].is_temporal() else time.cast(pl.Float64)
            columns.append(seconds.alias(_TIME))
        return columns

    def rows(self, frame: pl.DataFrame) -> list[dict[str, Any]]:
        """The rows of a frame of `expressions`, as a call takes them."""
        return [
            {
                "unit": "" if values[self.unit] is None else str(values[self.unit]),
                "time": values.get(_TIME),
                "entities": {key: values[name] for key, name in self.entities.items()},
                "context": {name: values[name] for name in self.context},
                "inputs": {name: values[name] for name in self.inputs},
            }
            for values in frame.iter_rows(named=True)
        ]


def columns_of(
    names: Sequence[str],
    versions: Sequence[ModelVersion],
    views: Sequence[ViewDescription],
    *,
    unit: str,
    time: str | None = None,
    context: Sequence[str] = (),
    entities: Mapping[str, str] | None = None,
) -> RowColumns:
    """The columns that a model's versions and their features take from a file; others of the file are left out.

    Args:
        names: the file's columns.
        versions: of the model.
        views: the features' definitions.
        unit: the column of units.
        time: the column of times.
        context: columns that are recorded as context.
        entities: the column by join key; default: the one of the key's own name.

    Raises:
        ContenderError: a named column, or that of a join key, is missing.
    """
    named = entities or {}
    for name in (unit, *([time] if time else []), *context, *named.values()):
        if name not in names:
            raise ContenderError(f"the file has no column {name}; it has {', '.join(names)}")
    sources = [column.source for version in versions for column in version.inputs]
    wanted = {column.name for version in versions for column in version.inputs if column.source == REQUEST}
    labels = {FeatureRef.parse(source).label for source in sources if source != REQUEST}
    keys: set[str] = set()
    for view in views:
        if view.label in labels or (view.newest and view.name in labels):
            keys.update(view.join_keys)
            wanted.update(view.request)
    by_key = {key: named.get(key, key) for key in sorted(keys)}
    for key, name in by_key.items():
        if name not in names:
            raise ContenderError(
                f"the model's features are looked up by {key}, and the file has no such column: name it with "
                f"--entity {key}=COLUMN"
            )
    inputs = [name for name in names if name in wanted]
    return RowColumns(unit=unit, time=time, context=context, entities=by_key, inputs=inputs)


def _sendable(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return column.fill_nan(None)
    if isinstance(dtype, pl.Decimal):
        return column.cast(pl.Float64)
    if dtype.is_temporal() or isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return column
