"""How far time has got in an experiment: rows mature when its clock has passed their window.

The clock never runs ahead of what was read: a label that is still unread is no missing label.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

from contender.contracts.experiments import ExperimentRevision
from services.feedback_service.domain.days import DAY_S
from services.feedback_service.domain.groups import Experiment

IDLE_S = 2 * DAY_S
"""How long after the end of the last window an experiment's clock goes on: until its last day is whole."""


class Revisions(Protocol):
    """The newest revision of each experiment."""

    def get(self, name: str, /) -> ExperimentRevision | None:
        """The newest revision of an experiment; None where it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class EventTime:
    """A time that two rows of an experiment had reached, and when the later of them was sent."""

    reached: float
    arrived_at: float


@dataclass(frozen=True, slots=True)
class EndsRequest:
    """Kafka was asked at `asked_at`, in seconds since the Unix epoch, where the topics end.

    `reached` is what the experiments had reached at that time.
    """

    asked_at: float
    reached: Mapping[str, EventTime]


class Clocks:
    """The clocks of the experiments in all partitions of a worker.

    Args:
        revisions: say which experiments have stopped.
        allowed_lateness_s: how far the clocks stay behind.
    """

    def __init__(self, revisions: Revisions, allowed_lateness_s: float = 0.0) -> None:
        self._revisions = revisions
        self._allowed_lateness_s = allowed_lateness_s
        self._event_times: dict[str, dict[int, EventTime]] = {}

    def note(self, partition: int, times: Mapping[str, EventTime]) -> None:
        """Note what a partition's experiments had reached when its topics were last read to their end."""
        for name, time in times.items():
            self._event_times.setdefault(name, {})[partition] = time

    def time(self, experiment: Experiment, caught_up_at: float | None) -> float:
        """The experiment's time in a partition whose topics were read to their end as of `caught_up_at`.

        The clock `wall` is this world's. The clock `event` is the newest time that two rows have reached in any
        partition, since one set of routers writes to all: a partition without new rows is idle, not behind. It counts
        once the partition has read what was sent before those rows. After the experiment has stopped, no row moves the
        clock any more, and this world's does.

        Either stops in the end, once nothing can mature any more. A known revision says which of them counts: frames of
        older releases do not.
        """
        if caught_up_at is None:
            return -inf
        revision = self._revisions.get(experiment.name)
        stopped_at = None if revision is None else revision.stopped_at
        clock = experiment.clock if revision is None else revision.clock
        if clock == "wall":
            end = inf if stopped_at is None else stopped_at + experiment.longest_s + IDLE_S
            return min(caught_up_at, end) - self._allowed_lateness_s
        event_times = self._event_times.get(experiment.name, {}).values()
        reached = max((time.reached for time in event_times if time.arrived_at <= caught_up_at), default=-inf)
        since_stop = 0.0 if stopped_at is None else max(0.0, caught_up_at - stopped_at)
        return reached + min(since_stop, experiment.longest_s + IDLE_S) - self._allowed_lateness_s
