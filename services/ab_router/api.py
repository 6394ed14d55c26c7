"""Predictions and experiments over HTTP."""

import msgspec
from fastapi import Request

from contender.contracts import ab_router as contract
from contender.contracts import experiments
from contender.contracts.ab_router import Prediction
from contender.contracts.experiments import ExperimentRevision
from services.ab_router.errors import PROBLEMS
from services.ab_router.handlers import Experiments, Readiness, all_refused
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
async def show_experiment(request: Request, query: experiments.RevisionQuery, name: str) -> ExperimentRevision:
    return await _experiments(request).at(name, query)


@routes.serve(experiments.REVISE_EXPERIMENT)
async def revise_experiment(request: Request, body: experiments.NewExperiment, name: str) -> ExperimentRevision:
    return await _experiments(request).revise(name, body)


@routes.serve(experiments.START_EXPERIMENT)
async def start_experiment(request: Request, body: experiments.ExperimentChange, name: str) -> ExperimentRevision:
    return await _experiments(request).start(name, body)


@routes.serve(experiments.PAUSE_EXPERIMENT)
async def pause_experiment(request: Request, body: experiments.ExperimentChange, name: str) -> ExperimentRevision:
    return await _experiments(request).pause(name, body)


@routes.serve(experiments.RAMP_EXPERIMENT)
async def ramp_experiment(request: Request, body: experiments.Ramp, name: str) -> ExperimentRevision:
    return await _experiments(request).ramp(name, body)


@routes.serve(experiments.STOP_EXPERIMENT)
async def stop_experiment(request: Request, body: experiments.ExperimentChange, name: str) -> ExperimentRevision:
    return await _experiments(request).stop(name, body)


@routes.serve(experiments.RESTART_EXPERIMENT)
async def restart_experiment(request: Request, body: experiments.Restart, name: str) -> ExperimentRevision:
    return await _experiments(request).restart(name, body)


@routes.serve(experiments.PROMOTE_CHALLENGER)
async def promote_challenger(request: Request, body: experiments.ChallengerPromotion, name: str) -> ExperimentRevision:
    return await _experiments(request).promote(name, body, body.variant)


@routes.serve(experiments.SHOW_HISTORY)
async def show_history(request: Request, name: str) -> experiments.ExperimentHistory:
    return experiments.ExperimentHistory(await _experiments(request).history(name))


@routes.serve(experiments.SHOW_READINESS)
async def show_readiness(request: Request, name: str) -> experiments.Readiness:
    return await _experiments(request).readiness(name)


@routes.serve(experiments.STOP_EXPERIMENTS)
async def stop_experiments(
    request: Request, body: experiments.ExperimentChange, model: str
) -> experiments.StoppedExperiments:
    return experiments.StoppedExperiments(await _experiments(request).stop_all(model, body))


@routes.serve(experiments.SHOW_TRAFFIC)
async def show_traffic(request: Request, model: str) -> experiments.ModelTraffic:
    readiness: Readiness = request.state.readiness
    return await readiness.show(model)


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
    handler: Experiments = request.state.experiments
    return handler
