"""OFREP, the OpenFeature Remote Evaluation Protocol: what OpenFeature's providers speak."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from contender.contracts import ofrep as contract
from contender.contracts.problems import ProblemDetails
from services.ab_router.contexts import read_context
from services.ab_router.handlers.flags import Flags
from shared.protocol_errors import render_in_protocol
from shared.routes import Routes, json_with_etag

routes = Routes()
_CODES = {kind.type: code for kind, code in contract.ERROR_CODES.items()}


def render_errors(app: FastAPI) -> None:
    """Answer every error under /ofrep in the protocol's own form, whatever raised it."""
    render_in_protocol(app, "/ofrep/", _failure)


def _failure(request: Request, problem: ProblemDetails) -> contract.EvaluationFailure:
    code = _CODES.get(problem.type, "GENERAL")
    return contract.EvaluationFailure(code, problem.detail, request.path_params.get("key", ""))


@routes.serve(contract.EVALUATE_FLAG, reads_body=False)
async def evaluate_flag(request: Request, key: str) -> contract.Evaluation:
    """One flag for one unit."""
    unit, context = await read_context(request)
    return await Flags(request.state.experiments, request.state.predict).evaluate(key, unit, context)


@routes.serve(contract.EVALUATE_FLAGS, reads_body=False)
async def evaluate_flags(request: Request) -> Response:
    """All flags for one unit; 304 where they are those that the caller has."""
    unit, context = await read_context(request)
    flags = await Flags(request.state.experiments, request.state.predict).evaluate_all(unit, context)
    return json_with_etag(request, contract.Evaluations(flags))
