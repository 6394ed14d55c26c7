"""The HTTP interface: feedback in, results out."""

import msgspec
from fastapi import APIRouter, Request, Response

from services.feedback_service.errors import InvalidFeedback
from services.feedback_service.handlers import Feedback, TakeFeedback, TellResults
from services.feedback_service.settings import FeedbackSettings
from shared.bodies import decode_json, read_body
from shared.routes import json_response

router = APIRouter()


class FeedbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome, or many under `feedback`."""

    feedback: list[Feedback] | msgspec.UnsetType = msgspec.UNSET
    prediction_id: str | msgspec.UnsetType = msgspec.UNSET
    outcome: bool | int | float | str | msgspec.UnsetType = msgspec.UNSET
    time: float | None = None


@router.post("/v1/feedback", status_code=202, tags=["feedback"])
async def give_feedback(request: Request) -> Response:
    """Take outcomes of predictions; they are safe when this answers 202."""
    take: TakeFeedback = request.state.take_feedback
    settings: FeedbackSettings = request.state.settings
    body = await read_body(request, FeedbackBody, settings.body_limit_bytes)
    if isinstance(body.feedback, list):
        accepted = await take.take(_many(body, body.feedback))
    else:
        accepted = await take.take([_single(body)], field="")
    return json_response({"accepted": accepted}, 202)


@router.get("/v1/experiments", tags=["results"])
async def list_experiments(request: Request) -> Response:
    """The experiments that were announced or have predictions."""
    tell: TellResults = request.state.tell_results
    return json_response({"experiments": await tell.known()})


@router.get("/v1/experiments/{name:path}/results", tags=["results"])
async def get_results(request: Request, name: str) -> Response:
    """The results of an experiment at this moment."""
    tell: TellResults = request.state.tell_results
    return json_response(await tell.results(name), headers={"Cache-Control": "no-store"})


def _many(body: FeedbackBody, feedback: list[Feedback]) -> list[Feedback]:
    if any(given is not msgspec.UNSET for given in (body.prediction_id, body.outcome)) or body.time is not None:
        raise InvalidFeedback.at(
            "feedback", "stands beside the fields of a single outcome; a call has one or the other"
        )
    if not feedback:
        raise InvalidFeedback.at("feedback", "is empty")
    return feedback


def _single(body: FeedbackBody) -> Feedback:
    given = {
        name: value
        for name in ("prediction_id", "outcome", "time")
        if (value := getattr(body, name)) is not msgspec.UNSET
    }
    return decode_json(msgspec.json.encode(given), Feedback)
