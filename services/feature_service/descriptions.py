"""The definitions as callers see them: versions, features, the keys they need, and whether they are filled."""

from typing import Any

import msgspec

from contender.contracts.feature_service import (
    DefinitionsDocument,
    EntityDescription,
    FeatureServiceDescription,
    SourceDescription,
    ViewDescription,
)
from contender.features import Feature, FeatureView, KeptVersion, source_document, view_document
from services.feature_service.definitions import DefinitionsSnapshot


def describe(current: DefinitionsSnapshot, partitions: int) -> DefinitionsDocument:
    """All definitions.

    Args:
        current: the definitions.
        partitions: of topic entity-events.
    """
    catalogue = current.catalogue
    return DefinitionsDocument(
        views=[_view(current, version, partitions) for version in catalogue.versions],
        entities=msgspec.convert([*catalogue.entities.values()], list[EntityDescription], from_attributes=True),
        sources=[msgspec.convert(source_document(source), SourceDescription) for source in catalogue.sources.values()],
        feature_services=msgspec.convert(
            [*catalogue.services.values()], list[FeatureServiceDescription], from_attributes=True
        ),
    )


def _view(current: DefinitionsSnapshot, version: KeptVersion, partitions: int) -> ViewDescription:
    catalogue = current.catalogue
    view = catalogue.kept[version.label]
    document = view_document(view)
    features: list[dict[str, Any]] = document["features"]
    if isinstance(view, FeatureView):
        document["source"] = view.source.name
    else:
        features = [{"name": name, "type": kind} for name, kind in document["features"].items()]
    known = [Feature(view, feature["name"], version.label) for feature in features]
    request = [catalogue.request_columns(feature).items() for feature in known]
    description = {
        **document,
        "label": version.label,
        "version": version.number,
        "digest": version.digest,
        "newest": catalogue.today.get(version.name) == version.label,
        "complete": current.is_filled(version.label, partitions),
        "join_keys": list(dict.fromkeys(key for feature in known for key in catalogue.join_keys(feature))),
        "request": {name: kind.__name__ for columns in request for name, kind in columns},
        "features": [{**feature, "reference": f"{version.name}:{feature['name']}"} for feature in features],
    }
    return msgspec.convert(description, ViewDescription)
