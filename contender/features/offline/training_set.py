"""Building a training set: from features and rows to columns, with a manifest of what it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import polars as pl

from contender.features import Catalogue, FeatureService, FeatureView, OnDemandView, TrainingSetError
from contender.features.offline.manifest import training_manifest
from contender.features.offline.on_demand import on_demand_features
from contender.features.offline.plan import JoinPlan
from contender.features.offline.tables import SourceTable, Table, TrainingRows, open_events, with_features
from contender.features.offline.tiled import Reading, SourceGroup

FeatureSelection: TypeAlias = FeatureService | FeatureView | OnDemandView | str
"""What names features: a service, a view with all of its own, or a reference `view:feature`, `view@2:feature`."""

MEMORY_ROWS = 5_000_000
"""Events in memory at once: about 1 GB with ten columns."""


def build_training_set(
    features: FeatureSelection | Sequence[FeatureSelection],
    rows: Table,
    events: Mapping[str, Table] | None = None,
    *,
    catalogue: Catalogue | None = None,
    as_known: bool = False,
    to: Path | str | None = None,
    memory_rows: int = MEMORY_ROWS,
) -> Any:
    """Put features beside each row, as they stood at the row's time.

    Args:
        features: a feature service, views (all of their features), or references such as `view:feature`.
        rows: join keys of the views' entities, request columns of on-demand features, and a column `time`, seconds
            since the Unix epoch or datetimes, in any order. A null key names nobody.
        events: per source name a table with the source's columns and its timestamp (or `time`), in any order. What
            is not given is read from the source's own `history`.
        catalogue: the definitions that references name; views that are given need none.
        as_known: leave out events that were not ingested yet at a row's time.
        to: a Parquet file to write the result to as well.
        memory_rows: how many events of one source may be in memory at once; entities are taken bucket by bucket.

    Returns:
        `rows` as they were given, a frame of pandas or polars (of polars for files), with a column `view__feature` per
        feature (`view@2__feature` where a version was asked for): whole numbers, floats, lists for last_n; null where
        online the value would be null, which pandas has as NaN.

    Raises:
        TrainingSetError: a table or column is missing, mistyped, or holds nulls or NaN.
        UnknownFeatureError: a reference names no feature.
    """
    building = _Building.of(features, rows, events or {}, catalogue)
    built = building.table(as_known=as_known, memory_rows=memory_rows)
    if to is not None:
        built.write_parquet(to)
    return with_features(rows, built, building.plan.columns)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A training set and what it was made from, for the manifest of a model that is trained on it.

    `rows` are as they were given: a frame of pandas or polars.
    """

    rows: Any
    manifest: dict[str, Any]

    @classmethod
    def build(
        cls,
        features: FeatureSelection | Sequence[FeatureSelection],
        rows: Table,
        events: Mapping[str, Table] | None = None,
        *,
        catalogue: Catalogue | None = None,
        as_known: bool = False,
        to: Path | str | None = None,
        memory_rows: int = MEMORY_ROWS,
        seed: int | None = None,
    ) -> Self:
        """Build a training set as `build_training_set` does, and keep a record of it.

        Args:
            features: as there, like all that follows but the last.
            rows: rows with their times.
            events: events by source.
            catalogue: what references name.
            as_known: leave out what was not ingested yet.
            to: a Parquet file to write to.
            memory_rows: events in memory at once.
            seed: what the rows were drawn with, for the manifest alone.

        Raises:
            TrainingSetError: as there.
            UnknownFeatureError: as there.
        """
        building = _Building.of(features, rows, events or {}, catalogue)
        built = building.table(as_known=as_known, memory_rows=memory_rows)
        if to is not None:
            built.write_parquet(to)
        manifest = training_manifest(building.plan, building.rows, building.opened, seed=seed, as_known=as_known)
        return cls(with_features(rows, built, building.plan.columns), manifest)


@dataclass(frozen=True, slots=True)
class _Building:
    """What a training set is made from, opened."""

    plan: JoinPlan
    rows: TrainingRows
    opened: Mapping[str, SourceTable]

    @classmethod
    def of(
        cls,
        features: FeatureSelection | Sequence[FeatureSelection],
        rows: Table,
        events: Mapping[str, Table],
        catalogue: Catalogue | None,
    ) -> Self:
        listed = [features] if isinstance(features, FeatureSelection) else list(features)
        plan = JoinPlan.of(listed, catalogue)
        read = TrainingRows.of(rows, plan.row_types)
        if reserved := [column for column in plan.columns if column in read.frame.columns]:
            raise TrainingSetError(f"rows already have a column {reserved[0]!r}; leave it out")
        sources = {feature.view.source.name: feature.view.source for feature in plan.tiled}
        if unknown := sorted(events.keys() - sources.keys() - plan.catalogue.sources.keys()):
            names = ", ".join(sorted(sources)) or "none"
            raise TrainingSetError(f"events name a source {unknown[0]!r}; these features are made from {names}")
        return cls(plan, read, {name: open_events(source, events) for name, source in sources.items()})

    def table(self, *, as_known: bool, memory_rows: int) -> pl.DataFrame:
        """The rows with their features."""
        if memory_rows < 1:
            raise TrainingSetError(f"memory_rows is {memory_rows}; at least one event must fit")
        columns: dict[str, pl.Series] = {}
        for group in SourceGroup.all_of(self.plan.tiled):
            reading = Reading(group, self.opened[group.source.name], self.rows, as_known, memory_rows)
            columns.update({series.name: series for series in reading.features().get_columns()})
        for label, view in self.plan.on_demand.items():
            inputs = [(feature.kind, columns[feature.column]) for feature in self.plan.catalogue.features(view.inputs)]
            for name, series in on_demand_features(view, self.rows.opened, inputs).items():
                columns[f"{label}__{name}"] = series.alias(f"{label}__{name}")
        return self.rows.frame.with_columns(columns[column] for column in self.plan.columns)
