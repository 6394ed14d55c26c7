"""How fresh each view is: what a worker has seen lately, told through the store so that every process can show it."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from services.feature_service.metrics import LAG_SECONDS, LATE, NEWEST, PARKED_EVENTS

WINDOW_S = 60.0
"""Stretch of time that rates and percentiles are of."""

STALE_S = 15.0
"""A worker that has told nothing for this long is gone."""

_QUIET_S = 5.0
"""A worker that has merged nothing for this long, and has nothing to merge, is behind no more: Kafka's answers are far
shorter apart, so it has come to the end of its partitions."""

_MOST_LAGS = 10_000


class ViewHealth(msgspec.Struct, frozen=True):
    """What one worker knows of one view. Lags are from an event's record in Kafka to the store, in seconds.

    `is_quiet` says that nothing has come of late and nothing waits: whatever the lags were, nothing lags now.
    """

    newest_event_s: float | None = None
    lags_s: list[float] = []
    events: int = 0
    late: int = 0
    is_quiet: bool = False


class WorkerHealth(msgspec.Struct, frozen=True):
    """What a worker tells; `at` is when.

    `waiting_s` is how long ago the oldest record was sent that the worker had read and not merged by then; 0 where
    nothing waited. `unfilled` says why features that are to be filled could not be, the last time that it was tried.
    """

    at: float
    views: dict[str, ViewHealth] = {}
    parked: int = 0
    waiting_s: float = 0.0
    unfilled: list[str] = []


@dataclass
class _Recent:
    """One view's last minute."""

    newest_event_s: float | None = None
    lags: "deque[tuple[float, float]]" = field(default_factory=lambda: deque(maxlen=_MOST_LAGS))
    events: "deque[tuple[float, int]]" = field(default_factory=deque)
    late: int = 0
    behind_since: float | None = None
    merged_at: float = float("-inf")


class _Waiting(NamedTuple):
    """A record that was read and not merged yet."""

    sent_at: float
    read_at: float


@dataclass
class Health:
    """Keeps the last minute of a worker, and which records it has read and not merged, oldest first.

    `unfilled` has by partition why its features could not be filled.
    """

    parked: int = 0
    unfilled: dict[int, str] = field(default_factory=dict)
    _views: dict[str, _Recent] = field(default_factory=dict)
    _waiting: "deque[_Waiting]" = field(default_factory=deque)

    def read(self, sent_at: float, now: float) -> None:
        """Note a record that is to be merged; those that were read before it are merged before it."""
        self._waiting.append(_Waiting(sent_at, now))

    def done(self, records: int) -> None:
        """Note that the oldest records wait no more."""
        for _ in range(records):
            self._waiting.popleft()

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
            elif recent.behind_since is None or self._is_quiet(recent, now):
                recent.behind_since = now
            recent.merged_at = now
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
        """What has been wrong for more than a minute: views whose every record misses the objective, or a standstill.

        Not at once: a worker that starts has to catch up with what came while it was away. A view of which nothing
        has come any more is behind nothing.
        """
        missed = [
            (name, now - recent.behind_since)
            for name, recent in self._views.items()
            if recent.behind_since is not None
            and now - recent.behind_since > WINDOW_S
            and not self._is_quiet(recent, now)
        ]
        reasons = [f"view {name} has been behind its objective for {since:.0f} s" for name, since in missed]
        if self._waiting and (stood_s := now - self._waiting[0].read_at) > WINDOW_S:
            reasons.append(f"records wait to be merged, the first for {stood_s:.0f} s")
        return reasons

    def _is_quiet(self, recent: _Recent, now: float) -> bool:
        return not self._waiting and now - recent.merged_at > _QUIET_S

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
                self._is_quiet(recent, now),
            )
        oldest = min((one.sent_at for one in self._waiting), default=now)
        unfilled = sorted(set(self.unfilled.values()))
        return WorkerHealth(now, views, self.parked, max(0.0, now - oldest), unfilled)


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """One view over all workers.

    `behind` says that its objective is missed: by the records of the last minute while they come, by one that waits in
    a worker, or because no worker runs.
    """

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
    lags = [lag for one in known for lag in one.lags_s]
    p50, p99 = (float(np.percentile(lags, q)) for q in (50, 99)) if lags else (None, None)
    busy = [lag for one in known if not one.is_quiet for lag in one.lags_s]
    longest_s = max(waiting_of(workers), float(np.percentile(busy, 99)) if busy else 0.0)
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
        behind=not workers or longest_s > objective_s,
    )


def waiting_of(workers: Sequence[WorkerHealth]) -> float:
    """How long ago the oldest record was sent that waits in a worker, in seconds; 0 where none does."""
    return max((worker.waiting_s for worker in workers), default=0.0)


def alive(told: Mapping[str, bytes], now: float) -> list[WorkerHealth]:
    """The workers that have told something lately."""
    workers = [msgspec.json.decode(value, type=WorkerHealth) for value in told.values()]
    return [worker for worker in workers if worker.at > now - STALE_S]
