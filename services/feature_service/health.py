"""How fresh each view is in one worker, and whether the worker keeps up."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from services.feature_service.metrics import LAG_SECONDS, LATE, NEWEST, PARKED_EVENTS

WINDOW_S = 60.0
"""The time that rates cover, and for which a view may miss its objective before the worker is not ready."""

STALE_S = 15.0
"""A worker that has reported nothing for this long is gone."""

_QUIET_S = 5.0
"""A worker that has merged nothing for this long, and has nothing to merge, has caught up: Kafka answers far more
often, so the worker has reached the end of its partitions."""


class ViewHealth(msgspec.Struct, frozen=True):
    """One view in one worker.

    `lag_s` is the largest lag of the records merged last, from the record in Kafka to the store; None where nothing
    has come lately and nothing waits.
    """

    newest_event_s: float | None = None
    lag_s: float | None = None
    events: int = 0
    late: int = 0


class WorkerHealth(msgspec.Struct, frozen=True):
    """A worker's report at time `at`.

    `waiting_s` is the age of the oldest record that the worker has read and not merged; 0 where none waits. `unfilled`
    says why features could not be filled at the last attempt.
    """

    at: float
    views: dict[str, ViewHealth] = {}
    parked: int = 0
    waiting_s: float = 0.0
    unfilled: list[str] = []


@dataclass
class _ViewRecord:
    """A worker's record of one view."""

    newest_event_s: float
    lag_s: float = 0.0
    merged_at: float = float("-inf")
    behind_since: float | None = None
    events: "deque[tuple[float, int]]" = field(default_factory=deque)


class _PendingRecord(NamedTuple):
    """A record that was read and is not merged yet."""

    sent_at: float
    read_at: float


@dataclass
class Health:
    """Keeps what a worker has seen of its views, and the records that it has read and not merged, oldest first.

    `unfilled` has, by partition, why its features could not be filled.
    """

    parked: int = 0
    unfilled: dict[int, str] = field(default_factory=dict)
    _views: dict[str, _ViewRecord] = field(default_factory=dict)
    _late: dict[str, int] = field(default_factory=dict)
    _pending: "deque[_PendingRecord]" = field(default_factory=deque)

    def note_read(self, sent_at: float, now: float) -> None:
        """Note a record that is to be merged, after those that were read before it."""
        self._pending.append(_PendingRecord(sent_at, now))

    def note_done(self, records: int) -> None:
        """Note that the oldest records are merged."""
        for _ in range(records):
            self._pending.popleft()

    def note_merged(
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
            views: the views that the source feeds, each with its objective, a lag in seconds.
            now: the time in seconds.
            sent_at: when each record was put into the topic.
            newest_event_s: the greatest time of their events.
            events: how many events they hold.
        """
        lags = [max(0.0, now - sent) for sent in sent_at]
        for name, objective_s in views.items():
            view = self._views.setdefault(name, _ViewRecord(newest_event_s))
            if min(lags, default=0.0) <= objective_s:
                view.behind_since = None
            elif view.behind_since is None or self._is_quiet(view, now):
                view.behind_since = now
            view.merged_at = now
            view.lag_s = max(lags, default=0.0)
            view.newest_event_s = max(newest_event_s, view.newest_event_s)
            view.events.append((now, events))
            _drop_before(view.events, now - WINDOW_S)
            NEWEST.labels(name).set(view.newest_event_s)
            for lag in lags:
                LAG_SECONDS.labels(name).observe(lag)

    def note_late(self, view: str, events: int) -> None:
        """Note events that came too late."""
        if events:
            self._late[view] = self._late.get(view, 0) + events
            LATE.labels(view).inc(events)

    def note_parked(self, events: int) -> None:
        """Note events that were parked."""
        self.parked += events
        PARKED_EVENTS.inc(events)

    def not_ready(self, now: float) -> list[str]:
        """Why the worker is not ready: for over a minute a view has missed its objective, or nothing was merged.

        Only after a minute: a worker that starts has to catch up first. A view without new events is on time.
        """
        missed = [
            (name, now - view.behind_since)
            for name, view in self._views.items()
            if view.behind_since is not None and now - view.behind_since > WINDOW_S and not self._is_quiet(view, now)
        ]
        reasons = [f"view {name} has been behind its objective for {since:.0f} s" for name, since in missed]
        if self._pending and (waited_s := now - self._pending[0].read_at) > WINDOW_S:
            reasons.append(f"records wait to be merged, the first for {waited_s:.0f} s")
        return reasons

    def report(self, now: float) -> WorkerHealth:
        """This worker's report to other processes."""
        views = {name: ViewHealth(late=late) for name, late in self._late.items()}
        for name, view in self._views.items():
            _drop_before(view.events, now - WINDOW_S)
            events = sum(count for _, count in view.events)
            lag_s = None if self._is_quiet(view, now) else view.lag_s
            views[name] = ViewHealth(view.newest_event_s, lag_s, events, self._late.get(name, 0))
        oldest = min((pending.sent_at for pending in self._pending), default=now)
        return WorkerHealth(now, views, self.parked, max(0.0, now - oldest), sorted(set(self.unfilled.values())))

    def _is_quiet(self, view: _ViewRecord, now: float) -> bool:
        return not self._pending and now - view.merged_at > _QUIET_S


def _drop_before(events: "deque[tuple[float, int]]", time: float) -> None:
    while events and events[0][0] < time:
        events.popleft()
