"""Predictions and experiments over HTTP."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.ab_router.domain.experiments import NewExperiment
from services.ab_router.experiments import Experiments
from services.ab_router.predictions import Predict, all_refused
from services.ab_router.requests import Row, Rows
from shared.http import DirectRoute, json_response, read_body
from shared.problems import Problem, problem_document

router = APIRouter(prefix="/v1", tags=["predictions"], route_class=DirectRoute)
experiments_router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


@router.post("/models/{model}/predict")
async def predict(request: Request, model: str) -> Response:
    """One prediction."""
    row = await read_body(request, Row, request.state.settings.body_limit_bytes)
    handler: Predict = request.state.predict
    (answer,) = await handler.rows(model, [row])
    if isinstance(answer, Problem):
        raise answer
    return json_response(answer)


@router.post("/models/{model}/predict/batch")
async def predict_batch(request: Request, model: str) -> Response:
    """Several predictions, answered in order; a refused row has `error`, a problem, in place of its prediction."""
    body = await read_body(request, Rows, request.state.settings.body_limit_bytes)
    handler: Predict = request.state.predict
    answers = await handler.rows(model, body.rows)
    if problem := all_refused(answers):
        raise problem
    return json_response({"predictions": [_refusal(it) if isinstance(it, Problem) else it for it in answers]})


@experiments_router.post("", status_code=201)
async def create_experiment(request: Request) -> Response:
    """Declare an experiment; it assigns nobody until it is started."""
    new = await read_body(request, NewExperiment, request.state.settings.body_limit_bytes)
    return json_response(await _experiments(request).create(new), 201)


@experiments_router.get("")
async def list_experiments(request: Request) -> Response:
    """Every experiment, oldest first."""
    return json_response({"experiments": _experiments(request).all()})


@experiments_router.get("/{name}")
async def show_experiment(request: Request, name: str) -> Response:
    """An experiment as it stands."""
    return json_response(_experiments(request).find(name))


@experiments_router.post("/{name}/start")
async def start_experiment(request: Request, name: str) -> Response:
    """Assign units to its variants from now on."""
    return json_response(await _experiments(request).start(name))


@experiments_router.post("/{name}/stop")
async def stop_experiment(request: Request, name: str) -> Response:
    """Assign nobody any more: the model's champion answers."""
    return json_response(await _experiments(request).stop(name))


def _refusal(problem: Problem) -> dict[str, object]:
    return {"error": problem_document(problem.status, problem.slug, problem.detail, problem.errors)}


def _experiments(request: Request) -> Experiments:
    experiments: Experiments = request.state.experiments
    return experiments
