"""An experiment in one partition without its sums: its clock, its groups, and their open cohorts."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

import msgspec

from contender.contracts.tasks import TaskName
from contender.contracts.values import Missing
from services.feedback_service.domain.entries import BlockEntry
from services.feedback_service.domain.keys import GROUP_BYTES
from services.feedback_service.domain.snapshots import GroupSnapshot

COHORTS_PER_WINDOW = 24
SHORTEST_COHORT_S = 60.0


class GroupKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The rows that are summed together: a variant in an epoch. The other fields are the experiment's."""

    experiment: str
    epoch: int
    variant: str
    task: TaskName
    window_s: float
    missing: Missing


class GroupEntry(msgspec.Struct, frozen=True, array_like=True):
    """A group as it is stored."""

    key: GroupKey
    model: str
    versions: list[str]
    probability: float


class ExperimentEntry(msgspec.Struct, frozen=True, array_like=True):
    """An experiment as it is stored. Every field only grows, so a record that is read again changes nothing."""

    newest: float
    arrived_at: float
    groups: list[GroupEntry]


@dataclass(slots=True)
class Group:
    """One variant of an experiment in one epoch. `open` has the days of each open cohort, by the cohort's number."""

    key: GroupKey
    model: str
    versions: set[str] = field(default_factory=set)
    probability: float = 0.0
    open: dict[int, set[int]] = field(default_factory=dict)
    id: bytes = b""

    def __post_init__(self) -> None:
        self.id = hashlib.blake2b(msgspec.msgpack.encode(self.key), digest_size=GROUP_BYTES).digest()

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

    def header(self, experiment: "Experiment", lateness_s: float) -> GroupSnapshot:
        """The group as it is published, without its cohorts."""
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
            watermark=experiment.newest - lateness_s,
            cohorts=[],
            arrived_at=experiment.arrived_at if experiment.arrived_at < inf else None,
        )


@dataclass(slots=True)
class Experiment:
    """An experiment's groups, and its clock: the newest prediction time, and when that prediction was sent.

    A prediction whose time lies ahead of its sending counts as of its sending.
    """

    name: str
    newest: float = -inf
    arrived_at: float = -inf
    groups: dict[GroupKey, Group] = field(default_factory=dict)

    def group(self, block: BlockEntry) -> Group:
        """The group of a block's rows, with the block's version and probability noted."""
        key = GroupKey(block.experiment, block.epoch, block.variant, block.task, block.window_s, block.missing)
        group = self.groups.setdefault(key, Group(key, block.model))
        group.versions.add(block.version)
        group.probability = max(group.probability, block.probability)
        return group

    def advance(self, newest: float, sent_at: float) -> None:
        """Move the clock on to a prediction's time, or to when it was sent if that is earlier."""
        reached = min(newest, sent_at)
        if reached > self.newest:
            self.newest, self.arrived_at = reached, sent_at

    def clock(self, caught_up_at: float | None) -> float:
        """The experiment's time: its newest prediction's, plus the idle time since that arrived."""
        if caught_up_at is None or not self.arrived_at < inf:
            return self.newest
        return self.newest + max(0.0, caught_up_at - self.arrived_at)

    def encode(self) -> bytes:
        """The experiment as it is stored."""
        groups = [
            GroupEntry(group.key, group.model, sorted(group.versions), group.probability)
            for group in self.groups.values()
        ]
        return msgspec.msgpack.encode(ExperimentEntry(self.newest, self.arrived_at, groups))

    @classmethod
    def decode(cls, value: bytes) -> "Experiment":
        """Read a stored experiment."""
        entry = _EXPERIMENTS.decode(value)
        groups = {
            group.key: Group(group.key, group.model, set(group.versions), group.probability) for group in entry.groups
        }
        return cls(entry.groups[0].key.experiment, entry.newest, entry.arrived_at, groups)


def by_id(experiments: Iterable[Experiment]) -> dict[bytes, Group]:
    """The groups of all experiments by their id."""
    return {group.id: group for experiment in experiments for group in experiment.groups.values()}


_EXPERIMENTS = msgspec.msgpack.Decoder(ExperimentEntry)
