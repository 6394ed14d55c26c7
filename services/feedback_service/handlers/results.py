"""The use case of results: what is known of experiments."""

from dataclasses import dataclass

from contender.contracts.feedback_service import ExperimentSummary, Results
from services.feedback_service.domain.results import results_of
from services.feedback_service.errors import UnknownExperiment
from services.feedback_service.experiments import Experiments
from services.feedback_service.store import SnapshotStore
from shared.clock import Clock


@dataclass(frozen=True, slots=True)
class ReadResults:
    """Reads what is known of experiments.

    Args:
        snapshots: what the workers have published.
        experiments: what the router has announced.
        clock: dates what a look finds.
    """

    snapshots: SnapshotStore
    experiments: Experiments
    clock: Clock

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
        return [summaries[name] for name in sorted(summaries)]

    async def results(self, name: str) -> Results:
        """The results of one experiment.

        Raises:
            UnknownExperiment: neither announced nor seen in a prediction.
            ResultsUnavailable: the store can't be reached.
        """
        snapshots = await self.snapshots.read(name)
        look = results_of(name, self.experiments.get(name), snapshots, self.clock.now())
        if look is None:
            raise UnknownExperiment(f"there is no experiment {name!r}")
        return look.results
