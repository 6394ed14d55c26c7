"""The use case of readiness: what speaks against a start, by the traffic of the last day."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from contender.contracts.experiments import ExperimentRevision, Finding, ModelTraffic
from contender.contracts.inference_service import ModelVersion
from services.ab_router.catalog import Catalog
from services.ab_router.domain.planned import effect_of_tuning, plan_request, planned_finding
from services.ab_router.domain.readiness import VariantNeeds, traffic_findings
from services.ab_router.domain.shown_traffic import shown
from services.ab_router.domain.traffic import DayOfTraffic
from services.ab_router.plans import NoPlanError, Plans
from services.ab_router.traffic import Traffic
from shared.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Look:
    """Findings, and the rows that they rest on: `since`, seconds since the Unix epoch, is None where none were read."""

    findings: list[Finding]
    rows: int
    since: float | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Compares an experiment's needs with what callers sent.

    Attributes:
        traffic: the counts of all routers.
        catalog: knows the inputs of views.
        plans: says what a verdict takes.
        challenger_deadline_s: longest that a row waits for a challenger.
    """

    traffic: Traffic
    catalog: Catalog
    plans: Plans
    challenger_deadline_s: float

    async def findings(self, revision: ExperimentRevision, versions: Mapping[str, ModelVersion]) -> list[Finding]:
        """What speaks against a start; `versions` are the model's, by name."""
        return (await self.look(revision, versions)).findings

    async def look(self, revision: ExperimentRevision, versions: Mapping[str, ModelVersion]) -> Look:
        """The findings with the rows that they rest on. Where counts or plans can't be read, a finding says so."""
        try:
            day = await self.traffic.day(revision.model)
        except Unavailable as error:
            away = Finding("traffic", f"could not be looked at: {error.detail}", blocks=False)
            return Look([away, *await self._planned(revision, None)], 0, None)
        named = [(variant.name, versions.get(variant.version)) for variant in revision.variants]
        needs = [self._needs(variant, version) for variant, version in named if version]  # one that is gone can't start
        known = {name for version in versions.values() for name in self._needs("", version).names}
        findings = traffic_findings(revision, needs, known, day, self.challenger_deadline_s)
        return Look([*findings, *await self._planned(revision, day)], day.rows, day.since)

    async def show(self, model: str) -> ModelTraffic:
        """The counts of the last day, for people.

        Raises:
            UnknownModelError: no version of the model is registered.
            Unavailable: the counts can't be read.
        """
        registered = await self.catalog.find(model)
        return shown(model, registered.versions.values(), await self.traffic.day(model))

    def _needs(self, variant: str, version: ModelVersion) -> VariantNeeds:
        inputs = self.catalog.served_features(version)[1]
        return VariantNeeds(variant, version, inputs.join_keys, list(inputs.request))

    async def _planned(self, revision: ExperimentRevision, day: DayOfTraffic | None) -> list[Finding]:
        request = plan_request(revision, day)
        if request is None:
            return []
        try:
            plan = await self.plans.plan(request)
            if revision.hypothesis == "superiority":
                effect = effect_of_tuning(revision, plan)
                request = msgspec.structs.replace(request, effect=effect)
                plan = await self.plans.plan(request)
        except NoPlanError as error:
            return [Finding("plan", f"can't tell the rows and days that a verdict takes: {error}", blocks=False)]
        return [planned_finding(revision, request, plan, day)]
