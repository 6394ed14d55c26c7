"""Describes definitions as JSON, for `contender features show` and `list`."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from contender.contracts.feature_ref import FeatureRef
from contender.features import (
    ALL_TIME,
    Aggregation,
    Catalogue,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FeatureView,
    OnDemandView,
    UnknownFeatureError,
    View,
    sharing,
)
from contender.features.layouts import MARKS_BYTES

Facts = dict[str, Any]


def describe(catalogue: Catalogue, reference: str) -> list[Facts]:
    """Describes a feature, or every view, source, entity and feature service of a name.

    Raises:
        UnknownFeatureError: no definition has the name.
    """
    ref = FeatureRef.parse(reference)
    if ":" in reference:
        return [_feature(catalogue, catalogue.feature(reference))]
    name = ref.view
    kinds = (catalogue.views, catalogue.on_demand, catalogue.sources, catalogue.entities, catalogue.services)
    matches = [named[name] for named in kinds if name in named]
    if ref.version:
        matches = [match for match in matches if isinstance(match, View) and catalogue.newest(name) == reference]
    if not matches:
        known = sorted({name for named in kinds for name in named})
        near = get_close_matches(reference, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise UnknownFeatureError(f"{reference!r} names no view, feature, source, entity or feature service; {hint}")
    return [_definition(catalogue, match) for match in matches]


def overview(catalogue: Catalogue) -> Iterator[Facts]:
    """A short description of each feature, in the order of the definitions."""
    views: list[View] = [*catalogue.views.values(), *catalogue.on_demand.values()]
    for view in views:
        for name in feature_names(view):
            feature = catalogue.feature(f"{view.name}:{name}")
            computed = view.feature(name)
            aggregation = computed if isinstance(computed, Aggregation) else None
            yield {
                "reference": feature.reference,
                "kind": aggregation.kind if aggregation else "on_demand",
                "window": aggregation.window if aggregation else "",
                "entity_keys": catalogue.join_keys(feature),
                "source": view.source.name if isinstance(view, FeatureView) else "",
                "owner": view.owner,
                "description": (aggregation.description if aggregation else "") or view.description,
            }


def feature_names(view: View) -> list[str]:
    """The features of a view of either kind."""
    return (
        list(view.features)
        if isinstance(view, OnDemandView)
        else [aggregation.name for aggregation in view.aggregations]
    )


def _definition(catalogue: Catalogue, definition: View | EventSource | Entity | FeatureService) -> Facts:
    match definition:
        case FeatureView() as view:
            features = [_aggregation(view, feature) for feature in view.aggregations]
            size = {"tiles": tiles(view), "bytes_per_entity": _bytes(view)}
            return {**_view(catalogue, view), "features": features, **size}
        case OnDemandView() as view:
            return {**_on_demand(catalogue, view), "features": _types(view.features)}
        case EventSource() as source:
            return _source(catalogue, source)
        case Entity() as entity:
            views = [view.name for view in catalogue.views.values() if entity in view.entities]
            return {"what": "entity", **_documentation(entity), "join_key": entity.join_key, "views": views}
        case service:
            return {"what": "feature service", **_documentation(service), "features": list(service.features)}


def _view(catalogue: Catalogue, view: FeatureView) -> Facts:
    return {
        "what": "view",
        **_documentation(view),
        **_meaning(catalogue, view),
        "entities": [{"name": entity.name, "join_key": entity.join_key} for entity in view.entities],
        "source": _source(catalogue, view.source),
        "hop": view.hop,
        "lateness": view.lateness,
        "max_age": view.max_age,
        "fresh_within": view.fresh_within,
        "where": "" if view.where is None else view.where.words,
    }


def _on_demand(catalogue: Catalogue, view: OnDemandView) -> Facts:
    return {
        "what": "on-demand view",
        **_documentation(view),
        **_meaning(catalogue, view),
        "request": _types(view.request),
        "inputs": list(view.inputs),
        "entity_keys": catalogue.join_keys(catalogue.feature(f"{view.name}:{next(iter(view.features))}")),
        "function": view.source,
    }


def _source(catalogue: Catalogue, source: EventSource) -> Facts:
    return {
        "what": "source",
        **_documentation(source),
        "schema": _types(source.schema),
        "timestamp": source.timestamp,
        "history": source.history,
        "ingested_at": source.ingested_at,
        "topic": source.topic,
        "views": [view.name for view in catalogue.views.values() if view.source.name == source.name],
    }


def _feature(catalogue: Catalogue, feature: Feature) -> Facts:
    # Only the newest version knows its file and line: older ones are made from documents.
    name = FeatureRef.parse(feature.label).view
    view = catalogue.views.get(name) or catalogue.on_demand[name]
    if isinstance(view, OnDemandView):
        kind = view.features[feature.name].__name__
        return {"what": "feature", "reference": feature.reference, "type": kind, "view": _on_demand(catalogue, view)}
    own = _aggregation(view, feature.aggregation)
    return {"what": "feature", "reference": feature.reference, **own, "view": _view(catalogue, view)}


def _aggregation(view: FeatureView, feature: Aggregation) -> Facts:
    parts = [part.name for part in feature.parts]
    read = [group for group in tiles(view) if set(parts) & set(group["features"])]
    return {
        "name": feature.name,
        "kind": feature.kind,
        "computes": feature.words,
        "type": view.value_type(feature).__name__,
        "window": feature.window,
        "covers": covers(view, feature),
        "where": "" if feature.where is None or feature.of else feature.where.words,
        "over_an_empty_window": 0 if feature.never_null else None,
        "default": feature.default,
        "description": feature.description,
        "tile_bytes": sum(group["bytes"] for group in read),
        "tiles_shared_with": sorted({name for group in read for name in group["features"]} - {*parts, feature.name}),
        "defined_at": feature.location,
    }


def tiles(view: FeatureView) -> list[Facts]:
    """The tiles that a view keeps per entity: one entry per group of features that share them."""
    return [_tile(view, group) for group in sharing(part for feature in view.aggregations for part in feature.parts)]


def _tile(view: FeatureView, group: Sequence[Aggregation]) -> Facts:
    layout = group[-1].layout
    # A window over all time needs one more tile, which adds up those that newer ones replace.
    slots = view.slots(group) + any(part.window == ALL_TIME for part in group)
    return {
        "column": group[-1].column or "",
        "where": "" if group[-1].where is None else group[-1].where.words,
        "features": list(dict.fromkeys(part.name for part in group)),
        "tiles": slots,
        "tile_bytes": layout.cell_bytes,
        "bytes": slots * layout.cell_bytes,
    }


def _bytes(view: FeatureView) -> int:
    return sum(group["bytes"] + MARKS_BYTES for group in tiles(view))


def covers(view: FeatureView, feature: Aggregation) -> str:
    """The window in words: `covers the last 3 h in steps of 5 m`."""
    if feature.window == ALL_TIME:
        return "covers all time"
    return f"covers the last {spelled(feature.window)} in steps of {spelled(view.hop)}"


def spelled(duration: str) -> str:
    """`5m` as `5 m`."""
    return f"{duration[:-1]} {duration[-1]}"


def _meaning(catalogue: Catalogue, view: View) -> Facts:
    newest = catalogue.newest(view.name)
    return {"digest": next(version.digest for version in catalogue.versions if version.label == newest)}


def _documentation(definition: View | EventSource | Entity | FeatureService) -> Facts:
    return {
        "name": definition.name,
        "description": definition.description,
        "owner": definition.owner,
        "tags": dict(definition.tags),
        "defined_at": definition.location,
    }


def _types(columns: Any) -> dict[str, str]:
    return {column: kind.__name__ for column, kind in columns.items()}
