"""How fresh each view is: what a worker has seen lately, told through the store so that every process can show it."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from services.feature_service.metrics import LAG_SECONDS, LATE, NEWEST, PARKED_EVENTS

WINDOW_S = 60.0
"""Stretch of time that rates and percentiles are of."""

STALE_S = 15.0
"""A worker that has told nothing for this long is gone."""

_MOST_LAGS = 10_000


class ViewHealth(msgspec.Struct, frozen=True):
    """What one worker knows of one view. Lags are from an event's record in Kafka to the store, in seconds."""

    newest_event_s: float | None = None
    lags_s: list[float] = []
    events: int = 0
    late: int = 0


class WorkerHealth(msgspec.Struct, frozen=True):
    """What a worker tells; `at` is when."""

    at: float
    views: dict[str, ViewHealth] = {}
    parked: int = 0


@dataclass
class _Recent:
    """One view's last minute."""

    newest_event_s: float | None = None
    lags: "deque[tuple[float, float]]" = field(default_factory=lambda: deque(maxlen=_MOST_LAGS))
    events: "deque[tuple[float, int]]" = field(default_factory=deque)
    late: int = 0
    behind_since: float | None = None


@dataclass
class Health:
    """Keeps the last minute of a worker."""

    parked: int = 0
    _views: dict[str, _Recent] = field(default_factory=dict)

    def merged(
        self,
        views: Mapping[str, float],
        *,
        now: float,
        sent_at: Sequence[float],
        newest_event_s: float,
        events: int,
    ) -> None:
        """Note records of a source that were merged.

        Args:
            views: the views that the source feeds, each with the lag in seconds that is its objective.
            now: the time in seconds.
            sent_at: when each record was put into the topic.
            newest_event_s: the greatest time of their events.
            events: how many they hold.
        """
        for name, objective_s in views.items():
            recent = self._views.setdefault(name, _Recent())
            on_time = now - max(sent_at, default=now) <= objective_s
            if on_time:
                recent.behind_since = None
            elif recent.behind_since is None:
                recent.behind_since = now
            recent.newest_event_s = max(newest_event_s, recent.newest_event_s or newest_event_s)
            recent.lags.extend((now, max(0.0, now - one)) for one in sent_at)
            recent.events.append((now, events))
            NEWEST.labels(name).set(recent.newest_event_s)
            for one in sent_at:
                LAG_SECONDS.labels(name).observe(max(0.0, now - one))

    def late(self, view: str, events: int) -> None:
        """Note events that came too late."""
        if events:
            self._views.setdefault(view, _Recent()).late += events
            LATE.labels(view).inc(events)

    def set_aside(self, events: int) -> None:
        """Note events that were parked."""
        self.parked += events
        PARKED_EVENTS.inc(events)

    def behind(self, now: float) -> list[str]:
        """Views whose objective has been missed by every record for more than a minute.

        Not at once: a worker that starts has to catch up with what came while it was away.
        """
        missed = [
            (name, now - recent.behind_since)
            for name, recent in self._views.items()
            if recent.behind_since is not None and now - recent.behind_since > WINDOW_S
        ]
        return [f"view {name} has been behind its objective for {since:.0f} s" for name, since in missed]

    def told(self, now: float) -> WorkerHealth:
        """What there is to tell."""
        views = {}
        for name, recent in self._views.items():
            for kept in (recent.lags, recent.events):
                while kept and kept[0][0] < now - WINDOW_S:
                    kept.popleft()
            lags = sorted(lag for _, lag in recent.lags)
            step = max(1, len(lags) // 200)  # enough for a percentile, little enough to tell
            views[name] = ViewHealth(
                recent.newest_event_s,
                [*lags[::step], *lags[-1:]],
                sum(count for _, count in recent.events),
                recent.late,
            )
        return WorkerHealth(now, views, self.parked)


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """One view over all workers. `behind` says that its lag is beyond the objective."""

    label: str
    complete: bool
    newest_event_age_s: float | None
    lag_p50_s: float | None
    lag_p99_s: float | None
    objective_s: float
    events_per_s: float
    late: int
    entities: int
    behind: bool


def status_of(
    label: str,
    name: str,
    workers: Sequence[WorkerHealth],
    *,
    now: float,
    objective_s: float,
    complete: bool,
    entities: int,
) -> ViewStatus:
    """Put together what the workers tell of a view."""
    known = [worker.views[name] for worker in workers if name in worker.views]
    newest = max((one.newest_event_s for one in known if one.newest_event_s is not None), default=None)
    lags = np.array([lag for one in known for lag in one.lags_s])
    p50, p99 = (float(np.percentile(lags, q)) for q in (50, 99)) if len(lags) else (None, None)
    return ViewStatus(
        label=label,
        complete=complete,
        newest_event_age_s=None if newest is None else now - newest,
        lag_p50_s=p50,
        lag_p99_s=p99,
        objective_s=objective_s,
        events_per_s=sum(one.events for one in known) / WINDOW_S,
        late=sum(one.late for one in known),
        entities=entities,
        behind=p99 is not None and p99 > objective_s,
    )


def alive(told: Mapping[str, bytes], now: float) -> list[WorkerHealth]:
    """The workers that have told something lately."""
    workers = [msgspec.json.decode(value, type=WorkerHealth) for value in told.values()]
    return [worker for worker in workers if worker.at > now - STALE_S]
