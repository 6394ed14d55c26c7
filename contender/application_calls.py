"""The calls of applications, which Client and AsyncClient both make: predictions, feedback, and what they led to."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from contender.calls import Call, decoded
from contender.contracts import ab_router, experiments, feedback_service, problems
from contender.contracts.values import Outcome

Refusal = problems.ProblemDetails
"""Why a row of a batch has no prediction. The row itself is the cause, so the same row is refused again."""


class _BatchRow(msgspec.Struct):
    error: Refusal | None = None


def predict(model: str, row: Mapping[str, Any], retries: int) -> Call[ab_router.Prediction]:
    """A prediction, which may be made again only with a `request_id`: a client that does so makes one up."""
    body, is_repeatable = _identified(row, retries)
    return Call("ab_router", ab_router.PREDICT, {"model": model}, body, repeatable=is_repeatable, tells_deadline=True)


def predict_batch(
    model: str, rows: Sequence[Mapping[str, Any]], request_id: str, retries: int
) -> Call[ab_router.Predictions]:
    """Predictions of several rows, which have one `request_id`."""
    body, is_repeatable = _identified({"rows": list(rows), "request_id": request_id}, retries)
    return Call(
        "ab_router", ab_router.PREDICT_BATCH, {"model": model}, body, repeatable=is_repeatable, tells_deadline=True
    )


def rows_of(answer: ab_router.Predictions, url: str) -> list[ab_router.Prediction | Refusal]:
    """The answers to the rows of a batch, in order.

    Raises:
        ContenderError: one is neither a prediction nor a refusal.
    """
    return [decoded(row, _BatchRow, url).error or decoded(row, ab_router.Prediction, url) for row in answer.predictions]


def report(prediction_id: str, at: float | None, **values: Outcome | None) -> dict[str, Any]:
    """One report of feedback, with its value by kind; None: not given."""
    given = {kind: value for kind, value in values.items() if value is not None}
    return {"prediction_id": prediction_id, **given, "time": at}


def give_feedback(reports: Sequence[Mapping[str, Any]]) -> Call[feedback_service.FeedbackAccepted]:
    """Feedback. It may be given again: a prediction has one label of a kind, however often that is reported."""
    body = {"feedback": list(reports)}
    return Call("feedback_service", feedback_service.GIVE_FEEDBACK, body=body, repeatable=True)


def list_experiments() -> Call[experiments.ExperimentList]:
    """Every experiment as it stands."""
    return Call("ab_router", experiments.LIST_EXPERIMENTS)


def show_experiment(name: str) -> Call[experiments.ExperimentRevision]:
    """One experiment as it stands."""
    return Call("ab_router", experiments.SHOW_EXPERIMENT, {"name": name})


def get_results(experiment: str, as_of: float | None) -> Call[feedback_service.Results]:
    """The results of an experiment."""
    query = {"as_of": as_of}
    return Call("feedback_service", feedback_service.GET_RESULTS, {"name": experiment}, query=query)


def list_verdicts(experiment: str) -> Call[feedback_service.VerdictEvents]:
    """The verdicts of an experiment."""
    return Call("feedback_service", feedback_service.LIST_VERDICTS, {"name": experiment})


def _identified(body: Mapping[str, Any], retries: int) -> tuple[dict[str, Any], bool]:
    """The body, with a `request_id` where it has one or needs one, and whether it has."""
    request_id = body.get("request_id") or (uuid.uuid4().hex if retries else "")
    without = {name: value for name, value in body.items() if name != "request_id"}
    return without | ({"request_id": request_id} if request_id else {}), bool(request_id)
