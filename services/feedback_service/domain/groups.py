"""An experiment in one partition without its sums: what its rows have reached, its groups, and their open cohorts."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

import msgspec
import numpy as np

from contender.contracts.tasks import TaskName
from contender.contracts.values import ClockName, Missing
from services.feedback_service.domain.entries import BlockEntry
from services.feedback_service.domain.keys import GROUP_BYTES
from services.feedback_service.domain.pairs import Pairs
from services.feedback_service.domain.snapshots import GroupSnapshot

COHORTS_PER_WINDOW = 24
SHORTEST_COHORT_S = 60.0


class GroupKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The rows that are summed together: a variant in an epoch. The other fields are the experiment's.

    The sums of a `paired` group are over rows that the variant and the champion have both scored: differences.
    """

    experiment: str
    epoch: int
    variant: str
    task: TaskName
    window_s: float
    missing: Missing
    paired: bool = False


class GroupEntry(msgspec.Struct, frozen=True, array_like=True):
    """A group as it is stored; `days` is None where the release before days were listed has stored it."""

    key: GroupKey
    model: str
    versions: list[str]
    probability: float
    days: list[int] | None = None


class ReachedRow(msgspec.Struct, frozen=True, array_like=True):
    """A row, by the offset of its frame and its number there, and the time that it has reached."""

    reached: float
    sent_at: float
    offset: int
    row: int


class ExperimentEntry(msgspec.Struct, frozen=True, array_like=True):
    """An experiment as it is stored. Every field only grows, so a record that is read again changes nothing.

    `newest` and `arrived_at` were the clock of the first releases.
    """

    newest: float
    arrived_at: float
    groups: list[GroupEntry]
    ahead: list[ReachedRow] = []
    clock: ClockName = "event"
    time_zone: str = "UTC"
    segments: dict[str, list[str]] = {}
    name: str = ""
    excluded: dict[str, int] = {}
    excluded_until: int = -1


@dataclass(slots=True)
class Group:
    """One variant of an experiment in one epoch.

    `open` has the days of each open cohort, by the cohort's number, and `days` those that have matured rows; None while
    they have to be looked up.
    """

    key: GroupKey
    model: str
    versions: set[str] = field(default_factory=set)
    probability: float = 0.0
    open: dict[int, set[int]] = field(default_factory=dict)
    days: set[int] | None = field(default_factory=set)
    id: bytes = b""

    def __post_init__(self) -> None:
        *fields, paired = msgspec.structs.astuple(self.key)
        spelled = msgspec.msgpack.encode(fields) + (b"paired" if paired else b"")
        self.id = hashlib.blake2b(spelled, digest_size=GROUP_BYTES).digest()

    @property
    def width_s(self) -> float:
        """Seconds of prediction time in a cohort."""
        return max(SHORTEST_COHORT_S, self.key.window_s / COHORTS_PER_WINDOW)

    def matures_at(self, number: int) -> float:
        """When the last possible row of a cohort matures."""
        return (number + 1) * self.width_s + self.key.window_s

    def due(self, clock: float) -> list[int]:
        """The open cohorts that have matured, in order."""
        return sorted(number for number in self.open if self.matures_at(number) <= clock)

    def header(self, experiment: "Experiment") -> GroupSnapshot:
        """The group as it is published, without its cohorts and days."""
        return GroupSnapshot(
            experiment=self.key.experiment,
            epoch=self.key.epoch,
            variant=self.key.variant,
            task=self.key.task,
            window_s=self.key.window_s,
            missing=self.key.missing,
            model=self.model,
            versions=sorted(self.versions),
            probability=self.probability,
            watermark=experiment.watermark,
            cohorts=[],
            arrived_at=experiment.arrived_at if -inf < experiment.arrived_at < inf else None,
            clock=experiment.clock,
            time_zone=experiment.time_zone,
            paired=self.key.paired,
            excluded=dict(experiment.excluded),
        )

    def entry(self) -> GroupEntry:
        """The group as it is stored."""
        days = None if self.days is None else sorted(self.days)
        return GroupEntry(self.key, self.model, sorted(self.versions), self.probability, days)


@dataclass(slots=True)
class Experiment:
    """An experiment's groups, its clock and time zone, and what its rows have reached.

    `ahead` are the two rows that have reached the latest time, the latest first. A row whose time lies ahead of its
    sending counts as of its sending. `watermark` is the experiment's time when its cohorts were last folded. `segments`
    has the known values of the context by key, in the order in which they came (see `segment_values`). `excluded` are
    the numbers of rows that got a variant and don't count, by reason, up to the frame at the offset `excluded_until`.
    """

    name: str
    ahead: list[ReachedRow] = field(default_factory=list)
    clock: ClockName = "event"
    time_zone: str = "UTC"
    watermark: float = -inf
    groups: dict[GroupKey, Group] = field(default_factory=dict)
    segments: dict[str, list[str]] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    excluded_until: int = -1

    def exclude(self, rows: Mapping[str, int], offset: int) -> bool:
        """Count rows of the frame at an offset by reason, and return whether they were not counted yet."""
        if offset <= self.excluded_until:
            return False
        self.excluded |= {reason: self.excluded.get(reason, 0) + number for reason, number in rows.items()}
        self.excluded_until = offset
        return True

    def group(self, block: BlockEntry) -> Group:
        """The group of a block's rows, with the block's version and probability noted."""
        key = GroupKey(block.experiment, block.epoch, block.variant, block.task, block.window_s, block.missing)
        group = self.groups.setdefault(key, Group(key, block.model))
        if block.version:
            group.versions.add(block.version)
        group.probability = max(group.probability, block.probability)
        return group

    def pair_group(self, pairs: Pairs) -> Group:
        """The group of pairs, with the challenger's version noted."""
        block = pairs.block
        key = GroupKey(
            block.experiment, block.epoch, pairs.challenger, block.task, block.window_s, block.missing, paired=True
        )
        group = self.groups.setdefault(key, Group(key, block.model))
        group.versions.add(pairs.version)
        return group

    def add_group(self, block: BlockEntry) -> Group:
        """The group of a block that is recorded now; the experiment's clock, time zone and segments are noted."""
        self.clock, self.time_zone = block.clock, block.time_zone
        block.note_segments(self.segments)
        return self.group(block)

    @property
    def newest(self) -> float:
        """The latest time that two rows have reached: one row from the future moves nothing."""
        return self.ahead[1].reached if len(self.ahead) > 1 else -inf

    @property
    def arrived_at(self) -> float:
        """When the later of those two was sent."""
        return max(row.sent_at for row in self.ahead) if len(self.ahead) > 1 else -inf

    def advance(self, block: BlockEntry, offset: int, first: int, sent_at: float) -> None:
        """Note what the rows of a block have reached; `first` is the number of its first row in the frame."""
        times = block.times
        if min(float(times.max()), sent_at) <= self.newest:
            return
        latest = np.argpartition(times, -2)[-2:] if block.size > 1 else np.zeros(1, dtype=np.int64)
        rows = {(row.offset, row.row): row for row in self.ahead}
        for index in latest.tolist():
            row = ReachedRow(min(float(times[index]), sent_at), sent_at, offset, first + index)
            rows[offset, row.row] = row
        self.ahead = sorted(rows.values(), key=lambda row: (-row.reached, row.sent_at, row.offset, row.row))[:2]

    @property
    def longest_s(self) -> float:
        """How long after a row the last cohort that may hold it matures."""
        return max((group.key.window_s + group.width_s for group in self.groups.values()), default=0.0)

    @property
    def cohort_width_s(self) -> float:
        """The width of the narrowest cohorts."""
        return min((group.width_s for group in self.groups.values()), default=SHORTEST_COHORT_S)

    def encode(self) -> bytes:
        """The experiment as it is stored, without its watermark."""
        groups = [group.entry() for group in self.groups.values()]
        entry = ExperimentEntry(
            self.newest,
            self.arrived_at,
            groups,
            self.ahead,
            self.clock,
            self.time_zone,
            self.segments,
            self.name,
            self.excluded,
            self.excluded_until,
        )
        return msgspec.msgpack.encode(entry)

    @classmethod
    def decode(cls, value: bytes) -> "Experiment":
        """Read a stored experiment."""
        entry = _EXPERIMENTS.decode(value)
        groups = {
            group.key: Group(
                group.key,
                group.model,
                set(group.versions),
                group.probability,
                days=None if group.days is None else set(group.days),
            )
            for group in entry.groups
        }
        ahead = entry.ahead
        if not ahead and entry.newest > -inf:  # of a release whose clock any row could move
            ahead = [ReachedRow(entry.newest, entry.arrived_at, -1, row) for row in (0, 1)]
        return cls(
            entry.name or entry.groups[0].key.experiment,
            ahead,
            entry.clock,
            entry.time_zone,
            groups=groups,
            segments=entry.segments,
            excluded=entry.excluded,
            excluded_until=entry.excluded_until,
        )


def by_id(experiments: Iterable[Experiment]) -> dict[bytes, Group]:
    """The groups of all experiments by their id."""
    return {group.id: group for experiment in experiments for group in experiment.groups.values()}


def encode_watermark(time: float) -> bytes:
    """A watermark as it is stored."""
    return msgspec.msgpack.encode(time)


def decode_watermark(value: bytes | None) -> float:
    """Read a stored watermark; that of the beginning where there is none."""
    return -inf if value is None else msgspec.msgpack.decode(value, type=float)


_EXPERIMENTS = msgspec.msgpack.Decoder(ExperimentEntry)
