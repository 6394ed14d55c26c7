"""Calls to the feature service and the inference service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx
import msgspec

from shared.events import ModelVersion, Scalar


class CallError(RuntimeError):
    """The other service did not answer, or refused."""


class Score(msgspec.Struct, frozen=True):
    """Scores and labels of rows, as the inference service answers them."""

    scores: list[float] | list[list[float]]
    labels: list[Scalar]


@dataclass(frozen=True, slots=True)
class ServedFeatures:
    """Values and statuses by feature reference (`view:feature`), one entry per row."""

    values: dict[str, list[Scalar]]
    statuses: dict[str, list[str]]


class Features(Protocol):
    """Online features."""

    async def join_keys(self) -> dict[str, str]:
        """Join key by view.

        Raises:
            CallError: they can't be had.
        """
        ...

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        """Features of rows at their times.

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


class _Entity(msgspec.Struct):
    name: str
    join_key: str


class _View(msgspec.Struct):
    name: str
    entity: str


class _Definitions(msgspec.Struct):
    entities: list[_Entity]
    views: list[_View]


class _Versions(msgspec.Struct):
    versions: list[ModelVersion]


class HttpFeatures:
    """The feature service over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout_s: float) -> None:
        self._client = client
        self._url = url
        self._timeout_s = timeout_s

    async def join_keys(self) -> dict[str, str]:
        """Join key by view."""
        answer = await _call(self._client, "GET", f"{self._url}/v1/definitions", b"", self._timeout_s)
        definitions = msgspec.json.decode(answer, type=_Definitions)
        keys = {entity.name: entity.join_key for entity in definitions.entities}
        return {view.name: keys[view.entity] for view in definitions.views}

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
        url = f"{self._url}/get-online-features"
        answer = await _call(self._client, "POST", url, msgspec.json.encode(body), self._timeout_s)
        found = msgspec.json.decode(answer, type=_OnlineFeatures)
        columns = dict(zip(found.metadata.feature_names, found.results, strict=True))
        served = {reference: columns[reference.replace(":", "__")] for reference in references}
        return ServedFeatures(
            {reference: column.values for reference, column in served.items()},
            {reference: column.statuses for reference, column in served.items()},
        )


class HttpInference:
    """The inference service over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str, timeout_s: float) -> None:
        self._client = client
        self._url = url
        self._timeout_s = timeout_s

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model."""
        answer = await _call(self._client, "GET", f"{self._url}/v1/models", b"", self._timeout_s)
        return msgspec.json.decode(answer, type=_Versions).versions

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> Score:
        """Scores of rows given by column."""
        url = f"{self._url}/v1/models/{model}/versions/{version}/predict"
        answer = await _call(self._client, "POST", url, msgspec.json.encode({"inputs": inputs}), self._timeout_s)
        return msgspec.json.decode(answer, type=Score)


async def _call(client: httpx.AsyncClient, method: str, url: str, body: bytes, timeout_s: float) -> bytes:
    try:
        answer = await client.request(
            method, url, content=body or None, headers={"content-type": "application/json"}, timeout=timeout_s
        )
    except httpx.HTTPError as error:
        raise CallError(f"{method} {url} failed: {error!r}") from error
    if answer.is_error:
        raise CallError(f"{method} {url} answered {answer.status_code}: {answer.text[:500]}")
    return answer.content
