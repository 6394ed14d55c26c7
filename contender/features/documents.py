"""Definitions as JSON and back, and the digest of their meaning: a changed meaning is a new version."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgspec

from contender.features.conditions import condition_document, condition_of
from contender.features.definitions import COLUMN_TYPES, ColumnType, Entity, EventSource, FeatureView
from contender.features.durations import seconds
from contender.features.kinds import KINDS
from contender.features.kinds.kind import ALL_TIME, Aggregation
from contender.features.on_demand import OnDemandView

Document = dict[str, Any]
_PARAMETERS = {"n": 0, "q": 0.0, "exact_to": 0}
"""Parameters that the documents of all kinds have: they belong to the meaning of versions that are kept."""

_DESCRIPTIVE = frozenset({"description", "default"})
_TYPES: dict[str, ColumnType] = {kind.__name__: kind for kind in COLUMN_TYPES}


def view_document(view: FeatureView | OnDemandView) -> Document:
    """Everything about a view, enough to make it again."""
    if isinstance(view, OnDemandView):
        return {
            "kind": "on_demand",
            "name": view.name,
            "inputs": list(view.inputs),
            "request": _names(view.request),
            "features": _names(view.features),
            "source": view.source,
            **_annotations(view),
        }
    return {
        "kind": "view",
        "name": view.name,
        "entities": [
            {"name": entity.name, "join_key": entity.join_key, **_annotations(entity)} for entity in view.entities
        ],
        "source": source_document(view.source),
        "features": [_feature_document(feature) for feature in view.aggregations],
        "hop": view.hop,
        "lateness": view.lateness,
        "max_age": view.max_age,
        "fresh_within": view.fresh_within,
        **_annotations(view),
    }


def source_document(source: EventSource) -> Document:
    """Everything about a source."""
    return {
        "name": source.name,
        "schema": _names(source.schema),
        "timestamp": source.timestamp,
        "history": source.history,
        "ingested_at": source.ingested_at,
        **_annotations(source),
    }


def view_of(document: Mapping[str, Any]) -> FeatureView | OnDemandView:
    """The view that a document stands for."""
    annotations = {name: document[name] for name in ("description", "owner", "tags")}
    if document["kind"] == "on_demand":
        return OnDemandView(
            document["name"],
            tuple(document["inputs"]),
            _types(document["request"]),
            _types(document["features"]),
            document["source"],
            **annotations,
        )
    source = {name: value for name, value in document["source"].items() if name != "schema"}
    return FeatureView(
        document["name"],
        [Entity(**entity) for entity in document["entities"]],
        EventSource(schema=_types(document["source"]["schema"]), **source),
        [_feature_of(feature) for feature in document["features"]],
        hop=document["hop"],
        lateness=document["lateness"],
        max_age=document["max_age"],
        fresh_within=document["fresh_within"],
        **annotations,
    )


def digest(document: Mapping[str, Any]) -> str:
    """Names a meaning: equal for documents whose features have the same values, however they are described.

    Descriptions, owners, tags, defaults, histories and objectives change no value. A minute may be written 60s or 1m.
    """
    meaning = _on_demand_meaning(document) if document["kind"] == "on_demand" else _view_meaning(document)
    return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()[:16]


def _on_demand_meaning(document: Mapping[str, Any]) -> Document:
    return {name: document[name] for name in ("kind", "name", "inputs", "request", "features", "source")}


def _view_meaning(document: Mapping[str, Any]) -> Document:
    return {
        "kind": document["kind"],
        "name": document["name"],
        "entities": [[entity["name"], entity["join_key"]] for entity in document["entities"]],
        "source": {name: document["source"][name] for name in ("name", "schema", "timestamp")},
        "features": [_feature_meaning(feature) for feature in document["features"]],
        **{name: _span(document[name]) for name in ("hop", "lateness", "max_age")},
    }


def _feature_meaning(document: Mapping[str, Any]) -> Document:
    return {
        **{name: value for name, value in document.items() if name not in _DESCRIPTIVE},
        "window": _span(document["window"]),
        "where": _plain(document["where"]),
        "of": [_feature_meaning(part) for part in document["of"]],
    }


def _span(duration: str) -> int | str:
    return duration if duration in ("", ALL_TIME) else seconds(duration)


def _plain(condition: Any) -> Any:
    """A condition with every number as float64, the type that it is compared in."""
    if isinstance(condition, Mapping):
        return {name: _plain(part) for name, part in condition.items()}
    if isinstance(condition, list | tuple):
        return [_plain(part) for part in condition]
    return float(condition) if isinstance(condition, int) and not isinstance(condition, bool) else condition


def _feature_document(feature: Aggregation) -> Document:
    return {
        "kind": feature.kind,
        "column": feature.column,
        "window": feature.window,
        "name": feature.name,
        "description": feature.description,
        "where": condition_document(feature.where),
        **_PARAMETERS,
        **feature.parameters,
        "of": [_feature_document(part) for part in feature.of],
        "default": feature.default,
    }


def _feature_of(document: Mapping[str, Any]) -> Aggregation:
    kind = KINDS[document["kind"]]
    known = {each.name for each in fields(kind)}
    values = {name: value for name, value in document.items() if name in known}
    values["where"] = condition_of(values["where"])
    values["of"] = tuple(_feature_of(part) for part in values["of"])
    return kind(**values)


def _annotations(definition: Any) -> Document:
    return {"description": definition.description, "owner": definition.owner, "tags": dict(definition.tags)}


def _names(types: Mapping[str, type]) -> dict[str, str]:
    return {column: kind.__name__ for column, kind in types.items()}


def _types(names: Mapping[str, str]) -> dict[str, ColumnType]:
    return {column: _TYPES[name] for column, name in names.items()}
