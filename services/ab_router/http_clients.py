"""The feature service and the inference service over HTTP."""

from collections.abc import Mapping, Sequence

import msgspec

from contender.contracts import feature_service, inference_service
from contender.contracts.feature_service import DefinitionsDocument, OnlineFeatures, OnlineFeaturesQuestion
from contender.contracts.inference_service import ModelVersion, Promotion, RowsQuestion, ScoredRows, VersionSummary
from contender.contracts.values import Scalar
from services.ab_router.calls import Caller
from services.ab_router.clients import ServedFeatures, ViewInputs
from shared.http_client import Answer, ServiceClient
from shared.logs import logger

_LOG = logger(__name__)
_NOT_MODIFIED = 304


class HttpFeatures:
    """The feature service over HTTP."""

    def __init__(self, client: ServiceClient, timeout_s: float, body_limit_bytes: int) -> None:
        self._caller = Caller(client, "feature_service", timeout_s, body_limit_bytes)

    async def view_inputs(self) -> dict[str, ViewInputs]:
        """The inputs of views, by `view@version` and by name."""
        return await self._caller.call(feature_service.SHOW_DEFINITIONS, _inputs_by_view)

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        """Features of rows at their times."""
        question = OnlineFeaturesQuestion(
            entities=dict(entities), features=list(references), full_feature_names=True, event_timestamps=times
        )

        def by_reference(answer: OnlineFeatures) -> ServedFeatures:
            return _by_reference(answer, references, len(times))

        return await self._caller.call(feature_service.GET_ONLINE_FEATURES, by_reference, question)


class _UnreadVersions(msgspec.Struct):
    """A VersionList whose entries are decoded one by one, so that one of another release does not hide the rest."""

    versions: list[msgspec.Raw]


class HttpInference:
    """The inference service over HTTP."""

    def __init__(self, client: ServiceClient, timeout_s: float, body_limit_bytes: int) -> None:
        self._caller = Caller(client, "inference_service", timeout_s, body_limit_bytes)
        self._versions: list[ModelVersion] = []
        self._etag = ""
        self._faults: list[str] = []

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer, where every call after it has failed; 0 when the last one was answered."""
        return self._caller.silent_s

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model; logs and leaves out those that can't be read."""
        headers = {"if-none-match": self._etag} if self._etag else {}
        return await self._caller.send(inference_service.LIST_VERSIONS, self._read_versions, headers=headers)

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> ScoredRows:
        """Scores of rows given by column."""
        rows = len(next(iter(inputs.values()), []))

        def checked(answer: ScoredRows) -> ScoredRows:
            return _checked(answer, rows)

        question = RowsQuestion(dict(inputs))
        return await self._caller.call(inference_service.PREDICT_ROWS, checked, question, model=model, version=version)

    async def promote(self, model: str, promotion: Promotion) -> None:
        """Make a version the champion of a model."""

        def check(_: VersionSummary) -> None:
            """Any summary will do."""

        await self._caller.call(inference_service.PROMOTE_VERSION, check, promotion, model=model)

    def _read_versions(self, answer: Answer) -> list[ModelVersion]:
        if answer.status != _NOT_MODIFIED:
            entries = msgspec.json.decode(answer.content, type=_UnreadVersions).versions
            self._versions = self._readable(entries)
            self._etag = answer.headers.get("etag", "")
        return self._versions

    def _readable(self, entries: Sequence[msgspec.Raw]) -> list[ModelVersion]:
        versions, faults = [], []
        for entry in entries:
            try:
                versions.append(msgspec.json.decode(entry, type=ModelVersion))
            except (msgspec.ValidationError, RecursionError) as error:
                faults.append(str(error))
        if faults and faults != self._faults:
            _LOG.warning("some registered versions can't be read and are left out", errors=faults[:5])
        self._faults = faults
        return versions


def _inputs_by_view(definitions: DefinitionsDocument) -> dict[str, ViewInputs]:
    inputs: dict[str, ViewInputs] = {}
    for view in definitions.views:
        inputs[view.label] = ViewInputs(view.join_keys, view.request)
        if view.newest:
            inputs[view.name] = inputs[view.label]
    return inputs


def _by_reference(answer: OnlineFeatures, references: Sequence[str], rows: int) -> ServedFeatures:
    columns = dict(zip(answer.metadata.feature_names, answer.results, strict=True))
    served = ServedFeatures({}, {})
    for reference in references:
        column = columns[reference.replace(":", "__")]
        values = [value for value in column.values if not isinstance(value, list)]
        if not len(values) == len(column.statuses) == rows:
            raise ValueError(f"{reference} has {len(values)} single values for {rows} rows")
        served.values[reference] = values
        served.statuses[reference] = column.statuses
    return served


def _checked(answer: ScoredRows, rows: int) -> ScoredRows:
    if not len(answer.scores) == len(answer.labels) == rows:
        raise ValueError(f"there are {len(answer.scores)} scores for {rows} rows")
    faulty = {fault.row for fault in answer.errors}
    unanswered = [row for row, score in enumerate(answer.scores) if score is None and row not in faulty]
    if unanswered:
        raise ValueError(f"row {unanswered[0]} has neither a score nor a fault")
    if not all(0 <= row < rows for row in faulty):
        raise ValueError(f"there are faults of rows beyond {rows}")
    return answer
