"""Checks of FakeContender: rows and reports that the services would refuse."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from contender.contracts.ab_router import PredictionRow
from contender.contracts.columns import fault_of
from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import FeedbackItem
from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import REQUEST_ID_CHARACTERS, TEXT_CHARACTERS
from contender.contracts.problems import FieldError
from contender.contracts.values import OUTCOME
from contender.faking.experiments import refusing


class Reports(msgspec.Struct):
    """The body of feedback, as clients send it."""

    feedback: list[FeedbackItem]


def row_faults(
    row: PredictionRow, experiments: Sequence[ExperimentRevision], columns: Sequence[InputColumn]
) -> list[FieldError]:
    """The faults of a row: of its unit, and of its inputs where columns are declared."""
    faults: list[FieldError] = []
    if name := refusing(experiments, row):
        faults.append(FieldError("unit", f"is missing, and experiment {name} assigns by unit"))
    if len(row.unit) > TEXT_CHARACTERS:
        faults.append(FieldError("unit", f"is longer than {TEXT_CHARACTERS} characters"))
    return [*faults, *_column_faults({column.name: column for column in columns}, row.inputs)]


def request_id_faults(request_id: str) -> list[FieldError]:
    """The fault of a request id that is too long."""
    if len(request_id) <= REQUEST_ID_CHARACTERS:
        return []
    return [FieldError("request_id", f"is longer than {REQUEST_ID_CHARACTERS} characters")]


def misplaced_ids(rows: Sequence[PredictionRow]) -> list[FieldError]:
    """The faults of a batch whose rows have request ids of their own."""
    message = "belongs beside rows: a batch has one request id"
    return [FieldError(f"rows[{number}].request_id", message) for number, row in enumerate(rows) if row.request_id]


def report_faults(item: FeedbackItem) -> list[FieldError]:
    """The fault of a report that has not exactly one value."""
    kinds = list(item.reports)
    if len(kinds) == 1:
        return []
    message = f"can't be combined with {kinds[0]}" if kinds else "is missing, and so is any other report"
    return [FieldError(kinds[1] if kinds else OUTCOME, message)]


def below(place: str, errors: Sequence[FieldError]) -> list[FieldError]:
    """The faults of a part of a body, such as `rows[3]`, by their fields in the whole."""
    return [FieldError(f"{place}.{error.field}", error.message) for error in errors]


def _column_faults(columns: Mapping[str, InputColumn], inputs: Mapping[str, Any]) -> Iterator[FieldError]:
    if not columns:
        return
    for name in inputs.keys() - columns.keys():
        yield FieldError(f"inputs.{name}", "is not a column of this model")
    for name, column in columns.items():
        if name in inputs:
            fault = fault_of(column, inputs[name], TEXT_CHARACTERS)
        else:
            fault = "is missing" if column.required and column.default is None else ""
        if fault:
            yield FieldError(f"inputs.{name}", fault)
