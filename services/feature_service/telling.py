"""What is told of definitions: versions, features, whom they describe, and how far their rings are filled."""

from typing import Any

from contender.features.catalogue import Catalogue, Feature, KeptVersion, View
from contender.features.definitions import FeatureView
from contender.features.documents import source_document, view_document
from contender.features.durations import seconds
from services.feature_service.definitions import Definitions, DefinitionsSnapshot
from services.feature_service.health import alive, status_of, waiting_of
from services.feature_service.metrics import ENTITIES, OBJECTIVE

_MOST_ENTITIES = 1_000_000


def tell(current: DefinitionsSnapshot, partitions: int) -> dict[str, Any]:
    """All definitions as JSON; `views` has every kept version, the newest of a name last."""
    catalogue = current.catalogue
    newest = {name: catalogue.newest(name) for name in [*catalogue.views, *catalogue.on_demand]}
    return {
        "entities": [_plain(one, {"join_key": one.join_key}) for one in catalogue.entities.values()],
        "sources": [source_document(one) for one in catalogue.sources.values()],
        "views": [
            {
                **_view(catalogue, version, catalogue.kept[version.label]),
                "newest": newest.get(version.name) == version.label,
                "complete": _complete(current, version.label, partitions),
            }
            for version in catalogue.versions
        ],
        "feature_services": [_plain(one, {"features": list(one.features)}) for one in catalogue.services.values()],
    }


async def tell_status(definitions: Definitions, now: float) -> dict[str, Any]:
    """How fresh and how full each version of each view is.

    Raises:
        StoreUnavailableError: the store can't be read.
    """
    current, store = definitions.current, definitions.store
    workers = alive(await store.read_health(), now)
    views = []
    for label, view in current.catalogue.kept.items():
        if isinstance(view, FeatureView):
            counts = [await store.entities(ring, _MOST_ENTITIES) for ring in current.rings.of_view(label)]
            status = status_of(
                label,
                view.name,
                workers,
                now=now,
                objective_s=seconds(view.fresh_within),
                complete=_complete(current, label, definitions.partitions),
                entities=max(counts, default=0),
            )
            ENTITIES.labels(label).set(status.entities)
            OBJECTIVE.labels(label).set(status.objective_s)
            views.append(status)
    return {
        "views": views,
        "workers": len(workers),
        "parked": sum(worker.parked for worker in workers),
        "waiting_s": waiting_of(workers),
        "unfilled": sorted({why for worker in workers for why in worker.unfilled}),
    }


def _view(catalogue: Catalogue, version: KeptVersion, view: View) -> dict[str, Any]:
    document = view_document(view)
    features = document.pop("features")
    if isinstance(view, FeatureView):
        document["source"] = view.source.name
    names = [one["name"] for one in features] if isinstance(features, list) else list(features)
    told = [Feature(view, name, version.label) for name in names]
    needs = [(catalogue.join_keys(one), catalogue.request_columns(one)) for one in told]
    return {
        **document,
        "label": version.label,
        "version": version.number,
        "digest": version.digest,
        "join_keys": list(dict.fromkeys(key for keys, _ in needs for key in keys)),
        "request": {name: kind.__name__ for _, columns in needs for name, kind in columns.items()},
        "features": [
            {
                **(features[at] if isinstance(features, list) else {"type": features[name]}),
                "name": name,
                "reference": f"{version.name}:{name}",
            }
            for at, name in enumerate(names)
        ],
    }


def _complete(current: DefinitionsSnapshot, label: str, partitions: int) -> bool:
    return all(current.is_complete(ring, partitions) for ring in current.rings.of_view(label))


def _plain(one: Any, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": one.name,
        **more,
        "description": one.description,
        "owner": one.owner,
        "tags": dict(one.tags),
    }
