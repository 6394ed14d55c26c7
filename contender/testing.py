"""A Contender for tests of applications: `Client(transport=FakeContender().transport)` needs no running services.

AsyncClient takes the same transport.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import httpx

from contender.contracts import ab_router, feedback_service, problems
from contender.contracts.experiments import (
    LIST_EXPERIMENTS,
    SHOW_EXPERIMENT,
    UNKNOWN_EXPERIMENT,
    ExperimentRevision,
    Status,
    VariantAllocation,
)
from contender.contracts.inference_service import InputColumn
from contender.contracts.values import OUTCOME, Dtype, Outcome
from contender.faking.calls import CallRefusedError, Calls, KeptAnswers, answer_call, decoded, encoded, sentence
from contender.faking.checks import Reports, below, misplaced_ids, report_faults, request_id_faults, row_faults
from contender.faking.experiments import assigned, declared_revision

KeptT = TypeVar("KeptT")
_FALLEN = "FakeContender is asked to fail"


@dataclass
class FakeContender:
    """Answers predictions and takes feedback in this process, and remembers both.

    Units are assigned as the router does, in the experiments that a test declares with `experiment`. A call is refused
    as the services refuse it: a row with faults, a model that is not there, an id that is used twice; `overload` and
    `outage` make the next calls fail.

    Attributes:
        answer: the outputs for a row; default: a score of 0.5 and the label True.
        answers: those of single versions, by version.
        version: the version that predictions outside of experiments name.
        explore: whether the application is asked to let the row's label be seen; default: never.
        models: the columns of the models that a test declares with `model`; without any, every model is there, and
            takes any inputs.
        experiments: the experiments that a test declares, by name.
        rows: the rows that were asked for, oldest first.
        outcomes: what came true, by prediction id.
        reports: all that was reported on predictions, ratings and the like as well, oldest first.
        results: the results that an experiment has, at any time, by its name.
        verdicts: the verdicts that an experiment has, by its name.

    Other calls, and those for experiments without results or verdicts here, are answered with 404, which a client
    raises as RefusedError.
    """

    answer: Callable[[ab_router.PredictionRow], ab_router.Outputs] = lambda _: ab_router.Outputs(0.5, True)
    answers: dict[str, Callable[[ab_router.PredictionRow], ab_router.Outputs]] = field(default_factory=dict)
    version: str = "fake"
    explore: Callable[[ab_router.PredictionRow], bool] = lambda _: False
    models: dict[str, list[InputColumn]] = field(default_factory=dict)
    experiments: dict[str, ExperimentRevision] = field(default_factory=dict)
    rows: list[ab_router.PredictionRow] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reports: list[feedback_service.FeedbackItem] = field(default_factory=list)
    results: dict[str, feedback_service.Results] = field(default_factory=dict)
    verdicts: dict[str, list[feedback_service.VerdictEvent]] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _failures: list[Exception] = field(default_factory=list)
    _kept: KeptAnswers = field(default_factory=KeptAnswers)

    @property
    def transport(self) -> httpx.MockTransport:
        """The transport for `Client(transport=...)` and `AsyncClient(transport=...)`."""
        return httpx.MockTransport(self._serve)

    def model(self, name: str, inputs: Mapping[str, Dtype | InputColumn]) -> None:
        """Declare a model with its columns: a type such as `float` or `string`, or an InputColumn."""
        self.models[name] = [
            column if isinstance(column, InputColumn) else InputColumn(column_name, column)
            for column_name, column in inputs.items()
        ]

    def experiment(
        self,
        model: str,
        *,
        variants: Mapping[str, float] | Sequence[VariantAllocation],
        name: str | None = None,
        seed: str | None = None,
        status: Status = "running",
        **declared: Any,
    ) -> ExperimentRevision:
        """Declare an experiment that assigns units from now on; another call with its name replaces it.

        Args:
            model: whose units are split.
            variants: their shares by name; the versions have the same names. Or allocations, with versions.
            name: default: the model's.
            seed: of the hash; default: the name. With a real experiment's seed, units get what they get there.
            status: running, paused or decided.
            declared: further fields of a declaration, such as `coverage`, `targeting`, `namespace`, `forced`,
                `holdout` and `unit_missing`.
        """
        name = name or model
        revision = declared_revision(model, variants, name=name, seed=seed or name, status=status, **declared)
        self.experiments[revision.name] = revision
        return revision

    def overload(self, calls: int = 1) -> None:
        """Refuse the next calls, because more are queued than can be answered."""
        self._failures += [CallRefusedError(problems.OVERLOADED, _FALLEN) for _ in range(calls)]

    def outage(self, calls: int = 1) -> None:
        """Let nobody answer the next calls."""
        self._failures += [httpx.ConnectError(_FALLEN) for _ in range(calls)]

    def _serve(self, request: httpx.Request) -> httpx.Response:
        try:
            if self._failures:
                raise self._failures.pop(0)
            return answer_call(self._calls(), request)
        except CallRefusedError as refusal:
            return refusal.render()

    def _calls(self) -> Calls:
        return [
            (ab_router.PREDICT, self._predict),
            (ab_router.PREDICT_BATCH, self._predict_batch),
            (feedback_service.GIVE_FEEDBACK, self._give_feedback),
            (feedback_service.GET_RESULTS, lambda _, name: encoded(self._known_of(self.results, name))),
            (
                feedback_service.LIST_VERDICTS,
                lambda _, name: encoded({"verdicts": self._known_of(self.verdicts, name)}),
            ),
            (LIST_EXPERIMENTS, lambda _: encoded({"experiments": list(self.experiments.values())})),
            (SHOW_EXPERIMENT, lambda _, name: encoded(self._known_of(self.experiments, name))),
        ]

    def _known_of(self, kept: Mapping[str, KeptT], name: str) -> KeptT:
        if name not in kept:
            raise CallRefusedError(UNKNOWN_EXPERIMENT, f"FakeContender was given nothing of experiment {name}")
        return kept[name]

    def _predict(self, request: httpx.Request, model: str) -> httpx.Response:
        row = decoded(request, ab_router.PredictionRow)

        def answer() -> ab_router.Prediction:
            if faults := self._faults(model, row):
                raise CallRefusedError.of_fields(problems.INVALID_FIELD, faults)
            return self._prediction(model, row)

        return self._once(model, row.request_id, row, answer)

    def _predict_batch(self, request: httpx.Request, model: str) -> httpx.Response:
        batch = decoded(request, ab_router.PredictionRows)
        if misplaced := misplaced_ids(batch.rows):
            raise CallRefusedError.of_fields(problems.INVALID_FIELD, misplaced)

        def answer() -> Mapping[str, Any]:
            all_faults = [self._faults(model, row) for row in batch.rows]
            if all(all_faults):
                named = [below(f"rows[{number}]", faults) for number, faults in enumerate(all_faults)]
                errors = [error for row_errors in named for error in row_errors]
                raise CallRefusedError.of_fields(
                    problems.INVALID_FIELD, errors or [problems.FieldError("rows", "is empty")]
                )
            return {
                "predictions": [
                    {"error": problems.details(problems.INVALID_FIELD, sentence(faults), faults)}
                    if faults
                    else self._prediction(model, row)
                    for row, faults in zip(batch.rows, all_faults, strict=True)
                ]
            }

        return self._once(model, batch.request_id, batch, answer)

    def _once(self, model: str, request_id: str, body: object, answer: Callable[[], object]) -> httpx.Response:
        """The answer, or that of the call which had the same id."""
        if self.models and model not in self._model_names():
            raise CallRefusedError(ab_router.UNKNOWN_MODEL, f"there is no model {model}")
        if faults := request_id_faults(request_id):
            raise CallRefusedError.of_fields(problems.INVALID_FIELD, faults)
        if not request_id:
            return encoded(answer())
        return self._kept.answer((model, request_id), body, answer)

    def _model_names(self) -> set[str]:
        return {*self.models, *(experiment.model for experiment in self.experiments.values())}

    def _in_force(self, model: str) -> list[ExperimentRevision]:
        known = self.experiments.values()
        return [each for each in known if each.model == model and each.status not in ("draft", "stopped")]

    def _faults(self, model: str, row: ab_router.PredictionRow) -> list[problems.FieldError]:
        return row_faults(row, self._in_force(model), self.models.get(model, ()))

    def _prediction(self, model: str, row: ab_router.PredictionRow) -> ab_router.Prediction:
        self.rows.append(row)
        assignment = assigned(self._in_force(model), row)
        experiment, variant = assignment.experiment, assignment.variant
        version = variant.version if variant else self.version
        return ab_router.Prediction(
            prediction_id=f"prediction-{next(self._numbers)}",
            model=model,
            version=version,
            variant=variant.name if variant else None,
            experiment=experiment.name if experiment else None,
            outputs=self.answers.get(version, self.answer)(row),
            degraded=False,
            inputs=row.inputs if row.return_inputs else {},
            explore=self.explore(row),
            reason=assignment.reason,
            revision=experiment.revision if experiment else 0,
            epoch=experiment.epoch if experiment else 0,
            share=assignment.share,
            probability=assignment.probability,
            excluded=assignment.excluded,
        )

    def _give_feedback(self, request: httpx.Request) -> httpx.Response:
        reports = decoded(request, Reports).feedback
        errors = [
            error for number, item in enumerate(reports) for error in below(f"feedback[{number}]", report_faults(item))
        ]
        if errors:
            raise CallRefusedError.of_fields(feedback_service.INVALID_FEEDBACK, errors)
        self.reports += reports
        self.outcomes |= {
            item.prediction_id: value for item in reports if (value := item.reports.get(OUTCOME)) is not None
        }
        return encoded(feedback_service.FeedbackAccepted(len(reports)), status=feedback_service.GIVE_FEEDBACK.status)
