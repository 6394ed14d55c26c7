"""What a worker publishes of one partition: sums by variant and cohort, complete in themselves and mergeable."""

from typing import Annotated

import msgspec

from shared.events import Missing, Task


class MetricSums(msgspec.Struct, frozen=True, array_like=True):
    """Sums over labelled rows, by bucket of the unit; a bucket, bin or metric that is absent is zero.

    `totals` and `squares` are by metric; `negatives` and `positives` count scores by bin, for binary models.
    """

    rows: dict[int, int] = {}
    totals: dict[str, dict[int, float]] = {}
    squares: dict[str, float] = {}
    negatives: dict[int, int] = {}
    positives: dict[int, int] = {}


class Counts(msgspec.Struct, frozen=True):
    """What became of predictions and of the reports on them. Every report is in exactly one of the last seven."""

    predictions: int = 0
    degraded: int = 0
    fallbacks: int = 0
    labelled: int = 0
    corrections: int = 0
    late: int = 0
    refused: int = 0
    duplicates: int = 0
    unmatched: int = 0
    outside: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    @property
    def reports(self) -> int:
        """All reports that were applied."""
        return (
            self.labelled
            + self.corrections
            + self.late
            + self.refused
            + self.duplicates
            + self.unmatched
            + self.outside
        )


class CohortSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """Predictions of one stretch of time, matured when the watermark reaches `matures_at`.

    `rows` counts predictions by bucket. `assumed` holds unlabelled rows judged as negative, for experiments whose
    missing labels mean that.
    """

    matures_at: float
    counts: Counts
    rows: dict[int, int]
    labelled: MetricSums
    assumed: MetricSums


class GroupSnapshot(msgspec.Struct, frozen=True):
    """One variant of an experiment in one epoch, and how far the experiment's time has come in this partition."""

    experiment: str
    epoch: int
    variant: str
    task: Task
    window_s: float
    missing: Missing
    model: str
    versions: list[str]
    probability: float
    watermark: float
    cohorts: list[CohortSnapshot]


class PartitionSnapshot(msgspec.Struct, frozen=True):
    """Everything known of one partition, as of the offsets of its two topics that were applied."""

    partition: int
    offsets: dict[str, int]
    counts: Counts
    groups: list[GroupSnapshot]
    updated_at: Annotated[float, msgspec.Meta(description="seconds since the Unix epoch")]


def encode_snapshot(snapshot: PartitionSnapshot) -> bytes:
    """The snapshot as it is stored."""
    return msgspec.msgpack.encode(snapshot)


def decode_snapshot(value: bytes) -> PartitionSnapshot:
    """Read a stored snapshot.

    Raises:
        msgspec.DecodeError: the bytes are no snapshot.
    """
    return msgspec.msgpack.decode(value, type=PartitionSnapshot)
