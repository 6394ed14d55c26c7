"""The use case of prediction: check, assign, score, write down, answer. Knows no HTTP."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import msgspec
from prometheus_client import Counter, Histogram

from services.ab_router.catalog import Catalog, Model
from services.ab_router.clients import CallError
from services.ab_router.domain.experiments import assign
from services.ab_router.errors import ModelUnavailableError
from services.ab_router.experiments import Experiments
from services.ab_router.frames import encoded
from services.ab_router.requests import Requirements, Row, check_rows
from services.ab_router.scoring import Plan, Scored, Scorer
from services.ab_router.settings import RouterSettings
from shared.clock import Clock
from shared.events import ExperimentRevision, ModelVersion, Scalar
from shared.frames import split
from shared.ids import PredictionId, new_frame_id
from shared.journal import Journal, JournalRecord, RecordTooLarge
from shared.microbatch import MicroBatcher
from shared.problems import Problem, Unavailable
from shared.topics import LARGEST_RECORD_BYTES, PREDICTIONS, cloud_event_headers

Batcher = MicroBatcher["Waiting", "Prediction"]
PREDICTED = Counter("contender_predictions_total", "Predictions that are in the journal", ["model", "variant"])
FALLBACKS = Counter(
    "contender_fallbacks_total", "Predictions that not their own variant answered", ["model", "variant"]
)
DEGRADED = Counter("contender_degraded_total", "Predictions made without all of their features", ["model", "variant"])
BATCH_ROWS = Histogram(
    "contender_batch_rows", "Rows in a micro-batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)


class Outputs(msgspec.Struct, frozen=True):
    """The score (see PredictionBlock) and the label it stands for."""

    score: float | list[float]
    label: Scalar


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `prediction_id` is what feedback refers to."""

    prediction_id: str
    model: str
    version: str
    variant: str | None
    experiment: str | None
    outputs: Outputs
    inputs: dict[str, Scalar] | msgspec.UnsetType = msgspec.UNSET
    degraded: bool


@dataclass(eq=False, slots=True)
class Call:
    """What the rows of one call have in common: `is_over` when nobody waits for their answers any more."""

    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row on its way to a micro-batch, checked against all that `experiment` might assign.

    Rows of one `call` are answered all or none: a caller that is told 503 has no ids to give feedback for, and labels
    that are missing in one arm alone would skew the comparison.
    """

    call: Call
    model: Model
    experiment: ExperimentRevision | None
    row: Row
    arrived: float


class Predict:
    """Answers predictions in micro-batches: concurrent calls share the calls they lead to, and one write."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        experiments: Experiments,
        scorer: Scorer,
        journal: Journal,
        clock: Clock,
        settings: RouterSettings,
    ) -> None:
        self._catalog = catalog
        self._experiments = experiments
        self._scorer = scorer
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self.batcher = Batcher(
            self._answer,
            senders=settings.senders,
            batch_limit=settings.batch_limit,
            queue_limit=settings.queue_limit,
            deadline_s=settings.deadline_s,
        )

    async def rows(self, model: str, rows: Sequence[Row], *, batch: bool) -> list[Prediction]:
        """Predictions of rows, in order; durable when this returns.

        A call that is given up, by its caller or at its deadline, is not written down. What remains is the moment in
        which the journal goes to the disk: a call that ends there is refused, and in the record all the same.

        Raises:
            UnknownModelError: no version of the model is registered.
            TooLarge, Unprocessable: the rows are not what the model takes, or make too large a record.
            ModelUnavailableError: nobody could answer.
            JournalFull, Overloaded: ask again later.
        """
        arrived, call = perf_counter(), Call()
        self._journal.check_room()  # before anything is assigned or paid for
        found = await self._catalog.find(model)
        experiment = self._running(found)
        versions = list(_candidates(found, experiment).values())
        limits = self._settings
        requirements = Requirements(versions, self._catalog, limits.text_limit, limits.key_limit)
        check_rows(rows, requirements, batch=batch, now=self._clock.now(), row_limit=limits.row_limit)
        try:
            return await self.batcher.submit_all([Waiting(call, found, experiment, row, arrived) for row in rows])
        finally:
            call.is_over = True

    async def _answer(self, waiting: list[Waiting]) -> Sequence[Prediction | Exception]:
        BATCH_ROWS.observe(len(waiting))
        now = self._clock.now()
        plans = [_plan(one, now) for one in waiting]
        results = await self._scorer.score(plans)
        refusals: dict[Call, Problem] = {}
        for one, result in zip(waiting, results, strict=True):
            if one.call.is_over:
                refusals[one.call] = Unavailable("nobody waits for the answer")
            elif isinstance(result, CallError):
                refusals.setdefault(one.call, _unavailable(result))
        answered = [
            (one.call, result)
            for one, result in zip(waiting, results, strict=True)
            if isinstance(result, Scored) and one.call not in refusals
        ]
        predictions = iter(await self._written(answered, now, refusals))
        return [refusals[one.call] if one.call in refusals else next(predictions) for one in waiting]

    def _running(self, model: Model) -> ExperimentRevision | None:
        """The experiment that runs on a model; None while the catalog has not read the versions it started with."""
        experiment = self._experiments.running(model.name)
        if experiment is None or any(variant.version not in model.versions for variant in experiment.variants):
            return None
        return experiment

    async def _written(
        self, answered: list[tuple[Call, Scored]], now: float, refusals: dict[Call, Problem]
    ) -> list[Prediction]:
        """Answers to the rows, which are in the journal when this returns; calls with too large a row are refused."""
        parts = split([scored for _, scored in answered], encoded)
        too_large = {answered[part.start][0] for part in parts if len(part.encoded) > LARGEST_RECORD_BYTES}
        if too_large:
            refusals |= dict.fromkeys(too_large, RecordTooLarge("a row is larger than a record may be"))
            answered = [one for one in answered if one[0] not in too_large]
            parts = split([scored for _, scored in answered], encoded)
        if not answered:
            return []
        records, ids = [], []
        for part in parts:
            frame_id = new_frame_id(now)
            shard = random.randrange(self._settings.partitions)  # noqa: S311 - spreads load, keeps no secret
            headers = cloud_event_headers(PREDICTIONS, frame_id)
            records.append(JournalRecord(PREDICTIONS.name, shard, frame_id.encode(), headers, part.encoded.value))
            ids += [PredictionId(frame_id, shard, row) for row in part.encoded.rows]
        self._journal.append_all(records)
        await self._journal.flush()
        _count([scored for _, scored in answered])
        return [_prediction(scored, one) for (_, scored), one in zip(answered, ids, strict=True)]


def _candidates(model: Model, experiment: ExperimentRevision | None) -> dict[str, ModelVersion]:
    """The versions that might answer; whoever is asked must not depend on what a row brings."""
    variants = experiment.variants if experiment else []
    names = [model.champion.version, *(variant.version for variant in variants)]
    return {name: model.versions[name] for name in names}


def _plan(waiting: Waiting, now: float) -> Plan:
    experiment, row = waiting.experiment, waiting.row
    variant = assign(experiment, row.unit) if experiment else None
    return Plan(row, now if row.time is None else row.time, waiting.model, experiment, variant, waiting.arrived)


def _prediction(one: Scored, prediction_id: PredictionId) -> Prediction:
    plan = one.plan
    return Prediction(
        prediction_id=str(prediction_id),
        model=plan.model.name,
        version=one.version.version,
        variant=plan.variant.name if plan.variant else None,
        experiment=plan.experiment.name if plan.experiment and plan.variant else None,
        outputs=Outputs(one.score, one.label),
        inputs=one.inputs if plan.row.return_inputs else msgspec.UNSET,
        degraded=one.degraded,
    )


def _count(answered: Sequence[Scored]) -> None:
    for one in answered:
        model, assigned = one.plan.model.name, one.plan.variant.name if one.plan.variant else None
        labels = (model, assigned or "")
        PREDICTED.labels(*labels).inc()
        if one.degraded:
            DEGRADED.labels(*labels).inc()
        if one.served_variant != assigned:
            FALLBACKS.labels(*labels).inc()


def _unavailable(error: CallError) -> ModelUnavailableError:
    return ModelUnavailableError(f"the model can't answer at the moment: {error}")
