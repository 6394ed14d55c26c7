"""A row on its way through the router: assigned, then scored, refused or left without an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.inference_service import ModelVersion
from contender.contracts.problems import FieldError
from contender.contracts.values import Scalar, Score
from services.ab_router.catalog import Model
from services.ab_router.domain.assignment import Assignment


@dataclass(frozen=True, slots=True)
class RowFeatures:
    """One row's features by reference; `is_complete` says that the service answered for all of them."""

    values: Mapping[str, Scalar]
    statuses: Mapping[str, str]
    is_complete: bool


@dataclass(slots=True)
class AssignedRow:
    """A row with its assignment. `arrived` is a perf_counter's seconds.

    `features` are those that were served for the first version that scored it: a further one of the same row takes them
    from here, so both see the same values.
    """

    request: PredictionRow
    time: float
    model: Model
    assignment: Assignment
    arrived: float
    size_bytes: int
    features: RowFeatures | None = None

    @property
    def experiment(self) -> ExperimentRevision | None:
        """The experiment that the row is in, whether it counts there or not."""
        return self.assignment.experiment

    @property
    def variant(self) -> VariantAllocation | None:
        """The variant that the row is assigned; None outside of an experiment."""
        return self.assignment.variant

    @property
    def counts(self) -> bool:
        """Whether the row is in an experiment and counts in its results."""
        return self.assignment.variant is not None and not self.assignment.excluded

    @property
    def variant_label(self) -> str:
        """The variant that the row counts for in metrics; empty for none."""
        variant = self.assignment.variant
        return variant.name if variant and self.counts else ""

    @property
    def version(self) -> ModelVersion:
        """The version that shall answer: the variant's, else the model's champion."""
        return self.model.versions[self.variant.version] if self.variant else self.model.champion

    @property
    def substitute(self) -> ModelVersion | None:
        """The experiment's champion, which answers for a challenger that does not; None where there is no other."""
        experiment = self.experiment
        if experiment is None or self.variant is None or self.variant.name == experiment.champion:
            return None
        champion = next(variant for variant in experiment.variants if variant.name == experiment.champion)
        return self.model.versions.get(champion.version)

    def variant_of(self, version: ModelVersion) -> str | None:
        """The variant that answers with a version. Two variants may share one, so the row's own comes first."""
        if self.experiment is None or self.variant is None:
            return None
        return self.variant.name if self.variant.version == version.version else self.experiment.champion


@dataclass(slots=True)
class ScoredRow:
    """A row with a version's answer; `latency_ms` is from the row's arrival to that answer.

    `label_probability` is the probability with which the answer's label is seen, 0 for one that does not count. Where
    `explore` is true, it is seen since the application is asked to explore.
    """

    assigned: AssignedRow
    version: ModelVersion
    served_variant: str | None
    score: Score
    label: Scalar
    inputs: dict[str, Scalar]
    statuses: dict[str, str]
    degraded: bool
    latency_ms: float
    label_probability: float = 1.0
    explore: bool = False


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A version can't score the row because of the row itself: `errors` name its fields, such as `inputs.plan`."""

    errors: list[FieldError]


@dataclass(frozen=True, slots=True)
class UnansweredRow:
    """Nobody answered, and the same row may be answered later. `reason` is what the caller reads."""

    reason: str


@dataclass(frozen=True, slots=True)
class LostRow:
    """A row of an experiment that gets no prediction: its version refused it, or nobody could answer its call."""

    assigned: AssignedRow
    reason: Literal["refused", "failed"]


RowResult = ScoredRow | RejectedRow | UnansweredRow
