"""Predictions and experiments over HTTP."""

import msgspec
from fastapi import Request

from contender.contracts import ab_router as contract
from contender.contracts import experiments
from contender.contracts.ab_router import Prediction
from contender.contracts.experiments import ExperimentRevision
from services.ab_router.errors import PROBLEMS
from services.ab_router.handlers import Experiments, Predict, Readiness, all_refused
from shared.errors import ProblemTable, ServiceError
from shared.routes import Routes

routes = Routes()
_TABLE = ProblemTable(PROBLEMS)


@routes.serve(contract.PREDICT)
async def predict(request: Request, model: str, body: contract.PredictionRow) -> Prediction:
    handler: Predict = request.state.predict
    (answer,) = await handler.rows(model, [body])
    if isinstance(answer, ServiceError):
        raise answer
    return answer


@routes.serve(contract.PREDICT_BATCH)
async def predict_batch(request: Request, model: str, body: contract.PredictionRows) -> contract.Predictions:
    handler: Predict = request.state.predict
    answers = await handler.rows(model, body.rows)
    if refusal := all_refused(answers):
        raise refusal
    return contract.Predictions([msgspec.Raw(msgspec.json.encode(_row(answer))) for answer in answers])


@routes.serve(experiments.CREATE_EXPERIMENT)
async def create_experiment(request: Request, body: experiments.NewExperiment) -> ExperimentRevision:
    return await _experiments(request).create(body)


@routes.serve(experiments.LIST_EXPERIMENTS)
async def list_experiments(request: Request) -> experiments.ExperimentList:
    return experiments.ExperimentList(_experiments(request).all())


@routes.serve(experiments.SHOW_EXPERIMENT)
async def show_experiment(
    request: Request,
    query: experiments.RevisionQuery,  # noqa: ARG001
    name: str,
) -> ExperimentRevision:
    return _experiments(request).find(name)


@routes.serve(experiments.START_EXPERIMENT)
async def start_experiment(
    request: Request,
    body: experiments.ExperimentChange,  # noqa: ARG001
    name: str,
) -> ExperimentRevision:
    return await _experiments(request).start(name)


@routes.serve(experiments.STOP_EXPERIMENT)
async def stop_experiment(
    request: Request,
    body: experiments.ExperimentChange,  # noqa: ARG001
    name: str,
) -> ExperimentRevision:
    return await _experiments(request).stop(name)


@routes.serve(experiments.SHOW_TRAFFIC)
async def show_traffic(request: Request, model: str) -> experiments.ModelTraffic:
    readiness: Readiness = request.state.readiness
    return await readiness.show(model)


def _row(answer: Prediction | ServiceError) -> Prediction | contract.RefusedRow:
    return contract.RefusedRow(_TABLE.details_of(answer)) if isinstance(answer, ServiceError) else answer


def _experiments(request: Request) -> Experiments:
    experiments: Experiments = request.state.experiments
    return experiments
