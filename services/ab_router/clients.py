"""What the router asks of the feature service and the inference service, and how it asks over HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx
import msgspec

from contender.contracts.inference_service import ModelVersion, RowFault
from contender.contracts.values import Scalar
from services.ab_router.calls import Caller, CallError, QuestionRefusedError
from shared.logs import logger

__all__ = [
    "CallError",
    "Features",
    "HttpFeatures",
    "HttpInference",
    "Inference",
    "Needs",
    "QuestionRefusedError",
    "Score",
    "ServedFeatures",
]


class Score(msgspec.Struct, frozen=True):
    """Scores and labels of rows, as the inference service answers them; a row without a score has its fault."""

    scores: list[float | list[float] | None]
    labels: list[Scalar]
    errors: list[RowFault] = []


@dataclass(frozen=True, slots=True)
class ServedFeatures:
    """Values and statuses by feature reference (`view:feature`), one entry per row."""

    values: dict[str, list[Scalar]]
    statuses: dict[str, list[str]]


class Needs(msgspec.Struct, frozen=True):
    """What the features of a view are looked up by, and which columns of the request they are computed from.

    `request` has the type by column: str, int, float or bool.
    """

    join_keys: list[str] = []
    request: dict[str, str] = {}


class Features(Protocol):
    """Online features."""

    async def needs(self) -> dict[str, Needs]:
        """What views need, by `view@version` and by the name alone, which stands for the newest version.

        Raises:
            CallError: the service does not answer.
        """
        ...

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        """Features of rows at their times; `entities` holds join keys and request columns.

        Raises:
            QuestionRefusedError: the service refuses the rows.
            CallError: the service does not answer.
        """
        ...


class Inference(Protocol):
    """Models and their scores."""

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer, where every call after it has failed; 0 when the last one was answered."""
        ...

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model.

        Raises:
            CallError: the service does not answer.
        """
        ...

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> Score:
        """Scores of rows given by column.

        Raises:
            QuestionRefusedError: the service refuses the rows.
            CallError: the service does not answer.
        """
        ...


class _Metadata(msgspec.Struct):
    feature_names: list[str]


class _Column(msgspec.Struct):
    values: list[Scalar]
    statuses: list[str]


class _OnlineFeatures(msgspec.Struct):
    metadata: _Metadata
    results: list[_Column]


class _View(msgspec.Struct):
    name: str
    label: str
    newest: bool
    join_keys: list[str]
    request: dict[str, str]


class _Definitions(msgspec.Struct):
    views: list[_View]


class _Versions(msgspec.Struct):
    versions: list[msgspec.Raw]


class HttpFeatures:
    """The feature service over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout_s: float, body_limit_bytes: int) -> None:
        self._caller = Caller(client, "feature_service", url, timeout_s, body_limit_bytes)

    async def needs(self) -> dict[str, Needs]:
        """What views need, by `view@version` and by name."""
        return await self._caller.call(_Definitions, _needs, "GET", "/v1/definitions")

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        """Features of rows at their times."""
        body = {
            "features": list(references),
            "entities": entities,
            "full_feature_names": True,
            "event_timestamps": times,
        }

        def read(answer: _OnlineFeatures) -> ServedFeatures:
            return _served(answer, references, len(times))

        return await self._caller.call(_OnlineFeatures, read, "POST", "/get-online-features", body)


class HttpInference:
    """The inference service over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout_s: float, body_limit_bytes: int) -> None:
        self._caller = Caller(client, "inference_service", url, timeout_s, body_limit_bytes)
        self._unreadable: list[str] = []

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer, where every call after it has failed; 0 when the last one was answered."""
        return self._caller.silent_s

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model; one that can't be read is logged and left out."""
        return await self._caller.call(_Versions, self._readable, "GET", "/v1/models")

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> Score:
        """Scores of rows given by column."""
        path = f"/v1/models/{model}/versions/{version}/predict"
        rows = len(next(iter(inputs.values()), []))
        return await self._caller.call(Score, lambda score: _whole(score, rows), "POST", path, {"inputs": inputs})

    def _readable(self, answer: _Versions) -> list[ModelVersion]:
        versions, unreadable = [], []
        for raw in answer.versions:
            try:
                versions.append(msgspec.json.decode(raw, type=ModelVersion))
            except (msgspec.ValidationError, RecursionError) as error:
                unreadable.append(str(error))
        if unreadable and unreadable != self._unreadable:
            logger(__name__).warning("registered versions can't be read and are left out", errors=unreadable[:5])
        self._unreadable = unreadable
        return versions


def _needs(definitions: _Definitions) -> dict[str, Needs]:
    needs: dict[str, Needs] = {}
    for view in definitions.views:
        needs[view.label] = Needs(view.join_keys, view.request)
        if view.newest:
            needs[view.name] = needs[view.label]
    return needs


def _served(answer: _OnlineFeatures, references: Sequence[str], rows: int) -> ServedFeatures:
    columns = dict(zip(answer.metadata.feature_names, answer.results, strict=True))
    served = {reference: columns[reference.replace(":", "__")] for reference in references}
    for reference, column in served.items():
        if not len(column.values) == len(column.statuses) == rows:
            raise ValueError(f"{reference} has {len(column.values)} values for {rows} rows")
    return ServedFeatures(
        {reference: column.values for reference, column in served.items()},
        {reference: column.statuses for reference, column in served.items()},
    )


def _whole(score: Score, rows: int) -> Score:
    if not len(score.scores) == len(score.labels) == rows:
        raise ValueError(f"there are {len(score.scores)} scores for {rows} rows")
    faulty = {fault.row for fault in score.errors}
    silent = [row for row, value in enumerate(score.scores) if value is None and row not in faulty]
    if silent:
        raise ValueError(f"row {silent[0]} has neither a score nor a fault")
    if not all(0 <= row < rows for row in faulty):
        raise ValueError(f"there are faults of rows beyond {rows}")
    return score
