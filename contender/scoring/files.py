"""Scores the rows of a Parquet file through the router, so that each row is scored and recorded once.

Every call has a `request_id` of its own, and its answers are kept as a part of the output before they count as done. A
run that was ended in the middle is continued by the next one with the same arguments: parts that are there are not
asked for again, and a call that was under way gets the answers of the first time.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from contender.client import Client
from contender.errors import ContenderError
from contender.scoring.asking import Asking
from contender.scoring.columns import RowColumns
from contender.scoring.parts import Parts, Scored, output

_READ_ROWS = 50_000


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
    waiting: Callable[[ContenderError], None] = lambda _: None,
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
        waiting: is told the error before a call is tried again; several threads call it.

    Raises:
        ContenderError: the file can't be read, the parts are those of another run, or the router refuses the call.
    """
    _, total = describe(source)
    parts = Parts.open(target, _run_of(source, model, columns, batch_rows))

    asking = Asking(client, model, wait_s, waiting)

    def score(start: int, frame: pl.DataFrame) -> int:
        answers = asking.ask(columns.rows(frame), f"{parts.run}-{start}")
        parts.write(start, output(start, frame[columns.unit].cast(pl.String).to_list(), answers))
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
            asking.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return parts.finish(target)


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
