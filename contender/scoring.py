"""Scores the rows of a Parquet file through the router, so that each row is scored and recorded once.

Every call has a `request_id` of its own, and its answers are kept as a part of the output before they count as done. A
run that was ended in the middle is continued by the next one with the same arguments: parts that are there are not
asked for again, and a call that was under way gets the answers of the first time.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from contender.client import Client, Refusal
from contender.contracts.ab_router import Prediction
from contender.contracts.feature_ref import FeatureRef
from contender.contracts.feature_service import ViewDescription
from contender.contracts.inference_service import ModelVersion
from contender.contracts.values import REQUEST
from contender.errors import ContenderError, RefusedError, UnreachableError
from contender.extras import needs_extra

with needs_extra("notebook", "scoring files"):
    import polars as pl

_RUN = "run.json"
_READ_ROWS = 50_000
_TIME = "\0time"
"""The column of the rows' times in seconds; no column of a file has the name."""

_PAUSE_S = (0.2, 5.0)
_ROW_FIELD = re.compile(r"rows\[(\d+)\]\.(.*)", re.DOTALL)
_ANSWERED = ("prediction_id", "version", "experiment", "variant", "degraded")
_TEMPORARY = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_SCHEMA: Mapping[str, Any] = {
    "row": pl.Int64,
    "unit": pl.String,
    "prediction_id": pl.String,
    "version": pl.String,
    "experiment": pl.String,
    "variant": pl.String,
    "score": None,
    "label": None,
    "degraded": pl.Boolean,
    "error": pl.String,
}
"""The columns of the output; the model decides the types of scores and labels."""


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


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a file's rows; `first_error` is that of the first refused row."""

    rows: int
    refused: int
    first_error: str


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


def describe(source: Path) -> tuple[list[str], int]:
    """The names of a Parquet file's columns, and the number of its rows.

    Raises:
        ContenderError: the file can't be read.
    """
    try:
        table = pl.scan_parquet(source)
        return table.collect_schema().names(), table.select(pl.len()).collect().item()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ContenderError(f"{source} can't be read as Parquet: {error}") from error


def score_file(
    client: Client,
    model: str,
    source: Path,
    target: Path,
    columns: RowColumns,
    *,
    batch_rows: int = 1_000,
    calls: int = 4,
    wait_s: float = 300.0,
    progress: Callable[[int], None] = lambda _: None,
) -> Scored:
    """Score all rows of a Parquet file, and write one with a row for each, in order.

    Args:
        client: calls the router; several threads use it.
        model: who answers; the router assigns each row's unit as always.
        source: the file with the rows.
        target: the file that is written at the end; until then `<target>.parts` holds what is done.
        columns: which make the rows.
        batch_rows: rows of a call.
        calls: calls under way at the same time.
        wait_s: longest that a call is tried again while the router is away or overloaded.
        progress: is told the rows of each part that is done, also of those an earlier run has done.

    Raises:
        ContenderError: the file can't be read, the parts are those of another run, or the router refuses the call.
    """
    _, total = describe(source)
    parts = _Parts.open(target, _run_of(source, model, columns, batch_rows))

    def score(start: int, frame: pl.DataFrame) -> int:
        answers = _answers(client, model, columns.rows(frame), f"{parts.run}-{start}", wait_s)
        parts.write(start, _output(start, frame[columns.unit].cast(pl.String).to_list(), answers))
        return len(frame)

    with ThreadPoolExecutor(calls) as pool:
        under_way: set[Future[int]] = set()
        try:
            for start in range(0, total, batch_rows):
                if parts.has(start):
                    progress(min(batch_rows, total - start))
            for start, frame in _batches(source, columns, total, batch_rows, parts.has):
                while len(under_way) >= 2 * calls:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        progress(future.result())
                under_way.add(pool.submit(score, start, frame))
            for future in under_way:
                progress(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return parts.finish(target)


def _sendable(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return column.fill_nan(None)
    if isinstance(dtype, pl.Decimal):
        return column.cast(pl.Float64)
    if dtype.is_temporal() or isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return column


class _Parts:
    """The parts of an output, one file for each call."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self.run = run
        self._known = {int(path.stem) for path in folder.glob("*.parquet")}

    @classmethod
    def open(cls, target: Path, description: Mapping[str, Any]) -> "_Parts":
        """Those of a run that was begun with the same description, or none yet.

        Raises:
            ContenderError: the folder holds another run's.
        """
        folder = target.with_name(f"{target.name}.parts")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _RUN
        if path.exists():
            begun = json.loads(path.read_text())
            differing = [name for name, value in description.items() if begun.get(name) != value]
            if differing:
                raise ContenderError(
                    f"{folder} holds a run that was begun with another {differing[0]}: finish it with the same "
                    "arguments, or delete the folder"
                )
            return cls(folder, begun["run"])
        begun = {**description, "run": secrets.token_hex(8)}
        _replace(path, lambda new: new.write_text(json.dumps(begun)))
        return cls(folder, begun["run"])

    def has(self, start: int) -> bool:
        """Whether the part that begins with a row is there."""
        return start in self._known

    def write(self, start: int, frame: pl.DataFrame) -> None:
        """Keep a part."""
        _replace(self.folder / f"{start:012}.parquet", frame.write_parquet)

    def finish(self, target: Path) -> Scored:
        """Join the parts, and delete them."""
        paths = sorted(self.folder.glob("*.parquet"))
        parts = [pl.scan_parquet(path) for path in paths] or [_output(0, [], []).lazy()]
        _replace(target, pl.concat(parts, how="vertical_relaxed").sink_parquet)
        errors = pl.scan_parquet(target).filter(pl.col("error").is_not_null()).select("row", "error")
        first = errors.head(1).collect()
        rows, refused = (frame.select(pl.len()).collect().item() for frame in (pl.scan_parquet(target), errors))
        shutil.rmtree(self.folder)
        return Scored(rows, refused, f"row {first['row'][0]}: {first['error'][0]}" if len(first) else "")


def _answers(
    client: Client, model: str, rows: Sequence[Mapping[str, Any]], request_id: str, wait_s: float
) -> Sequence[Prediction | Refusal | str]:
    """The answers to a batch, which is sent again while it may succeed later.

    Raises:
        ContenderError: the router refuses the call, or is away for too long.
    """
    end = time.monotonic() + wait_s
    pause_s = _PAUSE_S[0]
    while True:
        try:
            return client.predict_batch(model, rows, request_id=request_id)
        except RefusedError as error:
            if refusals := _refusals(error, len(rows)):
                return refusals
            if error.status not in _TEMPORARY or time.monotonic() > end:
                raise
        except UnreachableError:
            if time.monotonic() > end:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S[1])


def _refusals(error: RefusedError, rows: int) -> list[str]:
    """Why each row of a batch is refused; empty where the call itself was refused."""
    faults: dict[int, list[str]] = {}
    for fault in error.errors:
        if match := _ROW_FIELD.match(fault.field):
            faults.setdefault(int(match[1]), []).append(f"{match[2]} {fault.message}")
    return ["; ".join(faults.get(row, [str(error)])) for row in range(rows)] if faults else []


def _output(start: int, units: Sequence[str | None], answers: Sequence[Prediction | Refusal | str]) -> pl.DataFrame:
    """The rows of a part."""
    rows = []
    for number, (unit, answer) in enumerate(zip(units, answers, strict=True), start):
        row: dict[str, Any] = {"row": number, "unit": unit}
        if isinstance(answer, Prediction):
            row |= {"score": answer.outputs.score, "label": answer.outputs.label}
            row |= {name: getattr(answer, name) for name in _ANSWERED}
        else:
            row["error"] = answer if isinstance(answer, str) else answer.detail
        rows.append(row)
    return pl.DataFrame(rows, schema=_SCHEMA, infer_schema_length=None)


def _batches(
    source: Path, columns: RowColumns, total: int, batch_rows: int, is_done: Callable[[int], bool]
) -> Iterator[tuple[int, pl.DataFrame]]:
    """The number of the first row and the rows of each batch that is not done."""
    table = pl.scan_parquet(source)
    wanted = table.select(columns.expressions(table.collect_schema()))
    step = max(1, _READ_ROWS // batch_rows) * batch_rows
    for first in range(0, total, step):
        starts = [start for start in range(first, min(first + step, total), batch_rows) if not is_done(start)]
        if starts:
            frame = wanted.slice(first, step).collect()
            for start in starts:
                yield start, frame.slice(start - first, batch_rows)


def _run_of(source: Path, model: str, columns: RowColumns, batch_rows: int) -> dict[str, Any]:
    """What a run is recognised by."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file": digest,
        "model": model,
        "columns": json.loads(msgspec.json.encode(columns)),
        "batch_rows": batch_rows,
    }


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is whole whenever it is there, even after a crash."""
    new = path.with_name(f"{path.name}.new")
    write(new)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)
