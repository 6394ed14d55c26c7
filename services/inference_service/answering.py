"""Answers rows one by one where it must: a row that fails gets its own fault, the others their scores."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from contender.contracts.inference_service import ANSWER, VERSION_UNAVAILABLE, InputColumn, RowFault, ScoredRows
from contender.contracts.values import Scalar, Score
from services.inference_service.domain.columns import Arrays, CheckedRows, check_rows
from services.inference_service.errors import AnswerError
from services.inference_service.session import RUN_ROWS, Scores, Session
from services.inference_service.watchdog import Watchdog
from shared.errors import shortened

_WHOLE_SHARE = 0.5
"""Share of a row's time that several rows together get before they are tried one by one."""
_FIRST_SHARE = 0.05
"""Share of a row's time that each gets at first when rows run one by one; slower rows run again after the others."""
_LARGEST_SCORE = float(np.finfo(np.float32).max)
"""Readers of scores may keep them as 32-bit floats, whatever the model computes in."""
_NAMING_SECONDS = 0.5
"""Time that a call may take to find the columns at fault."""


class Limits(msgspec.Struct, frozen=True):
    """What one call may ask for; see the settings of these names."""

    row_limit: int
    text_limit: int
    run_seconds: float
    answer_seconds: float


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers rows by one model version's session, and finds the column at fault where a row has no score.

    Args:
        reference: a row that has a score, a value for each column; empty where no such row is known.
        run_rows: most rows of one run.
    """

    session: Session
    schema: Sequence[InputColumn]
    reference: Mapping[str, Scalar]
    limits: Limits
    watchdog: Watchdog
    run_rows: int = RUN_ROWS

    def answer(self, inputs: Mapping[str, Sequence[Scalar]], seconds: float) -> ScoredRows:
        """Answers of rows by column; rows that are not reached within `seconds` get a fault that is temporary.

        Raises:
            TooLarge, InvalidField: columns are unknown or missing, or the rows are too many or none.
        """
        limits = self.limits
        checked = check_rows(self.schema, inputs, row_limit=limits.row_limit, text_limit=limits.text_limit)
        call = _Call(self, inputs, checked, time.monotonic() + seconds)
        for start in range(0, len(checked.rows), self.run_rows):
            call.answer(range(start, min(start + self.run_rows, len(checked.rows))))
        return call.answers()


class _LateError(Exception):
    """A run took longer than it may."""


@dataclass(slots=True)
class _Call:
    """The state of one call. Row numbers count the rows whose values fit their columns."""

    answering: Answering
    inputs: Mapping[str, Sequence[Scalar]]
    checked: CheckedRows
    ends_at: float
    naming_left_s: float = _NAMING_SECONDS
    culprit: str = ""
    """The column at fault in the row before: often it is the same one."""
    reference: Arrays = field(default_factory=dict)
    scores: list[Score | None] = field(default_factory=list)
    labels: list[Scalar] = field(default_factory=list)
    errors: list[RowFault] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = len(next(iter(self.inputs.values())))
        self.scores, self.labels = [None] * rows, [None] * rows
        self.errors = list(self.checked.faults)

    def answers(self) -> ScoredRows:
        """The answers so far."""
        return ScoredRows(self.scores, self.labels, sorted(self.errors, key=lambda fault: fault.row))

    def answer(self, rows: range) -> None:
        """Answer adjacent rows: together at first, by halves where they fail, and one by one where they take long."""
        seconds = self.answering.limits.run_seconds
        try:
            answers = self._run(rows, seconds if len(rows) == 1 else seconds * _WHOLE_SHARE)
        except AnswerError:
            if len(rows) == 1:
                self._refuse(rows[0])
                return
            middle = len(rows) // 2
            self.answer(rows[:middle])
            self.answer(rows[middle:])
        except _LateError:
            if len(rows) == 1:
                self._give_up(rows[0])
            else:
                self._answer_singly(rows)
        else:
            self._keep(rows, answers)

    def _answer_singly(self, rows: range) -> None:
        """Answer quick rows first, so that a slow row takes no time from them."""
        slow = []
        for row in rows:
            try:
                self._keep(range(row, row + 1), self._run(range(row, row + 1), self._first_seconds))
            except AnswerError:
                self._refuse(row)
            except _LateError:
                slow.append(row)
        for row in slow:
            self.answer(range(row, row + 1))

    @property
    def _first_seconds(self) -> float:
        return self.answering.limits.run_seconds * _FIRST_SHARE

    def _run(self, rows: range, seconds: float) -> Scores:
        arrays = {name: array[rows.start : rows.stop] for name, array in self.checked.arrays.items()}
        return self._run_arrays(arrays, seconds)

    def _run_arrays(self, arrays: Arrays, seconds: float) -> Scores:
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise _LateError
        with self.answering.watchdog.limit(min(seconds, left)) as run:
            try:
                answers = self.answering.session.answer(arrays, run.options)
            except AnswerError as error:
                if run.late:
                    raise _LateError from error
                raise
        if not np.abs(answers.scores).max() <= _LARGEST_SCORE:
            raise AnswerError.at("inputs", "gets a score beyond 32-bit floats")
        return answers

    def _keep(self, rows: range, answers: Scores) -> None:
        for row, score, label in zip(rows, answers.scores, answers.labels, strict=True):
            original = self.checked.rows[row]
            self.scores[original], self.labels[original] = score, label

    def _give_up(self, row: int) -> None:
        """Refuse a row that took too long: for good if it had all of a row's time, else until the next call."""
        limits = self.answering.limits
        if self.ends_at - time.monotonic() > 0:
            message = f"takes the model longer than {limits.run_seconds:g} s"
            self._fault(row, "inputs", message)
        else:
            message = f"was not answered within the {limits.answer_seconds:g} s that the rows of a call have together"
            self._fault(row, "inputs", message, is_temporary=True)

    def _refuse(self, row: int) -> None:
        """Refuse a row, and name the column that makes the model fail, as far as trials find it."""
        original = self.checked.rows[row]
        name = self._culprit(row)
        if not name:
            self._fault(row, "inputs", "gets no usable score from the model")
            return
        value = self.inputs[name][original]
        if value is None:
            message = "is null, and the model gives no usable score then: add an imputer or a default"
        else:
            message = f"is {shortened(repr(value))}, for which the model gives no usable score"
        self._fault(row, f"inputs.{name}", message)

    def _fault(self, row: int, field: str, message: str, *, is_temporary: bool = False) -> None:
        kind = VERSION_UNAVAILABLE if is_temporary else ANSWER
        self.errors.append(RowFault.of(kind, self.checked.rows[row], field, message))

    def _culprit(self, row: int) -> str:
        """The column at fault: with the reference row's value there, the row has a score. Empty where none is known."""
        original = self.checked.rows[row]
        nulls = [column.name for column in self.answering.schema if self.inputs[column.name][original] is None]
        if not self.answering.reference:
            return nulls[0] if nulls else ""
        started = time.monotonic()
        try:
            self.culprit = self._search(row, nulls) or (nulls[0] if nulls else "")
        except _LateError:
            return nulls[0] if nulls else ""
        finally:
            self.naming_left_s -= time.monotonic() - started
        return self.culprit

    def _search(self, row: int, nulls: Sequence[str]) -> str:
        """Search the columns by halves, likeliest first; empty where even the reference row has no score."""
        first = [self.culprit] if self.culprit else []
        names = list(dict.fromkeys([*first, *nulls, *(column.name for column in self.answering.schema)]))
        if first and self._has_score_with(row, names[:1]):
            return names[0]
        if not self._has_score_with(row, names):
            return ""
        low, high = 0, len(names)  # replacing the first `low` gives no score, the first `high` a score
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._has_score_with(row, names[:middle]) else (middle, high)
        return names[high - 1]

    def _has_score_with(self, row: int, names: Sequence[str]) -> bool:
        """Whether the row has a score after these columns get the reference row's values."""
        if self.naming_left_s <= 0:
            raise _LateError
        arrays = {name: array[row : row + 1] for name, array in self.checked.arrays.items()}
        if not self.reference:
            self.reference = self._check_reference()
        arrays.update({name: self.reference[name] for name in names})
        try:
            self._run_arrays(arrays, self._first_seconds)
        except AnswerError:
            return False
        return True

    def _check_reference(self) -> Arrays:
        limits = self.answering.limits
        inputs = {name: [value] for name, value in self.answering.reference.items()}
        return check_rows(
            self.answering.schema, inputs, row_limit=limits.row_limit, text_limit=limits.text_limit
        ).arrays


def halves(inputs: Mapping[str, Sequence[Scalar]]) -> Iterator[dict[str, list[Scalar]]]:
    """The first and the second half of rows by column."""
    middle = len(next(iter(inputs.values()))) // 2
    yield {name: list(values[:middle]) for name, values in inputs.items()}
    yield {name: list(values[middle:]) for name, values in inputs.items()}


def joined(first: ScoredRows, second: ScoredRows) -> ScoredRows:
    """The answers of two consecutive parts of a call."""
    behind = [msgspec.structs.replace(fault, row=fault.row + len(first.scores)) for fault in second.errors]
    return ScoredRows(first.scores + second.scores, first.labels + second.labels, first.errors + behind)
