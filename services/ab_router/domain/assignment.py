"""Who gets which variant: forced, then holdout, targeting, namespace, the unit's first assignment, and its hash.

`InForce` prepares the experiments on a model once, for as long as their revisions hold; `assign` then takes a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from contender.contracts.ab_router import NO_EXPERIMENT, AssignmentReason, PredictionRow
from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from services.ab_router.domain.hashing import SeededHash, choose, counted_shares, fnv1a32, is_in_namespace, ranges
from services.ab_router.domain.targeting import all_met

_HOLDOUT = "holdout/"
"""Before a model's name, the namespace of its holdout. No name of a namespace has a slash."""

_DELETED_AFTER_S = 60.0
"""From an experiment's end to the deletion of its units: by then every router has seen the end and written its last."""
_DELETED_UNTIL_S = 86_400.0
"""Later on, the units of a stopped experiment are left to expire: a router that starts need not delete them again."""


class UnitKey(NamedTuple):
    """A unit of an experiment, by their names."""

    experiment: str
    unit: str


class FirstAssignment(NamedTuple):
    """The variant that a unit got first, with the epoch and the probability of then."""

    variant: str
    epoch: int
    probability: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a row is assigned, and why.

    Attributes:
        reason: why the row gets this variant, or none.
        experiment: the one that takes the row; None where the model's champion answers outside of any.
        variant: the one that answers.
        share: the share of the experiment's units that the variant gets now, in steps of the hash.
        probability: the share with which the unit was assigned it, in the `epoch` in which it was.
        excluded: whether the row counts in no results though it has a variant.
        first: what is kept of the unit, so that a change of the allocation does not move it; None for nothing.
    """

    reason: AssignmentReason
    experiment: ExperimentRevision | None = None
    variant: VariantAllocation | None = None
    share: float | None = None
    probability: float | None = None
    epoch: int = 0
    excluded: bool = False
    first: FirstAssignment | None = None


FirstAssignments = Mapping[UnitKey, FirstAssignment | None]
"""What is known of units: None for a new one. A unit that is left out could not be looked up."""

_NO_EXPERIMENT = Assignment(NO_EXPERIMENT)
_OUTSIDE: dict[AssignmentReason, Assignment] = {
    reason: Assignment(reason)
    for reason in ("holdout", "not targeted", "other namespace", "outside coverage", "no unit", "paused")
}
_LEFT: tuple[AssignmentReason, ...] = ("not targeted", "other namespace", "holdout")
"""Why an experiment leaves a row to the others. Of the reasons of several the last one counts: a unit that a holdout
keeps out would be missed in comparisons with it if the row said that it belongs to the namespace of another one."""
_NOTHING_KNOWN: FirstAssignments = {}


def first_assignments(
    rows: Sequence[PredictionRow], assignments: Sequence[Assignment]
) -> Iterator[tuple[UnitKey, FirstAssignment]]:
    """What is kept of rows, by unit."""
    for row, assignment in zip(rows, assignments, strict=True):
        if assignment.first is not None and assignment.experiment is not None:
            yield UnitKey(assignment.experiment.name, row.unit), assignment.first


def stopped_lately(experiments: Sequence[ExperimentRevision], now: float) -> list[str]:
    """The experiments whose units' first assignments are to be deleted, by name."""
    return [
        experiment.name
        for experiment in experiments
        if experiment.stopped_at is not None and _DELETED_AFTER_S <= now - experiment.stopped_at <= _DELETED_UNTIL_S
    ]


class InForce:
    """The experiments in force on a model, prepared once for many rows.

    An experiment decides about the rows that its holdout, its targeting and its part of a namespace let in: no other
    one gets them, even if its coverage leaves them out. So a row is in one experiment at most.

    Args:
        experiments: running, paused and decided ones; the first one comes first where two would take a row.
    """

    def __init__(self, experiments: Sequence[ExperimentRevision]) -> None:
        self._experiments = [_Prepared(experiment) for experiment in experiments]
        self._forced: dict[str, Assignment] = {}
        for experiment in reversed(self._experiments):
            self._forced.update(experiment.forced())
        self._has_sticky = any(experiment.sticky for experiment in self._experiments)
        self._has_parts = any(experiment.has_parts for experiment in self._experiments)

    def assign(self, row: PredictionRow, first: FirstAssignments = _NOTHING_KNOWN) -> Assignment:
        """The row's assignment.

        Args:
            row: one that is not refused.
            first: what is known of the first assignments of units whose `unit_key` is asked for.
        """
        decider = self._decider(row)
        return decider if isinstance(decider, Assignment) else decider.assign(row.unit, first)

    def unit_key(self, row: PredictionRow) -> UnitKey | None:
        """The unit whose first assignment decides about the row; None where its hash does, or nothing."""
        if not self._has_sticky or not row.unit:
            return None
        decider = self._decider(row)
        return UnitKey(decider.name, row.unit) if isinstance(decider, _Prepared) and decider.sticky else None

    def refuses(self, row: PredictionRow) -> str:
        """The experiment that refuses a row without a unit; empty where none does."""
        if row.unit:
            return ""
        refusing = (each for each in self._experiments if each.refuses_no_unit and each.is_targeted(row))
        return next((each.name for each in refusing), "")

    def _decider(self, row: PredictionRow) -> "Assignment | _Prepared":
        """The experiment that decides about a row, or the assignment that the row has without it."""
        if not self._experiments:
            return _NO_EXPERIMENT
        unit = row.unit
        if self._forced and unit in self._forced:
            return self._forced[unit]
        unit_hash = fnv1a32(unit) if self._has_parts and unit else None
        reason = _LEFT[0]
        for experiment in self._experiments:
            left_at = experiment.left_at(row, unit_hash)
            if left_at is None:
                if experiment.is_paused:
                    return _OUTSIDE["paused"]
                return experiment if unit else _OUTSIDE["no unit"]
            reason = max(reason, left_at, key=_LEFT.index)
        return _OUTSIDE[reason]


class _Prepared:
    """A revision with its ranges, its compiled rules and its possible assignments."""

    def __init__(self, experiment: ExperimentRevision) -> None:
        self.name = experiment.name
        self.is_paused = experiment.status == "paused"
        self.sticky = experiment.sticky and not self.is_paused
        self.refuses_no_unit = experiment.unit_missing == "refuse" and not self.is_paused
        self._experiment = experiment
        self._hash = SeededHash(experiment.seed)
        weights = [variant.weight for variant in experiment.variants]
        self._ranges = ranges(len(weights), experiment.coverage, weights)
        shares = counted_shares(weights, experiment.coverage)
        self._split = {
            variant.name: self._by_chance(FirstAssignment(variant.name, experiment.epoch, share), variant, share)
            for variant, share in zip(experiment.variants, shares, strict=True)
        }
        self._by_range = list(self._split.values())
        self._is_targeted = all_met(experiment.targeting, experiment.seed)
        namespace = experiment.namespace
        self._namespace = (namespace.name, namespace.start, namespace.end) if namespace else None
        self._holdout = (_HOLDOUT + experiment.model, 0.0, experiment.holdout) if experiment.holdout else None
        self.has_parts = bool(self._namespace or self._holdout)

    def forced(self) -> Iterator[tuple[str, Assignment]]:
        """The assignments of the units that always get a variant, which count in no results."""
        if self.is_paused:
            return
        for unit, name in self._experiment.forced.items():
            if name in self._split:
                yield unit, self._excluded("forced", name)

    def left_at(self, row: PredictionRow, unit_hash: int | None) -> AssignmentReason | None:
        """The step at which the experiment leaves a row to others; None where it decides about the row.

        A row without a unit has no hash of it, and passes the steps that are for units.
        """
        if self._holdout and unit_hash is not None and is_in_namespace(unit_hash, self._holdout):
            return "holdout"
        if self._is_targeted and not self._is_targeted(row.context):
            return "not targeted"
        if self._namespace and unit_hash is not None and not is_in_namespace(unit_hash, self._namespace):
            return "other namespace"
        return None

    def is_targeted(self, row: PredictionRow) -> bool:
        """Whether the row's context meets the rules."""
        return self._is_targeted is None or self._is_targeted(row.context)

    def assign(self, unit: str, first: FirstAssignments) -> Assignment:
        """The assignment of a unit that is let in."""
        if not self.sticky:
            return self._by_hash(unit)
        key = UnitKey(self.name, unit)
        if key not in first:
            return self._unreadable()
        known = first[key]
        return self._by_hash(unit) if known is None else self._kept(known)

    def _by_hash(self, unit: str) -> Assignment:
        index = choose(self._hash.bucket(unit), self._ranges)
        return _OUTSIDE["outside coverage"] if index < 0 else self._by_range[index]

    def _kept(self, first: FirstAssignment) -> Assignment:
        """What a unit got first; it can't be read where it names no variant of ours."""
        now = self._split.get(first.variant)
        if now is None:
            return self._unreadable()
        return self._by_chance(first, now.variant, now.share)

    def _by_chance(self, first: FirstAssignment, variant: VariantAllocation | None, share: float | None) -> Assignment:
        """What a unit got by its hash. Of an experiment in shadow nothing is kept: its champion answers for good."""
        kept = None if self._experiment.shadow else first
        return Assignment("split", self._experiment, variant, share, first.probability, first.epoch, first=kept)

    def _unreadable(self) -> Assignment:
        return self._excluded("assignment unreadable", self._experiment.champion)

    def _excluded(self, reason: AssignmentReason, name: str) -> Assignment:
        """A variant of no chance: its probability is left out."""
        split = self._split[name]
        return Assignment(reason, self._experiment, split.variant, split.share, None, split.epoch, excluded=True)
