"""From rows to the answers of one version: features, then scores, each row on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from contender.contracts.inference_service import InputColumn, ModelVersion, RowFault
from contender.contracts.problems import FieldError
from contender.contracts.values import Scalar
from services.ab_router.breaker import Breaker
from services.ab_router.calls import CallError, QuestionRefusedError
from services.ab_router.catalog import REQUEST, Catalog
from services.ab_router.clients import Features, Inference, Needs, Score
from services.ab_router.isolation import ask_by_halves
from services.ab_router.rows import AssignedRow, Outcome, RefusedRow, ScoredRow, UnansweredRow, Value
from services.ab_router.settings import RouterSettings
from shared.errors import shortened

_INVALID = "INVALID"
_MESSAGE_CHARACTERS = 300
_MODEL_AWAY = UnansweredRow("the model can't answer at the moment")
_FEATURES_AWAY = UnansweredRow("the model's features can't be read at the moment, and it has no defaults for them")
_NOT_SCORED = "can't be scored by this model"
_OUTAGE_STATUS = 503


@dataclass(frozen=True, slots=True)
class _Served:
    """One row's features by reference; `is_whole` when the service could be asked for all of them."""

    values: Mapping[str, Scalar]
    statuses: Mapping[str, str]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A row with what the version is asked; `lacking` names columns that are null because features are away."""

    row: AssignedRow
    inputs: dict[str, Scalar]
    statuses: dict[str, str]
    degraded: bool
    lacking: frozenset[str]


_Answer = tuple[Value, Scalar] | RowFault


class Scorer:
    """Answers rows by one version.

    Args:
        features: where they are served.
        inference: where versions run.
        catalog: knows what features need.
        settings: the deadline, which bounds the search for rows that are refused, and how breakers open and rest.
    """

    def __init__(self, features: Features, inference: Inference, catalog: Catalog, settings: RouterSettings) -> None:
        self._features = features
        self._inference = inference
        self._catalog = catalog
        self._settings = settings
        self._budget_s = settings.deadline_s
        self._feature_breakers: dict[frozenset[str], Breaker] = {}

    async def score(self, version: ModelVersion, rows: Sequence[AssignedRow], breaker: Breaker) -> list[Outcome]:
        """One outcome per row, in order; the breaker learns whether the version answers."""
        outcomes: list[Outcome | _Prepared] = [
            self._prepared(version, row, served) if isinstance(served, _Served) else served
            for row, served in zip(rows, await self._served(version, rows), strict=True)
        ]
        prepared = [outcome for outcome in outcomes if isinstance(outcome, _Prepared)]
        answers = iter(await self._answers(version, prepared, breaker)) if prepared else iter(())
        now = perf_counter()
        return [
            _outcome(version, outcome, next(answers), now) if isinstance(outcome, _Prepared) else outcome
            for outcome in outcomes
        ]

    async def _served(self, version: ModelVersion, rows: Sequence[AssignedRow]) -> Sequence[_Served | RefusedRow]:
        """The features of each row."""
        references, needs = self._catalog.needs(version)
        wanted = {column.source for column in version.inputs if column.source != REQUEST}
        if not references:
            return [_Served({}, {}, is_whole=not wanted)] * len(rows)
        is_whole = len(references) == len(wanted)
        breaker = self._feature_breaker(references)

        async def ask(part: Sequence[AssignedRow]) -> list[_Served]:
            permission = breaker.permission()
            if permission == "wait":
                raise CallError("the features have failed several times in a row and are tried again shortly")
            try:
                served = await self._features_of(part, references, needs, is_whole=is_whole)
            except QuestionRefusedError:
                breaker.note_success()
                raise
            except CallError:
                breaker.note_failure()
                raise
            finally:
                if permission == "try":
                    breaker.end_trial()
            breaker.note_success()
            return served

        return [
            served if isinstance(served, _Served) else _without_features(served, needs)
            for served in await ask_by_halves(rows, ask, self._budget_s)
        ]

    def _feature_breaker(self, references: Sequence[str]) -> Breaker:
        """The breaker of calls for these features: arms that share them lose them and get them back together."""
        key = frozenset(references)
        if key not in self._feature_breakers:
            if len(self._feature_breakers) >= self._settings.version_limit:
                self._feature_breakers.clear()
            limits = self._settings
            self._feature_breakers[key] = Breaker(limits.breaker_failures, limits.breaker_rest_s)
        return self._feature_breakers[key]

    async def _features_of(
        self, rows: Sequence[AssignedRow], references: list[str], needs: Needs, *, is_whole: bool
    ) -> list[_Served]:
        columns: dict[str, list[Scalar]] = {
            **{key: [row.row.entities.get(key) for row in rows] for key in needs.join_keys},
            **{name: [row.row.inputs.get(name) for row in rows] for name in needs.request},
        }
        try:
            served = await self._features.get(references, columns, [row.time for row in rows])
        except QuestionRefusedError as refusal:
            if any(error.field.startswith("feature") for error in refusal.errors):  # about the version, not about rows
                raise CallError(str(refusal)) from refusal
            raise
        is_whole = is_whole and len(served.values) == len(references)
        values = zip(*served.values.values(), strict=True) if served.values else [()] * len(rows)
        statuses = zip(*served.statuses.values(), strict=True) if served.statuses else [()] * len(rows)
        return [
            _Served(
                dict(zip(served.values, row_values, strict=True)),
                dict(zip(served.statuses, row_statuses, strict=True)),
                is_whole,
            )
            for row_values, row_statuses in zip(values, statuses, strict=True)
        ]

    def _prepared(self, version: ModelVersion, row: AssignedRow, served: _Served) -> _Prepared | Outcome:
        """What the version is asked for a row: defaults stand in for what is missing or null."""
        inputs: dict[str, Scalar] = {}
        lacking, degraded = set(), not served.is_whole
        for column in version.inputs:
            is_feature = column.source != REQUEST
            value = served.values.get(column.source) if is_feature else row.row.inputs.get(column.name)
            inputs[column.name] = column.default if value is None else value
            if not is_feature:
                continue
            status = served.statuses.get(column.source)
            degraded = degraded or status == _INVALID
            if column.default is None and status == _INVALID:
                return RefusedRow(self._invalid(column))
            if column.default is None and status is None:
                lacking.add(column.name)
        if lacking and any(column.required for column in version.inputs if column.name in lacking):
            return _FEATURES_AWAY
        statuses = {
            column.name: served.statuses[column.source] for column in version.inputs if column.source in served.statuses
        }
        return _Prepared(row, inputs, statuses, degraded, frozenset(lacking))

    def _invalid(self, column: InputColumn) -> list[FieldError]:
        """Which columns of the request a feature could not be computed from."""
        message = f"is not a value that {column.source} can be computed from"
        names = self._catalog.request_columns(column.source)
        return [FieldError(f"inputs.{name}", message) for name in names] or [
            FieldError(f"inputs.{column.name}", "can't be computed for this row")
        ]

    async def _answers(
        self, version: ModelVersion, prepared: Sequence[_Prepared], breaker: Breaker
    ) -> list[_Answer | CallError]:
        async def ask(part: Sequence[_Prepared]) -> list[_Answer]:
            if breaker.is_open and part is not prepared:
                raise CallError("the version has stopped to answer")
            inputs = {column.name: [row.inputs[column.name] for row in part] for column in version.inputs}
            try:
                score = await self._inference.predict(version.model, version.version, inputs)
            except QuestionRefusedError:
                breaker.note_success()
                raise
            except CallError:
                breaker.note_failure()
                raise
            breaker.note_success()
            return _by_row(score)

        return await ask_by_halves(prepared, ask, self._budget_s)


def _outcome(version: ModelVersion, prepared: _Prepared, answer: _Answer | CallError, now: float) -> Outcome:
    if isinstance(answer, QuestionRefusedError):
        return _refused(prepared, _errors_of(version, answer))
    if isinstance(answer, CallError):
        return _MODEL_AWAY
    if isinstance(answer, RowFault):
        if answer.status >= _OUTAGE_STATUS:
            return _MODEL_AWAY
        message = shortened(answer.message, _MESSAGE_CHARACTERS)
        return _refused(prepared, [FieldError(answer.field or "inputs", message)])
    row = prepared.row
    return ScoredRow(
        row,
        version,
        row.variant_of(version),
        *answer,
        prepared.inputs,
        prepared.statuses,
        prepared.degraded,
        latency_ms=round((now - row.arrived) * 1e3, 3),
    )


def _refused(prepared: _Prepared, errors: list[FieldError]) -> RefusedRow | UnansweredRow:
    """The refusal, unless it may come from features that are away: then the same row may be answered later."""
    columns = {error.field.removeprefix("inputs.") for error in errors}
    is_own = not prepared.lacking or (columns <= prepared.inputs.keys() and not columns & prepared.lacking)
    return RefusedRow(errors) if is_own else _FEATURES_AWAY


def _errors_of(version: ModelVersion, refusal: QuestionRefusedError) -> list[FieldError]:
    """The columns that a refusal names, in our own words: another service's text is not for the caller."""
    fields = dict.fromkeys(error.field.partition("[")[0] for error in refusal.errors)
    known = {f"inputs.{column.name}" for column in version.inputs}
    return [FieldError(field, _NOT_SCORED) for field in fields if field in known] or [FieldError("inputs", _NOT_SCORED)]


def _without_features(error: CallError, needs: Needs) -> _Served | RefusedRow:
    """What becomes of a row whose features were not served: its own refusal, or its defaults."""
    if not isinstance(error, QuestionRefusedError):
        return _Served({}, {}, is_whole=False)
    fields = dict.fromkeys(named.field.partition("[")[0] for named in error.errors)
    errors = [
        FieldError(name, "is not a value that features can be looked up by")
        for name in (_own_field(field, needs) for field in fields)
        if name
    ]
    return RefusedRow(errors or [FieldError("entities", "are not what features can be looked up by")])


def _own_field(field: str, needs: Needs) -> str:
    """A field of the feature service's question as a field of the row; empty for any other."""
    if field == "event_timestamps":
        return "time"
    group, _, name = field.partition(".")
    if group != "entities":
        return ""
    return f"inputs.{name}" if name in needs.request else field if name in needs.join_keys else ""


def _by_row(score: Score) -> list[_Answer]:
    faults = {fault.row: fault for fault in score.errors}
    return [
        faults[row] if value is None or row in faults else (value, label)
        for row, (value, label) in enumerate(zip(score.scores, score.labels, strict=True))
    ]
