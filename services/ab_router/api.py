"""Predictions and experiments over HTTP."""

import msgspec
from fastapi import Request

from contender.contracts import ab_router as contract
from contender.contracts import experiments
from contender.contracts.ab_router import Prediction
from contender.contracts.experiments import ExperimentRevision
from services.ab_router.errors import PROBLEMS
from services.ab_router.handlers import Experiments, all_refused
from services.ab_router.prediction_calls import Answers, PredictionCall, answer_call, identified_rows
from shared.errors import ProblemTable, ServiceError
from shared.routes import Routes

routes = Routes()
_TABLE = ProblemTable(PROBLEMS)


@routes.serve(contract.PREDICT)
async def predict(request: Request, model: str, body: contract.PredictionRow) -> object:
    return await answer_call(request, PredictionCall(model, [body], body, _single))


@routes.serve(contract.PREDICT_BATCH)
async def predict_batch(request: Request, model: str, body: contract.PredictionRows) -> object:
    return await answer_call(request, PredictionCall(model, identified_rows(body), body, _batch))


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


def _single(answers: Answers) -> Prediction:
    (answer,) = answers
    if isinstance(answer, ServiceError):
        raise answer
    return answer


def _batch(answers: Answers) -> contract.Predictions:
    if refusal := all_refused(answers):
        raise refusal
    return contract.Predictions([msgspec.Raw(msgspec.json.encode(_row(answer))) for answer in answers])


def _row(answer: Prediction | ServiceError) -> Prediction | contract.RefusedRow:
    return contract.RefusedRow(_TABLE.details_of(answer)) if isinstance(answer, ServiceError) else answer


def _experiments(request: Request) -> Experiments:
    experiments: Experiments = request.state.experiments
    return experiments
