"""How fresh and how full every version of every view is, over all workers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from contender.contracts.feature_service import FeaturesStatus, ViewStatus
from contender.features import FeatureView, seconds
from services.feature_service.definitions import Definitions
from services.feature_service.health import STALE_S, WINDOW_S, WorkerHealth
from services.feature_service.metrics import ENTITIES, OBJECTIVE
from services.feature_service.store import FeatureStore
from shared.clock import Clock


@dataclass(slots=True)
class StatusReader:
    """Combines the workers' reports, which views are filled, and the counts of entities.

    Args:
        definitions: the versions of views.
        store: has the workers' reports and the entities.
        clock: the current time.
    """

    definitions: Definitions
    store: FeatureStore
    clock: Clock
    _entities: dict[str, int] = field(default_factory=dict)

    async def read(self) -> FeaturesStatus:
        """The status now.

        Raises:
            StoreUnavailableError: the store can't be read.
        """
        current, now = self.definitions.current, self.clock.now()
        workers = live_workers((await self.store.read_health()).values(), now)
        waiting_s = max((worker.waiting_s for worker in workers), default=0.0)
        views = []
        for label, view in current.catalogue.kept.items():
            if isinstance(view, FeatureView):
                objective_s = float(seconds(view.fresh_within))
                status = view_status(label, view.name, workers, now=now, objective_s=objective_s)
                is_filled = current.is_filled(label, self.definitions.partitions)
                entities = self._entities.get(label)
                views.append(msgspec.structs.replace(status, complete=is_filled, entities=entities))
        return FeaturesStatus(
            views,
            len(workers),
            sum(worker.parked for worker in workers),
            waiting_s,
            sorted({reason for worker in workers for reason in worker.unfilled}),
        )

    async def count_entities(self) -> None:
        """Count the entities of every version, for the status and /metrics.

        Raises:
            StoreUnavailableError: the store can't be read.
        """
        rings = self.definitions.current.rings
        counts = await self.store.entities(rings.all())
        for label, view in self.definitions.current.catalogue.kept.items():
            if isinstance(view, FeatureView):
                self._entities[label] = max((counts[ring.name] for ring in rings.of_view(label)), default=0)
                ENTITIES.labels(label).set(self._entities[label])
                OBJECTIVE.labels(label).set(seconds(view.fresh_within))


def view_status(
    label: str, name: str, workers: Sequence[WorkerHealth], *, now: float, objective_s: float
) -> ViewStatus:
    """The status of a view from the reports of all workers.

    Args:
        label: `view@number`.
        name: the view's name.
        workers: the running workers.
        now: the time in seconds.
        objective_s: the declared longest lag.
    """
    views = [worker.views[name] for worker in workers if name in worker.views]
    newest_s = max((view.newest_event_s for view in views if view.newest_event_s is not None), default=None)
    lag_s = max((view.lag_s for view in views if view.lag_s is not None), default=None)
    slowest_s = max([lag_s or 0.0, *(worker.waiting_s for worker in workers)])
    return ViewStatus(
        label=label,
        complete=False,
        newest_event_age_s=None if newest_s is None else now - newest_s,
        lag_s=lag_s,
        objective_s=objective_s,
        events_per_s=sum(view.events for view in views) / WINDOW_S,
        late=sum(view.late for view in views),
        entities=None,
        behind=not workers or slowest_s > objective_s,
    )


def live_workers(reports: Iterable[bytes], now: float) -> list[WorkerHealth]:
    """The workers that have reported lately."""
    workers = [msgspec.json.decode(report, type=WorkerHealth) for report in reports]
    return [worker for worker in workers if worker.at > now - STALE_S]
