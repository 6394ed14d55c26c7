"""The use case of prediction: check, admit, assign, score, write to the journal, answer."""

import asyncio
from collections.abc import Sequence
from math import ceil
from time import perf_counter
from typing import Self

from contender.contracts.ab_router import Outputs, Prediction, PredictionRow
from services.ab_router.admission import Admission
from services.ab_router.answering import Answering
from services.ab_router.catalog import Catalog
from services.ab_router.domain.assignment import Assignment, InForce, first_assignments
from services.ab_router.errors import ModelUnavailableError
from services.ab_router.exploration import Exploration
from services.ab_router.handlers.experiments import Experiments
from services.ab_router.queues import VersionQueues
from services.ab_router.requests import FAULTS_SHOWN
from services.ab_router.row_rules import RowRules, RulesByModel
from services.ab_router.rows import AssignedRow, LostRow, RejectedRow, RowResult, ScoredRow, UnansweredRow
from services.ab_router.scoring import Scorer
from services.ab_router.settings import RouterSettings
from services.ab_router.shadows import Shadows
from services.ab_router.sticky import StickyUnits
from services.ab_router.traffic import Traffic
from services.ab_router.writer import Writer
from shared.clock import Clock
from shared.errors import FieldError, InvalidField, Overloaded, RecordTooLarge, ServiceError, TooLarge
from shared.ids import PredictionId
from shared.journal import Journal


class Predict:
    """Answers predictions in micro-batches: concurrent calls share the calls to other services, and one write.

    A row that nobody can score as it is gets its own refusal; the rows beside it are answered. But where a row might be
    scored later, its whole call is refused: the caller gets no ids to give feedback for. Labels that are missing in one
    arm alone would skew the comparison. Rows that were assigned and get no prediction are on record, too.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        experiments: Experiments,
        sticky: StickyUnits,
        scorer: Scorer,
        exploration: Exploration,
        shadows: Shadows,
        traffic: Traffic,
        journal: Journal,
        clock: Clock,
        settings: RouterSettings,
    ) -> None:
        self._catalog = catalog
        self._rules = RulesByModel(catalog, experiments, settings)
        self._sticky = sticky
        self._exploration = exploration
        self._shadows = shadows
        self._traffic = traffic
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._queues = VersionQueues(scorer, settings)
        self._answering = Answering(self._queues, settings.version_queue_limit, settings.challenger_deadline_s)
        self._writer = Writer(journal, clock, settings)
        self._admission = Admission(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._queues.drain()
        await self.noted()

    async def noted(self) -> None:
        """Return when the rows that got no prediction so far are on record, and the scores in shadow."""
        await self._writer.drain()
        await self._shadows.drain()

    async def rows(self, model: str, rows: Sequence[PredictionRow]) -> list[Prediction | ServiceError]:
        """A prediction or the refusal of each row, in order; predictions are durable when this returns.

        A call that ends early, at its deadline or because its caller left, is not written. Only one that ends while the
        journal is being written may be refused and yet recorded.

        Raises:
            UnknownModelError: no version of the model is registered.
            TooLarge, InvalidField: there are too many rows, or none.
            ModelUnavailableError: nobody could answer one of them at the moment.
            JournalFull, Overloaded, Unavailable: the same call may succeed later.
        """
        arrived = perf_counter()
        self._journal.check_room()  # before the other services have work
        _check_count(rows, self._settings.row_limit)
        registered = await self._catalog.find(model)
        rules, now = self._rules.of(registered), self._clock.now()
        refusals = [_refusal(faults) if (faults := rules.faults(row, now)) else None for row in rows]
        self._traffic.note(registered, rows, refusals)
        accepted = [row for row, refusal in zip(rows, refusals, strict=True) if refusal is None]
        with self._admission.admit(model, accepted) as sizes:
            answers = iter(await self._answered_in_time(rules, accepted, sizes, now, arrived))
        return [next(answers) if refusal is None else refusal for refusal in refusals]

    async def assignment(self, model: str, row: PredictionRow) -> Assignment:
        """What a prediction of the row would be assigned; nothing of it is kept.

        Raises:
            UnknownModelError, Unavailable: as `rows` does.
        """
        experiments = self._rules.of(await self._catalog.find(model)).experiments
        key = experiments.unit_key(row)
        return experiments.assign(row, await self._sticky.read([key]) if key else {})

    async def _answered_in_time(
        self, rules: RowRules, accepted: Sequence[PredictionRow], sizes: Sequence[int], now: float, arrived: float
    ) -> list[Prediction | ServiceError]:
        """Assign, score and write rows.

        Raises:
            Overloaded: there is no answer in time.
        """
        if not accepted:
            return []
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                assignments = await self._assignments(rules.experiments, accepted)
                rows = [
                    AssignedRow(row, now if row.time is None else row.time, rules.model, assignment, arrived, size)
                    for row, assignment, size in zip(accepted, assignments, sizes, strict=True)
                ]
                results = await self._results(rows)
                self._exploration.decide(result for result in results if isinstance(result, ScoredRow))
                ids = await self._write(rows, results)
        except TimeoutError as error:
            raise Overloaded(f"no answer within {self._settings.deadline_s:g} s") from error
        self._shadows.add(results, ids)
        return [_answer(result, prediction_id) for result, prediction_id in zip(results, ids, strict=True)]

    async def _assignments(self, experiments: InForce, rows: Sequence[PredictionRow]) -> list[Assignment]:
        """Each row's assignment; units whose first one decides are looked up together, in one call."""
        keys = {key for row in rows if (key := experiments.unit_key(row))}
        first = await self._sticky.read(keys) if keys else {}
        assignments = [experiments.assign(row, first) for row in rows]
        self._sticky.note(first_assignments(rows, assignments))
        return assignments

    async def _results(self, rows: Sequence[AssignedRow]) -> list[ScoredRow | RejectedRow]:
        """Each row's score or refusal; notes all rows as failed where one has neither, or their time is over.

        Raises:
            ModelUnavailableError: nobody could answer one of them at the moment.
            Overloaded: more models are busy than are served at once.
        """
        try:
            results = await self._answering.answer(rows)
            return [_settled(row, result, self._settings) for row, result in zip(rows, results, strict=True)]
        except (ServiceError, asyncio.CancelledError):
            self._writer.note([LostRow(row, "failed") for row in rows if row.counts])
            raise

    async def _write(
        self, rows: Sequence[AssignedRow], results: Sequence[ScoredRow | RejectedRow]
    ) -> list[PredictionId | None]:
        """Ids of the scored rows, None for others. Waits for the disk only for the sake of scored rows."""
        frame_rows: dict[int, ScoredRow | LostRow] = {}
        for index, (row, result) in enumerate(zip(rows, results, strict=True)):
            if isinstance(result, ScoredRow):
                frame_rows[index] = result
            elif row.counts:
                frame_rows[index] = LostRow(row, "refused")
        lost = [row for row in frame_rows.values() if isinstance(row, LostRow)]
        if len(lost) == len(frame_rows):
            self._writer.note(lost)
            return [None] * len(rows)
        written = await self._writer.write(list(frame_rows.values()))
        ids = dict(zip(frame_rows, written, strict=True))
        return [ids.get(index) for index in range(len(rows))]


def all_refused(answers: Sequence[Prediction | ServiceError]) -> ServiceError | None:
    """The error of a call all of whose rows are refused, which names the rows; None where a row is answered."""
    problems = [answer for answer in answers if isinstance(answer, ServiceError)]
    if len(problems) < len(answers):
        return None
    errors = [
        FieldError(f"rows[{row}].{error.field}", error.message)
        for row, problem in enumerate(problems)
        for error in problem.errors
    ]
    kind = type(problems[0]) if len({type(problem) for problem in problems}) == 1 else InvalidField
    return kind(_sentence(errors) or problems[0].detail, errors[:FAULTS_SHOWN])


def _check_count(rows: Sequence[PredictionRow], row_limit: int) -> None:
    if len(rows) > row_limit:
        raise TooLarge(f"rows has {len(rows)} entries; one call takes {row_limit}")
    if not rows:
        raise InvalidField.at("rows", "is empty")


def _settled(row: AssignedRow, result: RowResult, settings: RouterSettings) -> ScoredRow | RejectedRow:
    if isinstance(result, UnansweredRow):
        raise ModelUnavailableError(
            f"model {row.model.name}: {result.reason}", retry_after_s=ceil(settings.breaker_rest_s)
        )
    return result


def _answer(result: ScoredRow | RejectedRow, prediction_id: PredictionId | None) -> Prediction | ServiceError:
    if isinstance(result, RejectedRow):
        return _refusal(result.errors)
    if prediction_id is None:
        return RecordTooLarge("the row is larger than a record may be; send shorter inputs, entities or context")
    return _prediction(result, prediction_id)


def _prediction(scored: ScoredRow, prediction_id: PredictionId) -> Prediction:
    assigned = scored.assigned
    assignment, variant, experiment = assigned.assignment, assigned.variant, assigned.experiment
    return Prediction(
        prediction_id=str(prediction_id),
        model=assigned.model.name,
        version=scored.version.version,
        variant=variant.name if variant else None,
        experiment=experiment.name if experiment else None,
        outputs=Outputs(scored.score, scored.label),
        inputs=scored.inputs if assigned.request.return_inputs else {},
        degraded=scored.degraded,
        explore=scored.explore,
        reason=assignment.reason,
        revision=experiment.revision if experiment else 0,
        epoch=assignment.epoch,
        share=assignment.share,
        probability=assignment.probability,
        excluded=assignment.excluded,
    )


def _refusal(errors: Sequence[FieldError]) -> InvalidField:
    return InvalidField(_sentence(errors), errors)


def _sentence(errors: Sequence[FieldError]) -> str:
    return "; ".join(f"{error.field} {error.message}" for error in errors[:3])
