"""Feedback and results over HTTP."""

from fastapi import Request, Response
from msgspec import UNSET

from contender.contracts import feedback_service as contract
from contender.contracts.feedback_service import FeedbackAccepted, FeedbackBody, FeedbackItem
from contender.contracts.operation import JSON
from services.feedback_service.errors import InvalidFeedback
from services.feedback_service.handlers import ReadResults, SubmitFeedback, planning
from shared.routes import Routes, json_response

routes = Routes()
_NOT_STORED = {"Cache-Control": "no-store"}


@routes.serve(contract.GIVE_FEEDBACK)
async def give_feedback(request: Request, body: FeedbackBody) -> FeedbackAccepted:
    handler: SubmitFeedback = request.state.submit_feedback
    if body.feedback is UNSET:
        return FeedbackAccepted(await handler.submit([_single(body)], field=""))
    if FeedbackBody(feedback=body.feedback) != body:
        raise InvalidFeedback.at("feedback", "can't be combined with the fields of a single outcome; send one or many")
    if not body.feedback:
        raise InvalidFeedback.at("feedback", "is empty; send at least one outcome")
    return FeedbackAccepted(await handler.submit(body.feedback))


@routes.serve(contract.LIST_EXPERIMENTS)
async def list_experiments(request: Request) -> contract.ExperimentSummaries:
    return contract.ExperimentSummaries(await _results(request).list_experiments())


@routes.serve(contract.GET_RESULTS)
async def get_results(request: Request, name: str, query: contract.ResultsQuery) -> Response:
    if query.as_of is not None:
        return Response(await _results(request).vintage(name, query.as_of), media_type=JSON, headers=_NOT_STORED)
    return json_response(await _results(request).results(name), headers=_NOT_STORED)


@routes.serve(contract.LIST_VERDICTS)
async def list_verdicts(request: Request, name: str) -> contract.VerdictEvents:
    return contract.VerdictEvents(await _results(request).list_verdicts(name))


@routes.serve(contract.PLAN_EXPERIMENT)
async def plan_experiment(request: Request, body: contract.PlanRequest) -> contract.Plan:
    return await planning.plan_experiment(_results(request), body)


def _single(body: FeedbackBody) -> FeedbackItem:
    if body.prediction_id is UNSET:
        raise InvalidFeedback.at("prediction_id", "is missing")
    return FeedbackItem(**{name: getattr(body, name) for name in FeedbackItem.__struct_fields__})


def _results(request: Request) -> ReadResults:
    results: ReadResults = request.state.read_results
    return results
