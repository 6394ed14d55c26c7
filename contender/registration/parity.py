"""Compares a file with its pipeline, on all rows of the caller and on rows changed as live ones may be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import TEXT_CHARACTERS
from contender.contracts.tasks import ScoreError, Task
from contender.errors import ExportError
from contender.registration.failures import FOREIGN
from contender.registration.file import File, Scores
from contender.registration.perturbing import SEED, changed_rows
from contender.registration.pipelines import of_pipeline
from contender.registration.rows import Rows

SAMPLE_ROWS = 500
UNSEEN = "a category that training never had"
_EVEN = 1e-6
"""Within this margin of another class a 32-bit file may name either, on changed rows."""


@dataclass(frozen=True)
class Comparison:
    """How a file compares with its pipeline over rows: the difference of each, and which labels differ."""

    rows: Rows
    expected: Scores
    differences: NDArray[np.float64]
    labels_differ: NDArray[np.bool_]

    @property
    def worst(self) -> float:
        """The largest difference of a score; infinite where one side alone has a score."""
        return float(self.differences.max()) if len(self.differences) else 0.0


@dataclass
class Parity:
    """The comparisons: over the caller's rows, and over changed ones by how they were changed."""

    originals: Comparison
    changed: dict[str, Comparison] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows were compared."""
        return sum(len(compared.rows) for compared in (self.originals, *self.changed.values()))

    @property
    def worst(self) -> float:
        """The largest difference of a score."""
        return max(compared.worst for compared in (self.originals, *self.changed.values()))

    @property
    def labels_differ(self) -> int:
        """How many labels differ from the pipeline's own."""
        return sum(int(compared.labels_differ.sum()) for compared in (self.originals, *self.changed.values()))

    def sample(self, task: Task) -> dict[str, Any]:
        """Up to SAMPLE_ROWS rows with the pipeline's own answers: the worst of all, and random others."""
        parts = [self.originals, *self.changed.values()]
        candidates = [
            (part, row)
            for part, compared in enumerate(parts)
            for row in range(len(compared.rows))
            if _fits(compared, row)
        ]
        if not candidates:
            raise ExportError(
                f"every row has a text of more than {TEXT_CHARACTERS} characters: give some rows with shorter texts"
            )
        if len(candidates) <= SAMPLE_ROWS:
            return self._sampled(task, candidates)
        difference = np.array([parts[part].differences[row] for part, row in candidates])
        largest = np.argmax([np.abs(parts[part].expected.scores[row]).max() for part, row in candidates])
        worst = np.argsort(-difference, kind="stable")[: SAMPLE_ROWS // 2]
        of_caller = np.flatnonzero([part == 0 for part, _ in candidates])
        chance = np.random.default_rng(SEED).permutation(of_caller)[:SAMPLE_ROWS]
        chosen = list(dict.fromkeys([int(largest), *worst.tolist(), *chance.tolist()]))[:SAMPLE_ROWS]
        return self._sampled(task, [candidates[number] for number in sorted(chosen)])

    def _sampled(self, task: Task, candidates: Sequence[tuple[int, int]]) -> dict[str, Any]:
        sample: dict[str, Any] = {"inputs": {column.name: [] for column in self.originals.rows.columns}}
        for part, compared in enumerate([self.originals, *self.changed.values()]):
            chosen = [row for of, row in candidates if of == part]
            for name, values in compared.rows.subset(chosen).inputs().items():
                sample["inputs"][name] += values
            for name, answers in compared.expected.sample(task, chosen).items():
                sample.setdefault(name, []).extend(answers)
        return sample


def _fits(compared: Comparison, row: int) -> bool:
    """Whether a service takes a row as a sample: it has a score, and no overlong text."""
    if not np.isfinite(compared.expected.scores[row]).all():
        return False
    texts = [n for n, column in enumerate(compared.rows.columns) if column.dtype == "string"]
    return all(len(str(compared.rows.frame.iloc[row, n])) <= TEXT_CHARACTERS for n in texts)


@dataclass(frozen=True)
class Comparer:
    """Compares one file with one pipeline."""

    pipeline: Any
    file: File
    task: Task
    inputs: Sequence[InputColumn]

    def compare(self, rows: Rows, expected: Scores | None = None, *, strict: bool = True) -> Comparison:
        """Run rows on both sides; raises whatever either of them raises.

        Args:
            rows: the rows, in which defaults stand in for nulls already.
            expected: the pipeline's scores of them, where they are known.
            strict: whether labels must agree even where two classes are all but tied.
        """
        expected = expected or of_pipeline(self.pipeline, rows, self.task)
        answered = self.file.answer(rows.inputs())
        has_expected = np.isfinite(expected.scores).all(axis=1)
        has_answer = np.isfinite(answered.scores).all(axis=1)
        scale = max(1.0, float(np.abs(expected.scores[has_expected]).max())) if has_expected.any() else 1.0
        with np.errstate(invalid="ignore"):
            differences = np.abs(answered.scores - expected.scores).max(axis=1) / scale
        differences[~has_expected & ~has_answer] = 0.0
        differences[has_expected != has_answer] = np.inf
        differ = np.array(
            [label != own for label, own in zip(answered.labels, expected.labels, strict=True)], dtype=bool
        )
        if not self.task.has_classes:
            differ[:] = False
        elif not strict:
            ordered = np.sort(expected.scores, axis=1)
            differ &= ordered[:, -1] - ordered[:, -2] > _EVEN
        return Comparison(rows, expected, differences, differ & has_expected)

    def refuses(self, rows: Rows) -> tuple[bool, bool]:
        """Whether the pipeline refuses any of the rows, and whether the file does."""
        try:
            pipeline_scores = bool(np.isfinite(of_pipeline(self.pipeline, rows, self.task).scores).all())
        except (*FOREIGN, MemoryError):
            pipeline_scores = False
        try:
            file_scores = bool(np.isfinite(self.file.answer(rows.inputs()).scores).all())
        except (*FOREIGN, ScoreError):
            file_scores = False
        return not pipeline_scores, not file_scores


def compare_all(comparer: Comparer, rows: Rows, expected: Scores, *, strict: bool) -> Parity:
    """Compare all rows of the caller, and changed ones.

    Args:
        comparer: the file and the pipeline.
        rows: the caller's, in which defaults stand in for nulls already.
        expected: the pipeline's scores of them.
        strict: whether labels of changed rows must agree even where two classes are all but tied.
    """
    parity = Parity(comparer.compare(rows, expected))
    whole = {number for number, column in enumerate(rows.columns) if column.dtype != "float"}
    for how, changed in changed_rows(rows, whole):
        ready = changed.filled(comparer.inputs)
        try:
            answered = of_pipeline(comparer.pipeline, ready, comparer.task)
        except FOREIGN:
            continue  # the pipeline takes no such rows: there is nothing to compare with
        parity.changed[how] = comparer.compare(ready, answered, strict=strict)
    return parity
