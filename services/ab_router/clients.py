"""Calls to the feature service and the inference service."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import httpx
import msgspec
from prometheus_client import Counter

from shared.events import ModelVersion, Scalar

_LOG = logging.getLogger(__name__)
_SHOWN = 500
ShapeT = TypeVar("ShapeT")
FoundT = TypeVar("FoundT")
CALL_FAILURES = Counter("contender_router_call_failures_total", "Calls to another service that failed", ["service"])


class CallError(RuntimeError):
    """The other service did not answer, or refused."""


class Score(msgspec.Struct, frozen=True):
    """Scores and labels of rows, as the inference service answers them."""

    scores: list[float | list[float]]
    labels: list[Scalar]


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
            CallError: they can't be had.
        """
        ...

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        """Features of rows at their times; `entities` holds join keys and request columns.

        Raises:
            CallError: they can't be had.
        """
        ...


class Inference(Protocol):
    """Models and their scores."""

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model.

        Raises:
            CallError: they can't be had.
        """
        ...

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> Score:
        """Scores of rows given by column.

        Raises:
            CallError: they can't be had.
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
    versions: list[ModelVersion]


class HttpFeatures:
    """The feature service over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout_s: float) -> None:
        self._caller = _Caller(client, "feature_service", url, timeout_s)

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

        def served(found: _OnlineFeatures) -> ServedFeatures:
            return _served(found, references, len(times))

        return await self._caller.call(_OnlineFeatures, served, "POST", "/get-online-features", body)


class HttpInference:
    """The inference service over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout_s: float) -> None:
        self._caller = _Caller(client, "inference_service", url, timeout_s)

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model."""
        return await self._caller.call(_Versions, lambda found: found.versions, "GET", "/v1/models")

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> Score:
        """Scores of rows given by column."""
        path = f"/v1/models/{model}/versions/{version}/predict"
        rows = len(next(iter(inputs.values()), []))
        return await self._caller.call(Score, lambda found: _whole(found, rows), "POST", path, {"inputs": inputs})


class _Caller:
    """Calls one service, and says in the log when it begins to fail and when it answers again."""

    def __init__(self, client: httpx.AsyncClient, service: str, url: str, timeout_s: float) -> None:
        self._client = client
        self._service = service
        self._url = url
        self._timeout_s = timeout_s
        self._failing = False

    async def call(
        self, shape: type[ShapeT], read: Callable[[ShapeT], FoundT], method: str, path: str, body: object = None
    ) -> FoundT:
        """What `read` finds in the answer; its KeyError or ValueError is an answer of another shape.

        Raises:
            CallError: none within the timeout, an error, or one of another shape.
        """
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json"}
        try:
            answer = await self._client.request(
                method, self._url + path, content=content, headers=headers, timeout=self._timeout_s
            )
            answer.raise_for_status()
            found = read(msgspec.json.decode(answer.content, type=shape))
        except (httpx.HTTPError, msgspec.DecodeError, KeyError, ValueError) as error:
            raise self._failed(error) from error
        if self._failing:
            _LOG.info("calls to %s succeed again", self._service)
        self._failing = False
        return found

    def _failed(self, error: Exception) -> CallError:
        CALL_FAILURES.labels(self._service).inc()
        said = error.response.text[:_SHOWN] if isinstance(error, httpx.HTTPStatusError) else ""
        failure = CallError(f"{self._service}: {type(error).__name__} {error} {said}".strip())
        if not self._failing:
            _LOG.warning("calls fail to %s", failure)
        self._failing = True
        return failure


def _needs(definitions: _Definitions) -> dict[str, Needs]:
    found: dict[str, Needs] = {}
    for view in definitions.views:
        found[view.label] = Needs(view.join_keys, view.request)
        if view.newest:
            found[view.name] = found[view.label]
    return found


def _served(found: _OnlineFeatures, references: Sequence[str], rows: int) -> ServedFeatures:
    columns = dict(zip(found.metadata.feature_names, found.results, strict=True))
    served = {reference: columns[reference.replace(":", "__")] for reference in references}
    for reference, column in served.items():
        if not len(column.values) == len(column.statuses) == rows:
            raise ValueError(f"{reference} has {len(column.values)} values for {rows} rows")
    return ServedFeatures(
        {reference: column.values for reference, column in served.items()},
        {reference: column.statuses for reference, column in served.items()},
    )


def _whole(found: Score, rows: int) -> Score:
    if not len(found.scores) == len(found.labels) == rows:
        raise ValueError(f"there are {len(found.scores)} scores for {rows} rows")
    return found
