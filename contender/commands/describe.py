"""Everything there is to say about a definition, as JSON has it: what `contender features show` and `list` print."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from contender.contracts.values import Scalar
from contender.features.aggregations import ALL_TIME, COUNTS, Aggregation
from contender.features.catalogue import Catalogue, Feature, View
from contender.features.conditions import Condition
from contender.features.definitions import Entity, EventSource, FeatureService, FeatureView
from contender.features.errors import UnknownFeatureError
from contender.features.layouts import MARKS_BYTES, Layout, sharing
from contender.features.on_demand import OnDemandView

Facts = dict[str, Any]


def facts(catalogue: Catalogue, reference: str) -> list[Facts]:
    """What a reference names: a feature, or every view, source, entity and feature service of that name.

    Raises:
        UnknownFeatureError: it names nothing.
    """
    if ":" in reference:
        return [_feature(catalogue, catalogue.feature(reference))]
    name, _, number = reference.partition("@")
    kinds = (catalogue.views, catalogue.on_demand, catalogue.sources, catalogue.entities, catalogue.services)
    found = [named[name] for named in kinds if name in named]
    if number:
        found = [one for one in found if isinstance(one, View) and catalogue.newest(name) == reference]
    if not found:
        there = sorted({name for named in kinds for name in named})
        near = get_close_matches(reference, there)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(there)}"
        raise UnknownFeatureError(f"{reference!r} names no view, feature, source, entity or feature service; {hint}")
    return [_definition(catalogue, one) for one in found]


def overview(catalogue: Catalogue) -> Iterator[Facts]:
    """One line per feature, in the order of the definitions."""
    views: list[View] = [*catalogue.views.values(), *catalogue.on_demand.values()]
    for view in views:
        for name in feature_names(view):
            feature = catalogue.feature(f"{view.name}:{name}")
            one = view.feature(name)
            aggregation = one if isinstance(one, Aggregation) else None
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
    return list(view.features) if isinstance(view, OnDemandView) else [one.name for one in view.aggregations]


def _definition(catalogue: Catalogue, one: View | EventSource | Entity | FeatureService) -> Facts:
    if isinstance(one, FeatureView):
        features = [_aggregation(one, feature) for feature in one.aggregations]
        return {**_view(catalogue, one), "features": features, "tiles": tiles(one), "bytes_per_entity": _bytes(one)}
    if isinstance(one, OnDemandView):
        return {**_on_demand(catalogue, one), "features": _types(one.features)}
    if isinstance(one, EventSource):
        return _source(catalogue, one)
    if isinstance(one, Entity):
        read = [view.name for view in catalogue.views.values() if one in view.entities]
        return {"what": "entity", **_told(one), "join_key": one.join_key, "views": read}
    return {"what": "feature service", **_told(one), "features": list(one.features)}


def _view(catalogue: Catalogue, view: FeatureView) -> Facts:
    return {
        "what": "view",
        **_told(view),
        **_meaning(catalogue, view),
        "entities": [{"name": one.name, "join_key": one.join_key} for one in view.entities],
        "source": _source(catalogue, view.source),
        "hop": view.hop,
        "lateness": view.lateness,
        "max_age": view.max_age,
        "fresh_within": view.fresh_within,
        "where": "" if view.where is None else condition_text(view.where),
    }


def _on_demand(catalogue: Catalogue, view: OnDemandView) -> Facts:
    return {
        "what": "on-demand view",
        **_told(view),
        **_meaning(catalogue, view),
        "request": _types(view.request),
        "inputs": list(view.inputs),
        "entity_keys": catalogue.join_keys(catalogue.feature(f"{view.name}:{next(iter(view.features))}")),
        "function": view.source,
    }


def _source(catalogue: Catalogue, source: EventSource) -> Facts:
    return {
        "what": "source",
        **_told(source),
        "schema": _types(source.schema),
        "timestamp": source.timestamp,
        "history": source.history,
        "ingested_at": source.ingested_at,
        "topic": source.topic,
        "views": [view.name for view in catalogue.views.values() if view.source.name == source.name],
    }


def _feature(catalogue: Catalogue, feature: Feature) -> Facts:
    # A kept version is made from its document: where it stands in a file only the newest one knows.
    name = feature.label.partition("@")[0]
    view = catalogue.views.get(name) or catalogue.on_demand[name]
    if isinstance(view, OnDemandView):
        kind = view.features[feature.name].__name__
        return {"what": "feature", "reference": feature.reference, "type": kind, "view": _on_demand(catalogue, view)}
    own = _aggregation(view, feature.aggregation)
    return {"what": "feature", "reference": feature.reference, **own, "view": _view(catalogue, view)}


def _aggregation(view: FeatureView, feature: Aggregation) -> Facts:
    parts = [part.name for part in feature.parts]
    read = [one for one in tiles(view) if set(parts) & set(one["features"])]
    empty = 0 if feature.kind in COUNTS else None
    return {
        "name": feature.name,
        "kind": feature.kind,
        "computes": computes(feature),
        "type": "list" if feature.kind == "last_n" else "int" if view.is_integer(feature) else "float",
        "window": feature.window,
        "covers": covers(view, feature),
        "where": "" if feature.where is None or feature.of else condition_text(feature.where),
        "over_an_empty_window": empty,
        "default": feature.default,
        "description": feature.description,
        "tile_bytes": sum(one["bytes"] for one in read),
        "tiles_shared_with": sorted({name for one in read for name in one["features"]} - {*parts, feature.name}),
        "defined_at": feature.place,
    }


def tiles(view: FeatureView) -> list[Facts]:
    """What a view keeps per entity: one entry per group of features that read the same tiles."""
    return [_tile(view, group) for group in sharing(part for feature in view.aggregations for part in feature.parts)]


def _tile(view: FeatureView, group: Sequence[Aggregation]) -> Facts:
    layout = Layout.of(group[-1])
    windows = [int(part.window_s) for part in group if part.window != ALL_TIME]
    # What is over all time has one more: into it go those that newer ones replace.
    slots = max(windows, default=0) // view.hop_s + view.lateness_tiles + 1 + (len(windows) < len(group))
    return {
        "column": group[-1].column or "",
        "where": "" if group[-1].where is None else condition_text(group[-1].where),
        "features": list(dict.fromkeys(part.name for part in group)),
        "tiles": slots,
        "tile_bytes": layout.cell_bytes,
        "bytes": slots * layout.cell_bytes,
    }


def _bytes(view: FeatureView) -> int:
    return sum(one["bytes"] + MARKS_BYTES for one in tiles(view))


def computes(feature: Aggregation) -> str:
    """The aggregation in words: `mean of dep_delay`."""
    if feature.kind == "ratio":
        return " / ".join(f"({_filtered(part)})" for part in feature.of)
    words = {
        "count": "number of events",
        "last_n": f"latest {feature.n} values of {feature.column}",
        "distinct_count": f"different values of {feature.column}, exact to {feature.exact_to}",
        "quantile": f"quantile {feature.q:g} of {feature.column}",
    }
    return words.get(feature.kind, f"{feature.kind} of {feature.column}")


def _filtered(part: Aggregation) -> str:
    return computes(part) if part.where is None else f"{computes(part)} where {condition_text(part.where)}"


def covers(view: FeatureView, feature: Aggregation) -> str:
    """The window in words: `covers the last 3 h in steps of 5 m`."""
    if feature.window == ALL_TIME:
        return "covers all time"
    return f"covers the last {spelled(feature.window)} in steps of {spelled(view.hop)}"


def spelled(duration: str) -> str:
    """`5m` as `5 m`."""
    return f"{duration[:-1]} {duration[-1]}"


def condition_text(condition: Condition) -> str:
    """A filter as people read it."""
    if condition.op == "not":
        return f"not ({condition_text(condition.parts[0])})"
    if condition.parts:
        return f" {condition.op} ".join(f"({condition_text(part)})" for part in condition.parts)
    if isinstance(condition.value, tuple):
        return f"{condition.column} among {', '.join(map(_value, condition.value))}"
    return f"{condition.column} {condition.op} {_value(condition.value)}"


def _value(value: Scalar) -> str:
    return repr(value)


def _meaning(catalogue: Catalogue, view: View) -> Facts:
    newest = next(one for one in catalogue.versions if one.label == catalogue.newest(view.name))
    return {"digest": newest.digest}


def _told(one: View | EventSource | Entity | FeatureService) -> Facts:
    return {
        "name": one.name,
        "description": one.description,
        "owner": one.owner,
        "tags": dict(one.tags),
        "defined_at": one.place,
    }


def _types(columns: Any) -> dict[str, str]:
    return {column: kind.__name__ for column, kind in columns.items()}
