"""Whether a file answers as its pipeline, on all rows that were given and on rows changed as live ones may be."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contender.contracts.inference_service import InputColumn
from contender.contracts.tasks import ScoreError, TaskName
from contender.contracts.values import Scalar
from contender.errors import ExportError
from contender.registration.answers import Answered, File, of_pipeline
from contender.registration.conversion import FOREIGN
from contender.registration.rows import Rows

SAMPLE_ROWS = 500
UNSEEN = "a category that training never had"
_SEED = 0
_PERTURBED = 4_000
"""Rows that are changed and tried beside those that were given, about."""
_EACH = 40
_TEXT_LIMIT = 1_000
"""Characters of a text that a service takes unless it is told otherwise: longer ones are left out of the sample."""
_EVEN = 1e-6
"""Within this margin of another class a 32-bit file may name either, on rows that nobody has given."""


@dataclass(frozen=True)
class Comparison:
    """How a file compares with its pipeline over rows: the difference of each, and which labels differ."""

    rows: Rows
    wanted: Answered
    differences: NDArray[np.float64]
    labels_differ: NDArray[np.bool_]

    @property
    def worst(self) -> float:
        """The largest difference of a score; infinite where one side alone has a score."""
        return float(self.differences.max()) if len(self.differences) else 0.0


@dataclass
class Parity:
    """What the comparison found: over the rows that were given, and over changed ones by how they were changed."""

    given: Comparison
    changed: dict[str, Comparison] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows were compared."""
        return sum(len(one.rows) for one in (self.given, *self.changed.values()))

    @property
    def worst(self) -> float:
        """The largest difference of a score."""
        return max(one.worst for one in (self.given, *self.changed.values()))

    @property
    def labels_differ(self) -> int:
        """How many labels differ from the pipeline's own."""
        return sum(int(one.labels_differ.sum()) for one in (self.given, *self.changed.values()))

    def sample(self, task: TaskName) -> dict[str, Any]:
        """Up to SAMPLE_ROWS rows with the pipeline's own answers: the worst of all, and others by chance."""
        parts = [self.given, *self.changed.values()]
        places = [(part, row) for part, one in enumerate(parts) for row in range(len(one.rows)) if _fits(one, row)]
        if not places:
            raise ExportError(f"every row holds a text of more than {_TEXT_LIMIT} characters: give some that do not")
        difference = np.array([parts[part].differences[row] for part, row in places])
        largest = max(range(len(places)), key=lambda n: np.abs(parts[places[n][0]].wanted.scores[places[n][1]]).max())
        worst = [largest, *np.argsort(-difference, kind="stable")[: SAMPLE_ROWS // 2].tolist()]
        given = np.flatnonzero([part == 0 for part, _ in places])
        chance = np.random.default_rng(_SEED).permutation(given)[:SAMPLE_ROWS].tolist()
        chosen = sorted(dict.fromkeys([*worst, *chance]).keys() if len(places) > SAMPLE_ROWS else range(len(places)))
        if len(chosen) > SAMPLE_ROWS:
            kept = set(list(dict.fromkeys([*worst, *chance]))[:SAMPLE_ROWS])
            chosen = [number for number in chosen if number in kept]
        return self._sampled(task, [places[number] for number in chosen])

    def _sampled(self, task: TaskName, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        parts = [self.given, *self.changed.values()]
        inputs: dict[str, list[Scalar]] = {column.name: [] for column in self.given.rows.columns}
        scores: list[Any] = []
        labels: list[Scalar] = []
        for part in range(len(parts)):
            chosen = [row for of, row in places if of == part]
            if not chosen:
                continue
            for name, values in parts[part].rows.taken(chosen).inputs().items():
                inputs[name] += values
            sent = parts[part].wanted.sent(task, chosen)
            scores += sent[0]
            labels += sent[1]
        return {"inputs": inputs, "scores": scores, **({} if task == "regression" else {"labels": labels})}


def _fits(compared: Comparison, row: int) -> bool:
    """Whether a service takes a row as a sample: it has a score, and no overlong text."""
    if not np.isfinite(compared.wanted.scores[row]).all():
        return False
    texts = [n for n, column in enumerate(compared.rows.columns) if column.dtype == "string"]
    return all(len(str(compared.rows.frame.iloc[row, n])) <= _TEXT_LIMIT for n in texts)


@dataclass(frozen=True)
class Comparer:
    """Compares one file with one pipeline."""

    pipeline: Any
    file: File
    task: TaskName
    inputs: Sequence[InputColumn]

    def compare(self, rows: Rows, wanted: Answered | None = None, *, strict: bool = True) -> Comparison:
        """Run rows on both sides; raises whatever either of them raises.

        Args:
            rows: the rows, in which defaults stand in for nulls already.
            wanted: what the pipeline says to them, where that is known.
            strict: whether a label may differ where two classes are all but even.
        """
        wanted = wanted or of_pipeline(self.pipeline, rows, self.task)
        found = self.file.answer(rows.inputs())
        both = np.isfinite(wanted.scores).all(axis=1), np.isfinite(found.scores).all(axis=1)
        scale = max(1.0, float(np.abs(wanted.scores[both[0]]).max())) if both[0].any() else 1.0
        with np.errstate(invalid="ignore"):
            differences = np.abs(found.scores - wanted.scores).max(axis=1) / scale
        differences[~both[0] & ~both[1]] = 0.0
        differences[both[0] != both[1]] = np.inf
        differ = np.array(
            [ours != theirs for ours, theirs in zip(found.labels, wanted.labels, strict=True)], dtype=bool
        )
        if self.task == "regression":
            differ[:] = False
        elif not strict:
            ordered = np.sort(wanted.scores, axis=1)
            differ &= ordered[:, -1] - ordered[:, -2] > _EVEN
        return Comparison(rows, wanted, differences, differ & both[0])

    def refuses(self, rows: Rows) -> tuple[bool, bool]:
        """Whether the pipeline, and whether the file, gives no score to rows."""
        try:
            ours = bool(np.isfinite(of_pipeline(self.pipeline, rows, self.task).scores).all())
        except (*FOREIGN, MemoryError):
            ours = False
        try:
            theirs = bool(np.isfinite(self.file.answer(rows.inputs()).scores).all())
        except (*FOREIGN, ScoreError):
            theirs = False
        return not ours, not theirs


def compare_all(comparer: Comparer, given: Rows, wanted: Answered, *, strict: bool) -> Parity:
    """Compare all rows that were given, and changed ones.

    Args:
        comparer: the file and the pipeline.
        given: the rows, in which defaults stand in for nulls already.
        wanted: what the pipeline says to them.
        strict: whether labels of changed rows may differ where two classes are all but even.
    """
    parity = Parity(comparer.compare(given, wanted))
    whole = {number for number, column in enumerate(given.columns) if column.dtype != "float"}
    for how, changed in changed_rows(given, whole):
        ready = filled(changed, comparer.inputs)
        try:
            answered = of_pipeline(comparer.pipeline, ready, comparer.task)
        except FOREIGN:
            continue  # the pipeline takes no such rows: there is nothing to compare with
        parity.changed[how] = comparer.compare(ready, answered, strict=strict)
    return parity


def changed_rows(rows: Rows, guarded: Collection[int]) -> Iterator[tuple[str, Rows]]:
    """Rows as live ones may be: fractions where training had whole numbers, extremes, and values between.

    Args:
        rows: the rows that were given.
        guarded: places of columns that take whole numbers alone.
    """
    chance = np.random.default_rng(_SEED)
    numbers = [
        place
        for place, column in enumerate(rows.columns)
        if column.dtype == "float"
        and place not in guarded
        and not isinstance(rows.frame.dtypes.iloc[place], pd.CategoricalDtype)
    ]
    if not numbers:
        return
    each = max(2, min(_EACH, _PERTURBED // (4 * len(numbers)), len(rows)))
    values = {place: rows.frame.iloc[:, place].astype(object).map(_number).to_numpy(float) for place in numbers}
    numbers = [place for place in numbers if not np.isnan(values[place]).all()]
    if not numbers:
        return
    spans = {place: (np.nanmin(values[place]), np.nanmax(values[place])) for place in numbers}
    bases = []
    for place in numbers:
        low, high = spans[place]
        picked = chance.integers(0, len(rows), each)
        new = [values[place][picked] + 0.5, values[place][picked] + 0.25, np.full(2, low), np.full(2, high)]
        new.append(chance.uniform(low, high, each))
        made = np.concatenate(new)
        base = np.concatenate([picked, picked, picked[:2], picked[:2], picked])
        bases.append((base, {place: made}))
    picked = chance.integers(0, len(rows), min(len(rows), 5 * _EACH))
    bases.append((picked, {place: chance.uniform(*spans[place], len(picked)) for place in numbers}))
    yield "fractions, extremes and values between", rows.with_columns(_with(rows.frame, values, bases))


def _with(
    frame: pd.DataFrame,
    values: Mapping[int, NDArray[np.float64]],
    bases: Sequence[tuple[NDArray[Any], Mapping[int, NDArray[np.float64]]]],
) -> pd.DataFrame:
    """Rows of the frame by their positions, with other numbers in some columns, as floats; nulls stay."""
    index = np.concatenate([base for base, _ in bases])
    changed = {place: values[place][index] for place in bases[-1][1]}
    begin = 0
    for base, new in bases:
        for place, made in new.items():
            part = changed[place][begin : begin + len(base)]
            part[:] = np.where(np.isnan(part), np.nan, made)
        begin += len(base)
    taken = frame.iloc[index].reset_index(drop=True)
    columns = [pd.Series(changed[n]) if n in changed else taken.iloc[:, n] for n in range(frame.shape[1])]
    return pd.concat(columns, axis=1).set_axis(frame.columns, axis=1)


def _number(value: Any) -> float:
    return np.nan if value is None or value is pd.NA else float(value)


def replaced(rows: Rows, place: int, value: Any) -> Rows:
    """Rows in which one column has one value throughout."""
    frame = rows.frame.copy()
    name = frame.columns[place]
    kind = frame.dtypes.iloc[place]
    if isinstance(kind, pd.CategoricalDtype) and value is not None:
        frame[name] = frame[name].astype(object)
    if value is None and (pd.api.types.is_integer_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
        frame[name] = np.nan
    elif value is None:
        frame[name] = pd.Series([_null(rows, place)] * len(frame), index=frame.index, dtype=_nullable(kind))
    else:
        frame[name] = pd.Series([value] * len(frame), index=frame.index)
    return rows.with_columns(frame)


def _nullable(kind: Any) -> Any:
    return kind if not isinstance(kind, np.dtype) else (object if kind.kind in "OUS" else np.float64)


def _null(rows: Rows, place: int) -> Any:
    return None if rows.columns[place].null_text.endswith("None") else np.nan


def filled(rows: Rows, inputs: Sequence[InputColumn]) -> Rows:
    """Rows in which a column's default stands in for its nulls, as a service does it."""
    frame = rows.frame
    for place, column in enumerate(inputs):
        if column.default is not None and bool(frame.iloc[:, place].isna().any()):
            name = frame.columns[place]
            series = frame[name].astype(object)
            kept = series.where(series.notna(), column.default)
            frame = frame.copy()
            frame[name] = kept.infer_objects() if column.dtype != "string" else kept
    return rows if frame is rows.frame else rows.with_columns(frame)
