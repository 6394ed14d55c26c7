"""What a worker publishes of its partitions: mergeable sums by variant and cohort."""

from urllib.parse import unquote

import msgspec

from contender.contracts.feedback_service import Counts
from contender.contracts.tasks import TaskName
from contender.contracts.values import ClockName, Missing

_SEGMENT = "segment "


class SumsSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """Sums over labelled rows: their number by the unit's bucket, and by metric the totals by key (see `MetricSums`).

    What is absent is zero.
    """

    rows: dict[int, int] = {}
    totals: dict[str, dict[int, float]] = {}


class CohortSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """Predictions of one span of time, which mature at `matures_at`; or all that have matured (`is_matured`).

    `rows` counts predictions by bucket, and `unanswered` the rows that got none. `assumed` holds unlabelled rows taken
    for negative, for experiments whose missing labels mean that. `late` counts rows by bucket whose label came after
    the window. `ledgers` are further sums: by `Metric.ledger`, and by segment.
    """

    matures_at: float
    counts: Counts
    rows: dict[int, int]
    labelled: SumsSnapshot
    assumed: SumsSnapshot
    is_matured: bool = False
    unanswered: dict[int, int] = {}
    late: dict[int, int] = {}
    ledgers: dict[str, SumsSnapshot] = {}


class DaySnapshot(msgspec.Struct, frozen=True, array_like=True):
    """The matured rows of one day, whose number counts from 1970-01-01 in the experiment's time zone.

    `rows` are predictions. `totals` has by metric the compact totals that `MetricSums.day_totals` gives, with the rows
    whose missing label counts as negative.
    """

    day: int
    rows: int
    totals: dict[str, dict[int, float]]


class GroupSnapshot(msgspec.Struct, frozen=True):
    """One variant of an experiment in one epoch.

    `watermark` is the experiment's time in this partition when its cohorts were last folded, -inf before. Two rows of
    the experiment have reached its newest time there; `arrived_at` is when the later of them was sent. Both are in
    seconds since the Unix epoch. In a `paired` group the rows are those that the variant and the champion have both
    scored, and the sums are differences: the variant's value minus the champion's. `excluded` is the experiment's: rows
    of the partition that got a variant and don't count, by reason.
    """

    experiment: str
    epoch: int
    variant: str
    task: TaskName
    window_s: float
    missing: Missing
    model: str
    versions: list[str]
    probability: float
    watermark: float
    cohorts: list[CohortSnapshot]
    arrived_at: float | None = None
    days: list[DaySnapshot] = []
    clock: ClockName = "event"
    time_zone: str = "UTC"
    paired: bool = False
    excluded: dict[str, int] = {}


class PartitionStatus(msgspec.Struct, frozen=True):
    """The applied offsets of one partition's two topics, and counts over all experiments.

    Both topics have been read to their ends of the time `caught_up_at`. `since` is from when the counts hold, where the
    topics no longer began at their first record. All times are seconds since the Unix epoch.
    """

    partition: int
    offsets: dict[str, int]
    counts: Counts
    updated_at: float
    caught_up_at: float | None = None
    since: float | None = None


class PartitionSnapshot(msgspec.Struct, frozen=True):
    """One partition's status, and its groups of one experiment or of all."""

    status: PartitionStatus
    groups: list[GroupSnapshot]

    @property
    def partition(self) -> int:
        """The number of the partition."""
        return self.status.partition

    @property
    def offsets(self) -> dict[str, int]:
        """The applied offsets of its two topics."""
        return self.status.offsets

    @property
    def counts(self) -> Counts:
        """Counts over all experiments."""
        return self.status.counts


class GroupHeader(msgspec.Struct, frozen=True, array_like=True):
    """A group as it is published, without its cohorts and days: `cohorts` and `days` name their fields."""

    group: GroupSnapshot
    cohorts: list[str]
    days: list[str] = []


class ExperimentUpdate(msgspec.Struct, frozen=True):
    """The changes of one experiment in one partition since it was last published.

    `headers` are all its groups, `changed` the changed cohorts by field, and `gone` the fields of cohorts that were
    folded; `days` are the changed days by field. `complete` says that all cohorts and days are in the update.
    """

    partition: int
    experiment: str
    headers: list[GroupHeader]
    changed: dict[str, CohortSnapshot]
    gone: list[str]
    complete: bool
    days: dict[str, DaySnapshot] = {}

    @property
    def fields(self) -> dict[str, CohortSnapshot | DaySnapshot]:
        """The changed cohorts and days by field."""
        return {**self.changed, **self.days}

    def is_own(self, field: str) -> bool:
        """Whether a field holds a cohort or a day of this partition."""
        return field.startswith((f"{self.partition}:", f"{self.partition}/"))


def snapshot_groups(
    headers: list[GroupHeader], cohorts: dict[str, CohortSnapshot], days: dict[str, DaySnapshot]
) -> list[GroupSnapshot]:
    """Groups with their cohorts and days; missing ones are left out."""
    return [
        msgspec.structs.replace(
            header.group,
            cohorts=[cohorts[field] for field in header.cohorts if field in cohorts],
            days=[days[field] for field in header.days if field in days],
        )
        for header in headers
    ]


def ledger_of(key: str, value: str | None) -> str:
    """The name of a segment's sums; None stands for the values that are not told apart."""
    escaped = key.replace("%", "%25").replace("=", "%3D")  # so that the first "=" ends the key
    return f"{_SEGMENT}{escaped}" if value is None else f"{_SEGMENT}{escaped}={value}"


def is_segment(ledger: str) -> bool:
    """Whether a ledger is that of a segment."""
    return ledger.startswith(_SEGMENT)


def segment_of(ledger: str) -> tuple[str, str | None]:
    """The key and the value of a segment's ledger."""
    key, has_value, value = ledger.removeprefix(_SEGMENT).partition("=")
    return unquote(key), value if has_value else None
