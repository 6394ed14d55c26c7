"""From assigned rows to scores: features, one call per version, and who answers when a version can't."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.ab_router.catalog import REQUEST, Catalog, Model
from services.ab_router.clients import CallError, Features, Inference, ServedFeatures
from services.ab_router.requests import Row
from shared.events import ExperimentRevision, ModelVersion, Scalar, VariantAllocation

Value = float | list[float]


@dataclass(slots=True)
class Plan:
    """A row with its assignment; `variant` is None outside of an experiment. `arrived` is a perf_counter's seconds."""

    row: Row
    time: float
    model: Model
    experiment: ExperimentRevision | None
    variant: VariantAllocation | None
    arrived: float

    @property
    def version(self) -> ModelVersion:
        """What shall answer: the variant's version, else the model's champion."""
        return self.model.versions[self.variant.version] if self.variant else self.model.champion


@dataclass(slots=True)
class Scored:
    """What a version answered to a row."""

    plan: Plan
    version: ModelVersion
    served_variant: str | None
    score: Value
    label: Scalar
    inputs: dict[str, Scalar]
    statuses: dict[str, str]
    degraded: bool


class Scorer:
    """Scores rows. A challenger that fails is answered for by the champion, a champion by the fallback value."""

    def __init__(self, features: Features, inference: Inference, catalog: Catalog) -> None:
        self._features = features
        self._inference = inference
        self._catalog = catalog

    async def score(self, plans: Sequence[Plan]) -> list[Scored | CallError]:
        """One result per plan, in order; a CallError where nobody could answer."""
        found: list[Scored | CallError] = list(await self._by_version(plans, [plan.version for plan in plans]))
        failed = [index for index, one in enumerate(found) if isinstance(one, CallError) and _champion(plans[index])]
        again = [plans[index] for index in failed]
        if again:
            versions = [version for plan in again if (version := _champion(plan))]
            for index, second in zip(failed, await self._by_version(again, versions), strict=True):
                found[index] = second
        return [
            _fallen_back(plan, one) if isinstance(one, CallError) else one
            for plan, one in zip(plans, found, strict=True)
        ]

    async def _by_version(
        self, plans: Sequence[Plan], versions: Sequence[ModelVersion]
    ) -> Sequence[Scored | CallError]:
        groups: dict[tuple[str, str], list[int]] = {}
        for index, version in enumerate(versions):
            groups.setdefault((version.model, version.version), []).append(index)
        found: dict[int, Scored | CallError] = {}

        async def one(indices: list[int]) -> None:
            version = versions[indices[0]]
            results = await self._answered([plans[index] for index in indices], version)
            found.update(zip(indices, results, strict=True))

        await asyncio.gather(*(one(indices) for indices in groups.values()))
        return [found[index] for index in range(len(plans))]

    async def _answered(self, plans: Sequence[Plan], version: ModelVersion) -> Sequence[Scored | CallError]:
        """All rows by one version: its features, then its scores."""
        served, degraded = await self._served(plans, version)
        columns: dict[str, list[Scalar]] = {}
        for column in version.inputs:
            if column.source == REQUEST:
                columns[column.name] = [plan.row.inputs.get(column.name, column.default) for plan in plans]
            else:
                columns[column.name] = served.values.get(column.source, [column.default] * len(plans))
        try:
            answer = await self._inference.predict(version.model, version.version, columns)
        except CallError as error:
            return [error] * len(plans)
        statuses = {column.name: served.statuses.get(column.source) for column in version.inputs}
        return [
            Scored(
                plan,
                version,
                _variant_of(plan, version),
                answer.scores[index],
                answer.labels[index],
                {name: values[index] for name, values in columns.items()},
                {name: values[index] for name, values in statuses.items() if values},
                degraded,
            )
            for index, plan in enumerate(plans)
        ]

    async def _served(self, plans: Sequence[Plan], version: ModelVersion) -> tuple[ServedFeatures, bool]:
        """The features of a version's rows, and whether some can't be had."""
        references, needs = self._catalog.needs(version)
        wanted = {column.source for column in version.inputs if column.source != REQUEST}
        if not wanted:
            return ServedFeatures({}, {}), False
        if not references:
            return ServedFeatures({}, {}), True
        columns: dict[str, list[Scalar]] = {
            **{key: [plan.row.entities.get(key) for plan in plans] for key in needs.join_keys},
            **{name: [plan.row.inputs.get(name) for plan in plans] for name in needs.request},
        }
        try:
            served = await self._features.get(references, columns, [plan.time for plan in plans])
        except CallError:
            return ServedFeatures({}, {}), True
        return served, len(served.values) < len(wanted)


def _champion(plan: Plan) -> ModelVersion | None:
    """Who answers for the plan's version; None when it is the champion itself."""
    experiment = plan.experiment
    if experiment is None or plan.variant is None or plan.variant.name == experiment.champion:
        return None
    champion = next(variant for variant in experiment.variants if variant.name == experiment.champion)
    return plan.model.versions.get(champion.version)


def _variant_of(plan: Plan, version: ModelVersion) -> str | None:
    """The variant that answered. Two variants may share a version, so the plan's own comes first."""
    if plan.experiment is None or plan.variant is None:
        return None
    if plan.variant.version == version.version:
        return plan.variant.name
    return plan.experiment.champion


def _fallen_back(plan: Plan, error: CallError) -> Scored | CallError:
    experiment = plan.experiment
    if experiment is None or plan.variant is None or experiment.fallback_value is None:
        return error
    version = plan.version
    score = experiment.fallback_value
    label = version.classes[score >= 0.5] if version.task == "binary" else score  # noqa: PLR2004 - the likelier class
    return Scored(plan, version, None, score, label, {}, {}, degraded=True)
