"""Formulas over an answer: which are valid in a declaration, and whether an answer's label is seen."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from contender.contracts.experiments import NewExperiment
from contender.contracts.formula import Formula, FormulaError
from contender.contracts.inference_service import ModelVersion
from contender.contracts.limits import FORMULA_CHARACTERS
from contender.contracts.tasks import task_named
from contender.contracts.values import Scalar, Score
from shared.errors import FieldError

_SCORE, _LABEL, _OUTCOME = "score", "label", "outcome"


def formula_faults(new: NewExperiment, versions: Sequence[ModelVersion]) -> Iterator[FieldError]:
    """The faults of a declaration's formulas, given the versions of its variants: one at least, all of one task."""
    names = answer_names(versions)
    condition, fault = _read(new.labels_seen_if, names)
    if condition and not condition.is_condition:
        fault = "must be true or false, such as `score < 0.3`: compare numbers or texts"
    if fault:
        yield FieldError("labels_seen_if", fault)
    _, fault = _read(new.value, names | {_OUTCOME})
    if fault:
        yield FieldError("value", fault)


def answer_names(versions: Sequence[ModelVersion]) -> frozenset[str]:
    """The names that formulas over answers may use: the label, the score where it is one number, and the inputs.

    Only inputs that all of the versions have count, so that a formula means the same whoever answers.
    """
    inputs = [{column.name for column in version.inputs} for version in versions]
    has_one_number = all(task_named(version.task).score_width(len(version.classes)) == 1 for version in versions)
    return frozenset({_LABEL, *([_SCORE] if has_one_number else []), *set.intersection(*inputs)})


@lru_cache(maxsize=256)
def parsed(text: str, names: frozenset[str]) -> Formula:
    """A formula over some names; it is read once.

    Raises:
        FormulaError: the text is not a formula over these names; the message says where.
    """
    return Formula.parse(text, sorted(names))


def is_label_seen(condition: Formula, score: Score, label: Scalar, inputs: Mapping[str, Scalar]) -> bool:
    """Whether an answer's label is seen without exploration: no where the condition can't be computed."""
    values = {**inputs, _LABEL: label}
    if not isinstance(score, list):
        values[_SCORE] = score
    try:
        return condition.value(values) != 0
    except FormulaError:
        return False


def _read(text: str, names: frozenset[str]) -> tuple[Formula | None, str]:
    """The formula that a field holds, or what is wrong with it; neither where the field is empty."""
    if not text:
        return None, ""
    if len(text) > FORMULA_CHARACTERS:
        return None, f"is longer than {FORMULA_CHARACTERS:,} characters"
    try:
        return parsed(text, names), ""
    except FormulaError as error:
        return None, str(error)
