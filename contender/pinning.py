"""Pins a model's features to versions: those that it was trained on, else today's."""

from collections.abc import Mapping, Sequence
from typing import Any

from contender.contracts.feature_ref import FeatureRef
from contender.contracts.feature_service import ViewDescription
from contender.errors import ContenderError
from contender.features.kinds import KINDS


def training_sources(training_set: Any, columns: Any) -> dict[str, str]:
    """The `view:feature` that serves each column built by a training set.

    Args:
        training_set: with its manifest, or None.
        columns: the rows that a model was fitted on.
    """
    if training_set is None:
        return {}
    names = set(map(str, getattr(columns, "columns", [])))
    return {column: reference for column, reference in training_set.manifest["features"].items() if column in names}


def trained_digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the views that a training set read, by `view:feature` and by its own `view@number:feature`."""
    digests = {}
    for reference in manifest["features"].values():
        ref = FeatureRef.parse(reference)
        digest = manifest["definitions"][ref.label]
        digests[reference] = digest
        digests.setdefault(f"{ref.view}:{ref.feature}", digest)
    return digests


def pinned_options(
    views: Sequence[ViewDescription],
    sources: Mapping[str, str],
    defaults: Mapping[str, Any],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """Options of an export: sources with the number of their view's version, and the definitions' own defaults.

    Args:
        views: every version of each view, as the feature service has them.
        sources: `view:feature` by column; a view without a number and without a digest is the newest version.
        defaults: by column; they take precedence over those of the definitions.
        digests: the meaning that a reference had in training.

    Raises:
        ContenderError: the service has no such feature, or none of that meaning.
    """
    labels = {view.label: view for view in views} | {view.name: view for view in views if view.newest}
    meanings = {(view.name, view.digest): view for view in views}
    pinned, own, never_null = {}, {}, []
    for column, reference in sources.items():
        ref = FeatureRef.parse(reference)
        view = labels.get(ref.label)
        if digest := digests.get(reference):
            view = meanings.get((ref.view, digest))
            if view is None:
                raise ContenderError(
                    f"column {column}: no version of {reference} in the feature service has the meaning that the "
                    "training set was built with; run `contender features apply` there, or build the training set again"
                )
        feature = next((feature for feature in view.features if feature.name == ref.feature), None) if view else None
        if view is None or feature is None:
            raise ContenderError(f"column {column}: there is no feature {reference}")
        pinned[column] = f"{view.label}:{ref.feature}"
        if feature.default is not None:
            own[column] = feature.default
        kind = KINDS.get(feature.kind)
        if kind is not None and kind.never_null:
            never_null.append(column)
    return {"sources": pinned, "defaults": own | dict(defaults), "never_null": never_null}
