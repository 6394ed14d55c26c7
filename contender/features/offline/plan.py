"""Which features a training set takes: those that are asked for, and those that on-demand features need."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import polars as pl

from contender.contracts.feature_ref import FeatureRef
from contender.features import (
    Catalogue,
    Feature,
    FeatureService,
    FeatureView,
    OnDemandView,
    TrainingSetError,
    UnknownFeatureError,
)
from contender.features.offline.tables import TYPES
from contender.features.offline.tiled import Tiled


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """Features in the order they were asked for, and what is computed for them.

    `tiled` are features of views; `on_demand` the on-demand views by their label, each after those it needs.
    """

    catalogue: Catalogue
    features: list[Feature]
    tiled: list[Tiled] = field(default_factory=list)
    on_demand: dict[str, OnDemandView] = field(default_factory=dict)

    @classmethod
    def of(
        cls, asked: Iterable[FeatureService | FeatureView | OnDemandView | str], catalogue: Catalogue | None
    ) -> Self:
        """Resolve what is asked for.

        Args:
            asked: services, views, references, or names of services.
            catalogue: what references name; without it the views that are asked for.

        Raises:
            UnknownFeatureError: a reference names no feature.
            TrainingSetError: two different views have one name.
        """
        listed = list(asked)
        views = [selection for selection in listed if isinstance(selection, FeatureView | OnDemandView)]
        known = Catalogue.of(views) if catalogue is None else catalogue
        try:
            features = [feature for selection in listed for feature in _features(selection, known)]
        except UnknownFeatureError as error:
            if catalogue is not None:
                raise
            raise UnknownFeatureError(
                f"{error}; give the definitions with catalogue=Catalogue.load('your.module')"
            ) from error
        plan = cls(known, list({feature.column: feature for feature in features}.values()))
        for feature in features:
            plan._add(feature)
        return plan

    @property
    def columns(self) -> list[str]:
        """The columns of the training set that are features."""
        return [feature.column for feature in self.features]

    @property
    def labels(self) -> dict[str, FeatureView | OnDemandView]:
        """Every view that takes part, by its label."""
        views = {tiled.column.partition("__")[0]: tiled.view for tiled in self.tiled}
        return {**views, **self.on_demand}

    @property
    def row_types(self) -> dict[str, Any]:
        """Types in polars of the columns of rows that a CSV file would leave to be guessed."""
        keys = {key: pl.String for tiled in self.tiled for key in tiled.view.join_keys}
        request = {name: TYPES[kind] for view in self.on_demand.values() for name, kind in view.request.items()}
        return {**keys, **request}

    def _add(self, feature: Feature) -> None:
        """Add a feature after those that it needs."""
        for needed in self.catalogue.inputs(feature):
            self._add(needed)
        held = self.labels.setdefault(feature.label, feature.view)
        if held != feature.view:
            raise TrainingSetError(f"there are two different views {feature.label!r}; ask for one of them")
        if isinstance(feature.view, OnDemandView):
            self.on_demand[feature.label] = feature.view
        elif all(tiled.column != feature.column for tiled in self.tiled):
            self.tiled.append(Tiled(feature.column, feature.view, feature.aggregation))


def _features(asked: FeatureService | FeatureView | OnDemandView | str, catalogue: Catalogue) -> Sequence[Feature]:
    if isinstance(asked, str):
        ref = FeatureRef.parse(asked)
        if ref.version and not catalogue.is_numbered:
            raise UnknownFeatureError(
                f"{asked!r} names a version, and only the service numbers versions: ask for {ref.view}:{ref.feature}, "
                "which is what these definitions say"
            )
        if not ref.feature and ref.view in catalogue.services:
            return catalogue.features(catalogue.services[ref.view].features)
        return [catalogue.feature(asked)]
    if isinstance(asked, FeatureService):
        return catalogue.features(asked.features)
    names = (
        asked.features if isinstance(asked, OnDemandView) else [aggregation.name for aggregation in asked.aggregations]
    )
    return [Feature(asked, name, asked.name) for name in names]
