"""Training rows as people hold them: pandas, polars or numpy, a Series or list of texts; checked column by column."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import FLOAT32_MAX
from contender.contracts.values import Dtype, Scalar
from contender.errors import ExportError

NULL_TEXTS = {"nan": "\u2400nan", "None": "\u2400None"}
"""How a graph writes a null text, by what the training data had for it: nobody types the first character."""


def null_text(value: Any) -> str:
    """What stands in a graph for None or NaN among texts."""
    return NULL_TEXTS["None" if value is None else "nan"]


@dataclass(frozen=True)
class Column:
    """One column of the rows: its name as callers write it, its type, and what its nulls are."""

    name: str
    dtype: Dtype
    whole: bool
    nulls: int
    null_text: str = ""

    def input(self, tensor: str, source: str, default: Scalar, *, required: bool) -> InputColumn:
        """The column as the manifest has it."""
        text = self.null_text if self.dtype == "string" else ""
        return InputColumn(self.name, self.dtype, source, default, required, tensor, text)


@dataclass(frozen=True)
class Rows:
    """Rows, checked: as pandas, with named columns, and as the pipeline takes them."""

    frame: pd.DataFrame
    columns: list[Column]
    kind: str

    @classmethod
    def of(cls, data: Any) -> "Rows":
        """Read rows of any of the kinds.

        Raises:
            ExportError: the data is of another kind or empty, or the named column has values that no model takes.
        """
        frame, kind = _frame(data)
        if frame.empty:
            raise ExportError(
                "the frame is empty; pass at least one row so that the ONNX scores can be compared with scikit-learn's"
            )
        names = [str(name) for name in frame.columns]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ExportError(f"several columns are called {repeated[0]}: give each column a name of its own")
        columns = [_column(name, frame.iloc[:, number]) for number, name in enumerate(names)]
        return cls(frame, columns, kind)

    def __len__(self) -> int:
        return len(self.frame)

    def subset(self, rows: Any) -> "Rows":
        """Some of the rows, by their positions."""
        return replace(self, frame=self.frame.iloc[rows])

    def with_columns(self, frame: pd.DataFrame) -> "Rows":
        """Other rows of the same columns."""
        return replace(self, frame=frame)

    def retyped(self, dtypes: Mapping[str, Dtype]) -> "Rows":
        """The rows, with other types for callers."""
        return replace(
            self, columns=[replace(column, dtype=dtypes.get(column.name, column.dtype)) for column in self.columns]
        )

    def replaced(self, index: int, value: Any) -> "Rows":
        """The rows, in which one column has one value throughout."""
        frame = self.frame.copy()
        name = frame.columns[index]
        kind = frame.dtypes.iloc[index]
        if isinstance(kind, pd.CategoricalDtype) and value is not None:
            frame[name] = frame[name].astype(object)
        if value is None and (pd.api.types.is_integer_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
            frame[name] = np.nan
        elif value is None:
            null = None if self.columns[index].null_text.endswith("None") else np.nan
            frame[name] = pd.Series([null] * len(frame), index=frame.index, dtype=_nullable(kind))
        else:
            frame[name] = pd.Series([value] * len(frame), index=frame.index)
        return self.with_columns(frame)

    def filled(self, inputs: Sequence[InputColumn]) -> "Rows":
        """The rows, in which a column's default stands in for its nulls, as a service does it."""
        frame = self.frame
        for index, column in enumerate(inputs):
            if column.default is not None and bool(frame.iloc[:, index].isna().any()):
                name = frame.columns[index]
                series = frame[name].astype(object)
                kept = series.where(series.notna(), column.default)
                frame = frame.copy()
                frame[name] = kept.infer_objects() if column.dtype != "string" else kept
        return self if frame is self.frame else self.with_columns(frame)

    def native(self) -> Any:
        """The rows in the caller's own type, in which the pipeline was fitted."""
        if self.kind == "numpy":
            return self.frame.to_numpy()
        if self.kind == "Series":
            return self.frame.iloc[:, 0]
        if self.kind == "polars":
            import polars as pl  # noqa: PLC0415 - whoever gives polars has it

            kinds = {"float": pl.Float64, "string": pl.String}  # else polars finds no type where all is null
            return pl.DataFrame(
                [
                    pl.Series(column.name, self.values(number), dtype=kinds.get(column.dtype))
                    for number, column in enumerate(self.columns)
                ]
            )
        return self.frame

    def values(self, number: int) -> list[Scalar]:
        """A column as a caller sends it: null for what is missing."""
        series, column = self.frame.iloc[:, number], self.columns[number]
        kinds: dict[str, Any] = {"float": float, "integer": int, "boolean": bool, "string": str}
        kind = kinds[column.dtype]
        return [
            None if missing else kind(value)
            for value, missing in zip(series.tolist(), series.isna().tolist(), strict=True)
        ]

    def inputs(self) -> dict[str, list[Scalar]]:
        """Every column as a caller sends it."""
        return {column.name: self.values(number) for number, column in enumerate(self.columns)}


def _nullable(kind: Any) -> Any:
    return kind if not isinstance(kind, np.dtype) else (object if kind.kind in "OUS" else np.float64)


def _frame(data: Any) -> tuple[pd.DataFrame, str]:
    if isinstance(data, pd.DataFrame):
        if isinstance(data.columns, pd.MultiIndex):
            raise ExportError(
                "columns have a MultiIndex: give each one name, such as "
                "frame.columns = ['_'.join(map(str, names)) for names in frame.columns]"
            )
        return data.reset_index(drop=True), "pandas"
    if type(data).__module__.partition(".")[0] == "polars":
        if hasattr(data, "columns"):
            return _from_polars(data), "polars"
        return pd.DataFrame({str(data.name) or "x0": data.to_list()}), "Series"
    if isinstance(data, np.ndarray) and data.ndim == 2:  # noqa: PLR2004 - rows and columns
        frame = pd.DataFrame(data, columns=[f"x{number}" for number in range(data.shape[1])])
        return (frame.infer_objects() if data.dtype == object else frame), "numpy"
    flat = not isinstance(data, np.ndarray) or (data.ndim == 1 and data.dtype.names is None)
    if isinstance(data, pd.Series | np.ndarray | list) and flat:
        series = pd.Series(data) if not isinstance(data, pd.Series) else data
        if series.map(lambda value: isinstance(value, str)).all():
            name = "x0" if series.name is None else str(series.name)
            return series.reset_index(drop=True).to_frame(name), "Series"
    raise ExportError(
        f"columns are a {type(data).__name__}: give the rows as a frame of pandas or polars, or as an array of shape "
        "(rows, columns), or texts as a Series"
    )


def _from_polars(data: Any) -> pd.DataFrame:
    frame = data.collect() if hasattr(data, "collect") else data
    return pd.DataFrame({name: pd.Series(frame[name].to_list(), dtype=_kept(frame[name])) for name in frame.columns})


def _kept(series: Any) -> Any:
    """The pandas type that keeps what polars has; None leaves it to pandas."""
    if series.dtype.is_integer() and not series.null_count():
        return np.uint64 if str(series.dtype) == "UInt64" else np.int64
    if series.dtype.is_numeric():
        return np.float64
    return object if series.null_count() else None  # pandas would make NaN of the None that the pipeline was fitted to


def _column(name: str, series: "pd.Series[Any]") -> Column:
    dtype, whole = _dtype(name, series)
    nulls = int(series.isna().sum())
    if dtype == "string":
        return Column(name, dtype, whole, nulls, _null_of(name, series) if nulls else "")
    if dtype == "boolean" and nulls:
        dtype = "float"  # there is no null among booleans: callers send 1, 0 or null
    if dtype == "float":
        numbers = pd.to_numeric(series.astype(object), errors="coerce").astype(float)
        if (infinite := int(np.isinf(numbers).sum())) > 0:
            raise ExportError(
                f"column {name} holds infinity in {infinite} rows, which no request can hold: fit and register with "
                "frame.replace([numpy.inf, -numpy.inf], numpy.nan), or with a large number in its place"
            )
        if (large := int((numbers.abs() > FLOAT32_MAX).sum())) > 0:
            raise ExportError(
                f"column {name} holds numbers beyond 32-bit floats in {large} rows, which no service takes: fit and "
                f"register with smaller ones, such as frame[{name!r}].clip(-1e38, 1e38)"
            )
        whole = bool((numbers.dropna() == numbers.dropna().round()).all())
    return Column(name, dtype, whole, nulls)


def _dtype(name: str, series: "pd.Series[Any]") -> tuple[Dtype, bool]:
    kind = series.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return _dtype(name, pd.Series(kind.categories))
    if pd.api.types.is_bool_dtype(kind):
        return "boolean", True
    if pd.api.types.is_integer_dtype(kind):
        return "integer", True
    if pd.api.types.is_float_dtype(kind):
        return "float", False
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        raise ExportError(
            f"column {name} holds times ({kind}): fit on numbers made of them, such as frame[{name!r}].dt.hour or the "
            "days between two columns"
        )
    held = pd.api.types.infer_dtype(series.astype(object), skipna=True)
    if held == "empty":
        raise ExportError(f"column {name} holds nothing but nulls: leave it out, or fill it")
    fitting: dict[str, tuple[Dtype, bool]] = {
        "string": ("string", False),
        "boolean": ("boolean", True),
        "integer": ("integer", True),
        "floating": ("float", False),
        "mixed-integer-float": ("float", False),
    }
    if held not in fitting:
        raise ExportError(
            f"column {name} has dtype {kind} with {held} values; convert it to numbers, text or booleans, such as "
            f"frame[{name!r}].astype(str)"
        )
    return fitting[held]


def _null_of(name: str, series: "pd.Series[Any]") -> str:
    """How the graph writes the column's null text."""
    nulls = [value for value in series[series.isna()].tolist() if value is not pd.NA]
    kinds = {null_text(value) for value in nulls} or {null_text(math.nan)}
    if len(kinds) > 1:
        raise ExportError(
            f"column {name} holds both None and NaN, which a pipeline tells apart and a request does not: fit with one "
            f"of them, such as frame[{name!r}].where(frame[{name!r}].notna(), None)"
        )
    return kinds.pop()
