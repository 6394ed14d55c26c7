"""Tables as people have them: polars or pandas frames, Parquet or CSV files. Checked, with times in seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import polars as pl

from contender.features import ColumnType, EventSource, TrainingSetError
from contender.features.limits import MOST_CHARACTERS, MOST_EXACT, MOST_MAGNITUDE
from contender.features.tiles import Floats

if TYPE_CHECKING:
    import pandas as pd

Table: TypeAlias = "pl.DataFrame | pd.DataFrame | Path | str"
"""A frame, or the path or pattern of Parquet or CSV files."""

TIME = "time"
LATEST_S = 1e11
"""Seconds beyond this (the year 5138) are taken for milliseconds."""

TYPES: Mapping[type, Any] = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}
"""How polars calls the types of definitions."""

_MICROSECONDS = 1e6
_INFERRED_ROWS = 10_000
_MEANT: dict[ColumnType, str] = {str: "text", int: "whole numbers", float: "numbers", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that is read when it is asked for. `files` are those it lies in, none for a frame."""

    where: str
    frame: pl.LazyFrame
    schema: pl.Schema
    files: tuple[Path, ...] = ()

    @classmethod
    def of(cls, table: Table, where: str, types: Mapping[str, Any]) -> Self:
        """Open a table.

        Args:
            table: the frame or path.
            where: what errors call it.
            types: polars types of columns that a CSV file would leave to be guessed.

        Raises:
            TrainingSetError: there is no such file, or it is neither Parquet nor CSV.
        """
        files: tuple[Path, ...] = ()
        if isinstance(table, str | Path):
            files = _files(str(table), where)
            where = f"{where} ({table})"
            lazy = _scanned(files, where, types)
        else:
            lazy = (table if isinstance(table, pl.DataFrame) else _from_pandas(table, where)).lazy()
        return cls(where, lazy, lazy.collect_schema(), files)

    def column(self, name: str, kind: ColumnType) -> pl.Expr:
        """A column in the type of polars that stands for `kind`.

        Raises:
            TrainingSetError: there is no such column, or it is of another type.
        """
        dtype = self._type(name)
        fits = {
            str: dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum),
            int: dtype.is_integer(),
            float: dtype.is_numeric(),
            bool: dtype == pl.Boolean,
        }[kind]
        if not fits and dtype != pl.Null:  # nothing but nulls, which are looked for later
            raise TrainingSetError(f"{self.where}: column {name!r} is {dtype}, not {_MEANT[kind]} ({kind.__name__})")
        return pl.col(name).cast(TYPES[kind])

    def key(self, name: str) -> pl.Expr:
        """A join key as text, as online: 17 and "17" are the same entity.

        Raises:
            TrainingSetError: there is no such column, or it is neither text nor whole numbers.
        """
        return (self.column(name, int) if self._type(name).is_integer() else self.column(name, str)).cast(pl.String)

    def seconds(self, name: str) -> pl.Expr:
        """A column of times in seconds since the Unix epoch; datetimes are converted, those without a zone are UTC.

        Raises:
            TrainingSetError: there is no such column, or it holds no times.
        """
        dtype = self._type(name)
        if isinstance(dtype, pl.Datetime):
            return pl.col(name).dt.epoch("us").cast(pl.Float64) / _MICROSECONDS
        if dtype == pl.Date:
            return pl.col(name).cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / _MICROSECONDS
        if not dtype.is_numeric():
            raise TrainingSetError(
                f"{self.where}: column {name!r} is {dtype}; a time is seconds since the Unix epoch, or a datetime"
            )
        return pl.col(name).cast(pl.Float64)

    def check(self, times: Iterable[str], columns: Iterable[str]) -> int:
        """Check columns as events are checked; returns how many rows there are.

        Raises:
            TrainingSetError: a column holds nulls, NaN or infinity, values that no event may have, or times that are
                not seconds since 1970.
        """
        seconds = {name: self.seconds(name) for name in times}
        names = list(dict.fromkeys([*seconds, *columns]))
        values = {name: seconds.get(name, pl.col(name)) for name in names}
        floats = [name for name in names if name in seconds or self.schema[name].is_float()]
        facts = self.frame.select(
            pl.len().alias("rows"),
            *(pl.col(name).null_count().alias(f"nulls {name}") for name in names),
            *((~values[name].is_finite()).sum().alias(f"odd {name}") for name in floats),
            *(values[name].abs().max().alias(f"most {name}") for name in seconds),
            *(values[name].min().alias(f"least {name}") for name in seconds),
            *(_beyond(name, self.schema[name]).sum().alias(f"beyond {name}") for name in names if name not in seconds),
        )
        counts = facts.collect(engine="streaming").row(0, named=True)
        for name in names:
            if nulls := counts[f"nulls {name}"]:
                raise TrainingSetError(f"{self.where}: column {name!r} holds {nulls} nulls; leave those rows out")
            if counts.get(f"odd {name}"):
                raise TrainingSetError(f"{self.where}: column {name!r} holds NaN or infinity; leave those rows out")
            if (counts.get(f"most {name}") or 0.0) > LATEST_S:
                raise TrainingSetError(
                    f"{self.where}: column {name!r} goes to {counts[f'most {name}']:.0f}, too far for seconds: divide "
                    "milliseconds by 1000, or give datetimes"
                )
            if (counts.get(f"least {name}") or 0.0) < 0.0:
                raise TrainingSetError(f"{self.where}: column {name!r} goes back before 1970; leave those rows out")
            if beyond := counts.get(f"beyond {name}"):
                raise TrainingSetError(
                    f"{self.where}: column {name!r} holds {beyond} values that no event may have: text of 1 to "
                    f"{MOST_CHARACTERS} characters, whole numbers up to 2**53, others up to {MOST_MAGNITUDE:g}"
                )
        return int(counts["rows"])

    def _type(self, name: str) -> pl.DataType:
        if name not in self.schema:
            names = ", ".join(self.schema)
            raise TrainingSetError(f"{self.where} have no column {name!r}; there are {names}")
        return self.schema[name]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows of a training set with their times in seconds, shape (rows,)."""

    frame: pl.DataFrame
    times: Floats
    opened: SourceTable

    @classmethod
    def of(cls, table: Table, types: Mapping[str, Any]) -> Self:
        """Read the rows.

        Args:
            table: the frame or path.
            types: polars types of join keys and request columns, which a CSV file would leave to be guessed.

        Raises:
            TrainingSetError: they have no usable column `time`, or a CSV file holds values of other types.
        """
        opened = SourceTable.of(table, "rows", types)
        opened.check([TIME], [])
        try:
            frame = opened.frame.collect()
        except pl.exceptions.ComputeError as error:
            raise TrainingSetError(f"{opened.where} can't be read: {error}") from error
        times: Floats = frame.select(opened.seconds(TIME).alias(TIME))[TIME].to_numpy()
        return cls(frame, times + 0.0, SourceTable(opened.where, frame.lazy(), opened.schema, opened.files))

    def keys(self, join_keys: Iterable[str]) -> pl.DataFrame:
        """Join keys as text, columns `key 0`, `key 1`, …; null where a row names nobody.

        Raises:
            TrainingSetError: a key is missing, or neither text nor whole numbers.
        """
        return self.frame.select(self.opened.key(name).alias(f"key {n}") for n, name in enumerate(join_keys))


def open_events(source: EventSource, events: Mapping[str, Table]) -> SourceTable:
    """The events of a source: those that are given, else its history.

    Raises:
        TrainingSetError: there are none.
    """
    provided = events.get(source.name)
    if provided is None and not source.history:
        raise TrainingSetError(
            f"source {source.name!r} has no events: give a table or a path in events=, or the source a history="
        )
    types = {name: TYPES[kind] for name, kind in source.schema.items()}
    table = source.history if provided is None else provided
    return SourceTable.of(table, f"events of {source.name!r}", types)


def with_features(table: Table, built: pl.DataFrame, columns: Iterable[str]) -> Any:
    """The rows as they were given, with features beside them: pandas with its index and types, else polars.

    Args:
        table: the rows as they were given.
        built: the rows with their features.
        columns: which of its columns are features.
    """
    if type(table).__module__.partition(".")[0] != "pandas":
        return built
    frame: Any = table
    return frame.assign(**{name: _to_pandas(built[name]) for name in columns})


def time_column(opened: SourceTable, source: EventSource) -> str:
    """The source's own timestamp, or `time` where the table lacks it."""
    return source.timestamp if source.timestamp in opened.schema or TIME not in opened.schema else TIME


def _to_pandas(series: pl.Series) -> Any:
    """Values as pandas has them, without pyarrow: numbers with nulls are floats, text and lists with nulls objects."""
    if series.dtype.is_numeric():
        return (series.cast(pl.Float64) if series.null_count() else series).to_numpy()
    if series.dtype == pl.Boolean and not series.null_count():
        return series.to_numpy()
    values = np.empty(len(series), dtype=object)
    values[:] = series.to_list()
    return values


def _beyond(name: str, kind: pl.DataType) -> pl.Expr:
    """Where a column has values that no event may have."""
    column = pl.col(name)
    if kind.is_integer():
        return (column > MOST_EXACT) | (column < -MOST_EXACT)
    if kind.is_float():
        return column.abs() > MOST_MAGNITUDE
    if kind == pl.String or isinstance(kind, pl.Categorical | pl.Enum):
        return ~column.cast(pl.String).str.len_chars().is_between(1, MOST_CHARACTERS)
    return pl.lit(value=False)


def _files(path: str, where: str) -> tuple[Path, ...]:
    matches = tuple(Path(name) for name in sorted(glob(path, recursive=True)))  # noqa: PTH207 - a path with a drive too
    if not matches:
        raise TrainingSetError(f"{where}: there is no file {path!r} (looked for from {Path.cwd()})")
    return matches


def _scanned(files: tuple[Path, ...], where: str, types: Mapping[str, Any]) -> pl.LazyFrame:
    suffixes = {file.suffix for file in files}
    if suffixes == {".parquet"}:
        return pl.scan_parquet(list(files))
    if suffixes == {".csv"}:
        return pl.scan_csv(
            list(files), schema_overrides=types, try_parse_dates=True, infer_schema_length=_INFERRED_ROWS
        )
    raise TrainingSetError(f"{where}: only .parquet or .csv files can be read, all of one kind")


def _from_pandas(table: "pd.DataFrame", where: str) -> pl.DataFrame:
    try:
        return pl.DataFrame([_from_column(str(name), table[name]) for name in table.columns])
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise TrainingSetError(f"{where}: the pandas frame can't be read: {error}") from error


def _from_column(name: str, column: "pd.Series[Any]") -> pl.Series:
    """One column, without pyarrow; missing text is null."""
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufM":
        return pl.Series(name, column.to_numpy())
    return pl.Series(name, column.astype(object).where(column.notna(), None).to_list())
