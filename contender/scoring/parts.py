"""The parts of an output: what a run has scored, kept so that the next one goes on from there."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from contender.application_calls import Refusal
from contender.contracts.ab_router import Prediction
from contender.errors import ContenderError

_RUN = "run.json"
_ANSWERED = ("prediction_id", "version", "experiment", "variant", "degraded")
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


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a file's rows; `first_error` is that of the first refused row."""

    rows: int
    refused: int
    first_error: str


class Parts:
    """The parts of an output, one file for each call."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self.run = run
        self._known = {int(path.stem) for path in folder.glob("*.parquet")}

    @classmethod
    def open(cls, target: Path, description: Mapping[str, Any]) -> "Parts":
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
        parts = [pl.scan_parquet(path) for path in paths] or [output(0, [], []).lazy()]
        _replace(target, pl.concat(parts, how="vertical_relaxed").sink_parquet)
        errors = pl.scan_parquet(target).filter(pl.col("error").is_not_null()).select("row", "error")
        first = errors.head(1).collect()
        rows, refused = (frame.select(pl.len()).collect().item() for frame in (pl.scan_parquet(target), errors))
        shutil.rmtree(self.folder)
        return Scored(rows, refused, f"row {first['row'][0]}: {first['error'][0]}" if len(first) else "")


def output(start: int, units: Sequence[str | None], answers: Sequence[Prediction | Refusal | str]) -> pl.DataFrame:
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


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is whole whenever it is there, even after a crash."""
    new = path.with_name(f"{path.name}.new")
    write(new)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(path)
