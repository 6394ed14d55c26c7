"""The use case of results: what is known of experiments."""

import asyncio
from dataclasses import dataclass, field
from math import isfinite

import msgspec

from contender.contracts.feedback_service import ExperimentSummary, Results, VerdictEvent
from services.feedback_service.domain.fingerprints import fingerprint
from services.feedback_service.domain.results import as_published, results_of
from services.feedback_service.errors import InvalidMoment, NoVintage, UnknownExperiment
from services.feedback_service.experiments import Experiments
from services.feedback_service.store import SnapshotStore
from services.feedback_service.verdict_store import VerdictStore
from shared.clock import Clock

LOOKS_KEPT = 200
"""Looks that are kept for further reads: the results of one take some 50 kB."""


@dataclass(frozen=True, slots=True)
class ReadResults:
    """Reads what is known of experiments.

    Args:
        snapshots: what the workers have published.
        experiments: what the router has announced.
        clock: dates what a look finds.
        verdicts: what earlier looks have found.
    """

    snapshots: SnapshotStore
    experiments: Experiments
    clock: Clock
    verdicts: VerdictStore
    _looks: dict[str, tuple[tuple[bytes, int], Results]] = field(default_factory=dict)
    """By experiment the results of the last look, with the fingerprint and the version of the memory that it saw."""

    async def list_experiments(self) -> list[ExperimentSummary]:
        """Experiments that were announced or have predictions, by name.

        Raises:
            ResultsUnavailable: the store can't be reached.
        """
        summaries = {
            revision.name: ExperimentSummary(
                revision.name,
                revision.status,
                revision.model,
                revision.metric,
                [variant.name for variant in revision.variants],
            )
            for revision in self.experiments.all()
        }
        for name in sorted(set(await self.snapshots.experiments()) - set(summaries)):
            look = results_of(name, None, await self.snapshots.read(name), self.clock.now())
            if look is not None:
                results = look.results
                variants = [variant.name for variant in results.variants]
                summaries[name] = ExperimentSummary(name, results.status, results.model, results.metric, variants)
        return [await self._with_verdict(summaries[name]) for name in sorted(summaries)]

    async def _with_verdict(self, summary: ExperimentSummary) -> ExperimentSummary:
        """The summary with what was last kept of the experiment: a look at each of them would take long."""
        kept = await self.verdicts.vintage(summary.name, self.clock.now())
        if kept is None:
            return summary
        results = msgspec.json.decode(kept, type=Results)
        return msgspec.structs.replace(
            summary,
            verdict=results.verdict.status,
            sentence=results.verdict.sentence,
            matured=sum(variant.matured for variant in results.variants),
            whole_days=results.days.whole if results.days else None,
            as_of=results.updated_at,
            effect=results.effects.get(results.verdict.challenger, {}).get(results.metric),
        )

    async def results(self, name: str) -> Results:
        """The results of one experiment: a look that is not stored, after those that the worker has stored.

        Where nothing has changed since the last look, its results hold.

        Raises:
            UnknownExperiment: neither announced nor seen in a prediction.
            ResultsUnavailable: a store can't be reached.
        """
        snapshots, kept = await self.snapshots.read(name), await self.verdicts.memory(name)
        revision = self.experiments.get(name)
        seen = fingerprint(name, revision, snapshots), kept.version
        last, results = self._looks.pop(name, (None, None))
        # A forecast knows the pace by the watermark.
        if results is None or last != seen or as_published(results, snapshots).watermark != results.watermark:
            look = await asyncio.to_thread(results_of, name, revision, snapshots, self.clock.now(), kept.memory)
            if look is None:
                raise UnknownExperiment(f"there is no experiment {name!r}")
            results = look.results
        self._looks[name] = seen, results  # in the order of their last use
        if len(self._looks) > LOOKS_KEPT:
            del self._looks[next(iter(self._looks))]
        return as_published(results, snapshots)

    async def vintage(self, name: str, as_of: float) -> bytes:
        """The JSON of the results that were kept at or before a time, in seconds since the Unix epoch.

        Raises:
            InvalidMoment: the time is no number or has not come yet: its results would change.
            UnknownExperiment: neither announced nor seen in a prediction.
            NoVintage: no results were kept by then.
            ResultsUnavailable: a store can't be reached.
        """
        if not isfinite(as_of):
            raise InvalidMoment.at("query.as_of", "must be in seconds since the Unix epoch")
        if as_of > self.clock.now():
            raise InvalidMoment.at("query.as_of", "lies in the future; results as of then may still change")
        results = await self.verdicts.vintage(name, as_of)
        if results is None:
            await self._check_known(name)
            raise NoVintage(f"no results of {name!r} are kept that are as old as {as_of:.0f}")
        return results

    async def list_verdicts(self, name: str) -> list[VerdictEvent]:
        """The verdicts of one experiment and what was found after them, in order.

        Raises:
            UnknownExperiment: neither announced nor seen in a prediction.
            ResultsUnavailable: a store can't be reached.
        """
        events = await self.verdicts.events(name)
        if not events:
            await self._check_known(name)
        return events

    async def _check_known(self, name: str) -> None:
        if self.experiments.get(name) is None and name not in await self.snapshots.experiments():
            raise UnknownExperiment(f"there is no experiment {name!r}")
