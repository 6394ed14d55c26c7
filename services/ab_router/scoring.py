"""From rows to the answers of one version: features, then scores, each row on its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter

from contender.contracts.inference_service import InputColumn, ModelVersion, RowFault, ScoredRows
from contender.contracts.values import REQUEST, Scalar, Score
from services.ab_router.catalog import Catalog
from services.ab_router.clients import (
    FAULTS,
    CallError,
    Features,
    Inference,
    QuestionRefusedError,
    ServedFeatures,
    ViewInputs,
)
from services.ab_router.isolation import ask_by_halves
from services.ab_router.rows import AssignedRow, RejectedRow, RowFeatures, RowResult, ScoredRow, UnansweredRow
from services.ab_router.settings import RouterSettings
from shared.breaker import Breaker, RetryBudget
from shared.errors import FieldError, shortened

_INVALID = "INVALID"
_HALVES_PER_ROW = 0.25
_HALVES_RESERVED = 512
"""Questions asked again in halves: a bad row among 1,024 takes 20 of them, and a flood of bad rows a quarter more calls
than rows."""
_MESSAGE_CHARACTERS = 300
_MODEL_AWAY = UnansweredRow("the model can't answer at the moment")
_FEATURES_AWAY = UnansweredRow("the model's features can't be read at the moment, and it has no defaults for them")
_NOT_SCORED = "can't be scored by this model"


@dataclass(frozen=True, slots=True)
class _PreparedRow:
    """A row with the version's inputs; `lacking` names columns that are null because features are away."""

    assigned: AssignedRow
    inputs: dict[str, Scalar]
    statuses: dict[str, str]
    degraded: bool
    lacking: frozenset[str]


_Answer = tuple[Score, Scalar] | RowFault


class Scorer:
    """Answers rows by one version.

    Args:
        features: where they are served.
        inference: where versions run.
        catalog: knows the inputs of views.
        settings: the deadline, which bounds the search for refused rows, and how breakers open and rest.
        note_features: counts the statuses of a model's served features, by `view:feature`.
        clock: seconds that only go forward, by which breakers rest.
    """

    def __init__(
        self,
        features: Features,
        inference: Inference,
        catalog: Catalog,
        settings: RouterSettings,
        *,
        note_features: Callable[[str, Mapping[str, Sequence[str]]], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._features = features
        self._inference = inference
        self._catalog = catalog
        self._note_features = note_features
        self._settings = settings
        self._clock = clock
        self._feature_breakers: dict[frozenset[str], Breaker] = {}
        self._feature_halves = RetryBudget("feature_service halves", _HALVES_PER_ROW, _HALVES_RESERVED)
        self._inference_halves = RetryBudget("inference_service halves", _HALVES_PER_ROW, _HALVES_RESERVED)

    def new_breaker(self) -> Breaker:
        """A closed breaker that opens and rests as the settings say."""
        return Breaker(self._settings.breaker_failures, self._settings.breaker_rest_s, FAULTS, self._clock)

    async def score(self, version: ModelVersion, rows: Sequence[AssignedRow], breaker: Breaker) -> list[RowResult]:
        """One result per row, in order; the breaker learns whether the version answers."""
        results: list[RowResult | _PreparedRow] = [
            self._prepare(version, row, features) if isinstance(features, RowFeatures) else features
            for row, features in zip(rows, await self._features_of(version, rows), strict=True)
        ]
        prepared = [result for result in results if isinstance(result, _PreparedRow)]
        answers = iter(await self._answers(version, prepared, breaker)) if prepared else iter(())
        now = perf_counter()
        return [
            _result(version, result, next(answers), now) if isinstance(result, _PreparedRow) else result
            for result in results
        ]

    async def _features_of(
        self, version: ModelVersion, rows: Sequence[AssignedRow]
    ) -> Sequence[RowFeatures | RejectedRow]:
        references, inputs = self._catalog.served_features(version)
        needed = {column.source for column in version.inputs if column.source != REQUEST}
        is_complete = len(references) == len(needed)
        if not references:
            return [RowFeatures({}, {}, is_complete)] * len(rows)
        known = [row.features for row in rows if row.features and row.features.values.keys() >= needed]
        if len(known) == len(rows):
            return known
        breaker = self._feature_breaker(references)

        async def ask(part: Sequence[AssignedRow]) -> list[RowFeatures]:
            served = await breaker.call(lambda: self._serve(part, references, inputs))
            self._note_features(version.model, served.statuses)
            is_whole = is_complete and len(served.values) == len(references)
            return _features_by_row(served, len(part), is_complete=is_whole)

        served = await ask_by_halves(rows, ask, self._settings.deadline_s, self._feature_halves)
        for row, features in zip(rows, served, strict=True):
            if isinstance(features, RowFeatures) and features.is_complete:
                row.features = features
        return [
            features if isinstance(features, RowFeatures) else _without_features(features, inputs)
            for features in served
        ]

    def _feature_breaker(self, references: Sequence[str]) -> Breaker:
        """The breaker of calls for these features: arms that share them lose them and get them back together."""
        key = frozenset(references)
        if key not in self._feature_breakers:
            if len(self._feature_breakers) >= self._settings.version_limit:
                self._feature_breakers.clear()
            self._feature_breakers[key] = self.new_breaker()
        return self._feature_breakers[key]

    async def _serve(self, rows: Sequence[AssignedRow], references: list[str], inputs: ViewInputs) -> ServedFeatures:
        columns: dict[str, list[Scalar]] = {
            **{key: [row.request.entities.get(key) for row in rows] for key in inputs.join_keys},
            **{name: [row.request.inputs.get(name) for row in rows] for name in inputs.request},
        }
        try:
            return await self._features.get(references, columns, [row.time for row in rows])
        except QuestionRefusedError as refusal:
            if any(error.field.startswith("feature") for error in refusal.errors):  # about the version, not about rows
                raise CallError(str(refusal)) from refusal
            raise

    def _prepare(self, version: ModelVersion, row: AssignedRow, features: RowFeatures) -> _PreparedRow | RowResult:
        """The version's inputs for a row: defaults stand in for missing and null values."""
        inputs: dict[str, Scalar] = {}
        lacking, degraded = set(), not features.is_complete
        for column in version.inputs:
            is_feature = column.source != REQUEST
            value = features.values.get(column.source) if is_feature else row.request.inputs.get(column.name)
            inputs[column.name] = column.default if value is None else value
            if not is_feature:
                continue
            status = features.statuses.get(column.source)
            degraded = degraded or status == _INVALID
            if column.default is None and status == _INVALID:
                return RejectedRow(self._invalid(column))
            if column.default is None and status is None:
                lacking.add(column.name)
        if lacking and any(column.required for column in version.inputs if column.name in lacking):
            return _FEATURES_AWAY
        statuses = {
            column.name: features.statuses[column.source]
            for column in version.inputs
            if column.source in features.statuses
        }
        return _PreparedRow(row, inputs, statuses, degraded, frozenset(lacking))

    def _invalid(self, column: InputColumn) -> list[FieldError]:
        """The columns of the request that a feature could not be computed from."""
        message = f"is not a value that {column.source} can be computed from"
        names = self._catalog.request_columns(column.source)
        return [FieldError(f"inputs.{name}", message) for name in names] or [
            FieldError(f"inputs.{column.name}", "can't be computed for this row")
        ]

    async def _answers(
        self, version: ModelVersion, prepared: Sequence[_PreparedRow], breaker: Breaker
    ) -> list[_Answer | CallError]:
        async def ask(part: Sequence[_PreparedRow]) -> list[_Answer]:
            if breaker.is_open and part is not prepared:
                raise CallError("the version does not answer any more")
            inputs = {column.name: [row.inputs[column.name] for row in part] for column in version.inputs}
            with breaker.watch():
                scored = await self._inference.predict(version.model, version.version, inputs)
            return _answers_by_row(scored)

        return await ask_by_halves(prepared, ask, self._settings.deadline_s, self._inference_halves)


def _features_by_row(served: ServedFeatures, rows: int, *, is_complete: bool) -> list[RowFeatures]:
    values = zip(*served.values.values(), strict=True) if served.values else [()] * rows
    statuses = zip(*served.statuses.values(), strict=True) if served.statuses else [()] * rows
    return [
        RowFeatures(
            dict(zip(served.values, row_values, strict=True)),
            dict(zip(served.statuses, row_statuses, strict=True)),
            is_complete,
        )
        for row_values, row_statuses in zip(values, statuses, strict=True)
    ]


def _result(version: ModelVersion, prepared: _PreparedRow, answer: _Answer | CallError, now: float) -> RowResult:
    if isinstance(answer, QuestionRefusedError):
        return _rejected(prepared, _errors_of(version, answer))
    if isinstance(answer, CallError):
        return _MODEL_AWAY
    if isinstance(answer, RowFault):
        if answer.is_temporary:
            return _MODEL_AWAY
        message = shortened(answer.message, _MESSAGE_CHARACTERS)
        return _rejected(prepared, [FieldError(answer.field or "inputs", message)])
    assigned = prepared.assigned
    return ScoredRow(
        assigned,
        version,
        assigned.variant_of(version),
        *answer,
        prepared.inputs,
        prepared.statuses,
        prepared.degraded,
        latency_ms=round((now - assigned.arrived) * 1e3, 3),
    )


def _rejected(prepared: _PreparedRow, errors: list[FieldError]) -> RejectedRow | UnansweredRow:
    """A rejection, unless features that are away may be its cause: then the same row may be answered later."""
    columns = {error.field.removeprefix("inputs.") for error in errors}
    is_rows_fault = not prepared.lacking or (columns <= prepared.inputs.keys() and not columns & prepared.lacking)
    return RejectedRow(errors) if is_rows_fault else _FEATURES_AWAY


def _errors_of(version: ModelVersion, refusal: QuestionRefusedError) -> list[FieldError]:
    """The columns that a refusal names, in our own words: another service's text is not for the caller."""
    fields = dict.fromkeys(error.field.partition("[")[0] for error in refusal.errors)
    known = {f"inputs.{column.name}" for column in version.inputs}
    return [FieldError(field, _NOT_SCORED) for field in fields if field in known] or [FieldError("inputs", _NOT_SCORED)]


def _without_features(error: CallError, inputs: ViewInputs) -> RowFeatures | RejectedRow:
    """A row for which no features were served: rejected where its question was refused, else left to defaults."""
    if not isinstance(error, QuestionRefusedError):
        return RowFeatures({}, {}, is_complete=False)
    fields = dict.fromkeys(named.field.partition("[")[0] for named in error.errors)
    errors = [
        FieldError(name, "is not a value that features can be looked up by")
        for name in (_own_field(field, inputs) for field in fields)
        if name
    ]
    return RejectedRow(errors or [FieldError("entities", "are not values that features can be looked up by")])


def _own_field(field: str, inputs: ViewInputs) -> str:
    """A field of the feature service's question as a field of the row; empty for any other."""
    if field == "event_timestamps":
        return "time"
    group, _, name = field.partition(".")
    if group != "entities":
        return ""
    return f"inputs.{name}" if name in inputs.request else field if name in inputs.join_keys else ""


def _answers_by_row(scored: ScoredRows) -> list[_Answer]:
    faults = {fault.row: fault for fault in scored.errors}
    return [
        faults[row] if score is None or row in faults else (score, label)
        for row, (score, label) in enumerate(zip(scored.scores, scored.labels, strict=True))
    ]
