"""Looks at experiments again and again, and keeps what it finds: memories, verdicts as events, and vintages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

import msgspec

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import Results, VerdictEvent
from services.feedback_service.domain.clocks import IDLE_S
from services.feedback_service.domain.fingerprints import fingerprint
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import Look, results_of
from services.feedback_service.domain.snapshots import PartitionSnapshot
from services.feedback_service.experiments import Experiments
from services.feedback_service.metrics import LOOKS, VERDICTS_FOUND
from services.feedback_service.store import SnapshotStore
from services.feedback_service.verdict_store import KeptMemory, VerdictStore, Vintage, is_storable, new_events
from shared.clock import Clock
from shared.errors import Unavailable
from shared.logs import logger

LOOKS_AT_ONCE = 10
"""Looks of a tick: each takes some hundredths of a second."""

READS_AT_ONCE = 200
"""Experiments of a tick whose snapshots are read to see whether they have changed: some milliseconds each."""

EVENTS_AT_ONCE = 100
"""Events that are sent in a tick at most."""

UNANNOUNCED_S = 30.0
"""How long an experiment of which only predictions are known may still be announced. Its design would be a guess."""

SETTLING_S = 60.0
"""How long after a stopped experiment's last window its last rows may still be on their way."""

LAST_DAY_S = IDLE_S + SETTLING_S
"""How long after it the day of the stop may still become whole, where a verdict takes whole days."""

LONGEST_SETTLING_S = LAST_DAY_S + 86_400.0
"""How long after it a stopped experiment is looked at, where some of its rows never mature."""


class LookAt(Protocol):
    """The pure function that makes a look; None when there is neither a revision nor a prediction."""

    def __call__(
        self,
        name: str,
        revision: ExperimentRevision | None,
        snapshots: Sequence[PartitionSnapshot],
        now: float,
        memory: Memory | None = None,
    ) -> Look | None:
        """Look at an experiment at a time in seconds since the Unix epoch."""
        ...


@dataclass
class Judge:
    """Looks at the experiments that may have changed, and keeps what was found.

    Two judges may overlap for a moment: of two looks at one experiment the store keeps one, and events may be sent
    twice. A call of `look` raises what is away, and the next one goes on.

    Args:
        snapshots: what the workers have published.
        experiments: what the router has announced. Nothing is looked at before they are complete.
        verdicts: keeps what is found.
        send: puts an event on its topic, and returns when it is there.
        clock: the time of looks.
        is_in_charge: whether this process is the one that looks.
        partitions: how many there are. Where one has published nothing, as after Redis was emptied, no look is made.
        vintage_interval_s: time between two vintages of an experiment that is not stopped.
        make_look: makes a look, in a thread.
    """

    snapshots: SnapshotStore
    experiments: Experiments
    verdicts: VerdictStore
    send: Callable[[VerdictEvent], Awaitable[None]]
    clock: Clock
    is_in_charge: Callable[[], bool]
    partitions: int
    vintage_interval_s: float
    make_look: LookAt = results_of
    _last_name: str = ""
    _looked_at: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    """By experiment the fingerprint of the last look, and when the same is looked at again."""
    _settled: dict[str, int] = field(default_factory=dict)
    _unannounced_since: dict[str, float] = field(default_factory=dict)
    _failing: set[str] = field(default_factory=set)

    async def look(self) -> None:
        """Look at the next experiments, and send the events that were found, now or by a process before this one.

        Raises:
            Unavailable: a store or Kafka does not answer.
        """
        if not self.is_in_charge() or not self.experiments.is_complete:
            return
        looks = 0
        for name in await self._next_names():
            if looks >= LOOKS_AT_ONCE or not self.is_in_charge():
                break
            self._last_name = name
            looks += await self._look_safely(name)
        await self._send_events()

    async def _next_names(self) -> list[str]:
        """The experiments that this tick may look at: the next ones by name, in turn."""
        revisions, now = self.experiments.all(), self.clock.now()
        announced = {revision.name for revision in revisions}
        names = [revision.name for revision in revisions if self._is_open(revision)]
        unannounced = set(await self.snapshots.experiments()) - announced
        self._unannounced_since = {name: self._unannounced_since.get(name, now) for name in unannounced}
        names += [name for name, since in self._unannounced_since.items() if now >= since + UNANNOUNCED_S]
        names = sorted(filter(is_storable, names))
        ahead = [name for name in names if name > self._last_name]
        behind = [name for name in names if name <= self._last_name]
        return [*ahead, *behind][:READS_AT_ONCE]

    def _is_open(self, revision: ExperimentRevision) -> bool:
        """Whether looks may find anything: a draft has no rows, and a settled experiment no new ones."""
        return revision.status != "draft" and self._settled.get(revision.name) != revision.revision

    async def _look_safely(self, name: str) -> bool:
        """Look at an experiment whatever may be wrong with it: the others must not wait for it."""
        log = logger(__name__)
        try:
            has_looked = await self._look_at(name)
        except Unavailable:
            raise
        except Exception:  # its sums or its memory are at fault, and a later release may know them
            if name not in self._failing:
                log.exception("an experiment can't be looked at", experiment=name)
            self._failing.add(name)
            return True
        self._failing.discard(name)
        return has_looked

    async def _look_at(self, name: str) -> bool:
        """Look at an experiment if it may have changed, keep what was found, and return whether a look was made."""
        revision, now = self.experiments.get(name), self.clock.now()
        snapshots = await self.snapshots.read(name)
        if len(snapshots) < self.partitions:
            return False
        current = await asyncio.to_thread(fingerprint, name, revision, snapshots)
        last, again_at = self._looked_at.get(name, (b"", inf))
        if current == last and now < again_at:
            return False
        read = await self.verdicts.memory(name)
        look = await asyncio.to_thread(self.make_look, name, revision, snapshots, now, read.memory)
        if look is None:
            return True
        LOOKS.inc()
        is_settled = revision is not None and _is_settled(revision, look.results, now)
        vintage = self._vintage_of(look, read, revision, now, is_settled=is_settled)
        has_changed = vintage is not None or look.memory != read.memory
        if has_changed and not await self._write(name, read, look.memory, vintage):
            self._looked_at.pop(name, None)  # another worker was faster: its memory is read next time
            return True
        kept_at = read.vintage_at if vintage is None else now
        self._looked_at[name] = current, self._again_at(revision, kept_at, now)
        if revision is not None and is_settled:
            self._settled[name] = revision.revision
        _report(new_events(read, look.memory))
        return True

    async def _write(self, name: str, read: KeptMemory, memory: Memory, vintage: Vintage | None) -> bool:
        """Keep what a look has found, unless this process is no longer in charge or another one was faster."""
        return self.is_in_charge() and await self.verdicts.write(name, read, memory, vintage)

    def _vintage_of(
        self, look: Look, read: KeptMemory, revision: ExperimentRevision | None, now: float, *, is_settled: bool
    ) -> Vintage | None:
        """The results of the look where they are to be kept: those of an event, of an interval, and the last ones."""
        last_at = float("-inf") if read.vintage_at is None else read.vintage_at
        is_due = bool(new_events(read, look.memory))
        if is_settled and revision is not None:
            is_due |= last_at <= _last_window_ends(revision)
        elif revision is None or revision.status != "stopped":
            is_due |= now >= last_at + self.vintage_interval_s
        return Vintage(now, msgspec.json.encode(look.results)) if is_due else None

    def _again_at(self, revision: ExperimentRevision | None, kept_at: float | None, now: float) -> float:
        """When a look at the same is to be kept: as a later vintage than `kept_at`, or the last one when stopped."""
        if revision is not None and revision.status == "stopped":
            return min((moment for moment in _settles_at(revision) if moment > now), default=inf)
        return inf if kept_at is None or kept_at >= now else kept_at + self.vintage_interval_s

    async def _send_events(self) -> None:
        """Send what is not known to be on the topic, in order; a failure leaves the rest for the next time."""
        for event in await self.verdicts.unsent(EVENTS_AT_ONCE):
            if not self.is_in_charge():
                return
            await self.send(event)
            await self.verdicts.note_sent(event)


def _report(events: Sequence[VerdictEvent]) -> None:
    for event in events:
        VERDICTS_FOUND.labels(event.kind).inc()
        about = {"experiment": event.experiment, "challenger": event.challenger, "status": event.status}
        logger(__name__).info("a verdict was found", kind=event.kind, **about)


def _is_settled(revision: ExperimentRevision, results: Results, now: float) -> bool:
    """Whether no later look at a stopped experiment can find anything, or it has had its time."""
    if revision.status != "stopped":
        return False
    has_all_verdicts = bool(results.verdicts) and all(verdict.decided_at is not None for verdict in results.verdicts)
    has_matured = all(variant.matured == variant.n for variant in results.variants)
    settles_at, given_up_at = _settles_at(revision)
    return has_all_verdicts or (has_matured and now >= settles_at) or now >= given_up_at


def _settles_at(revision: ExperimentRevision) -> tuple[float, float]:
    """When a stopped experiment whose rows have matured is looked at for the last time, and when any other one is."""
    ends_at = _last_window_ends(revision)
    return ends_at + (LAST_DAY_S if revision.cycle_days else SETTLING_S), ends_at + LONGEST_SETTLING_S


def _last_window_ends(revision: ExperimentRevision) -> float:
    """When the window of a stopped experiment's last row ends, in seconds since the Unix epoch."""
    stopped_at = revision.changed_at if revision.stopped_at is None else revision.stopped_at
    return stopped_at + revision.window_s
