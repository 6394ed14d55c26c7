"""The results of an experiment as a reader gets them: variants, effects, health and a verdict."""

from dataclasses import dataclass

from contender.contracts.values import Missing
from services.feedback_service.domain.snapshots import Counts
from services.feedback_service.domain.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the interval that holds it at every look; `low` and `high` are null while unknown."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One variant over all epochs. `n` counts predictions; `metrics` are over matured rows."""

    name: str
    version: str
    champion: bool
    n: int
    labelled: int
    matured: int
    matured_labelled: int
    corrections: int
    late: int
    refused: int
    duplicates: int
    fallbacks: int
    degraded: int
    metrics: dict[str, Interval]
    live: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Effect:
    """Challenger minus champion in one metric; `better` is null while the interval holds zero."""

    estimate: float | None
    low: float | None
    high: float | None
    p: float
    n: int
    better: bool | None
    lower_is_better: bool


@dataclass(frozen=True, slots=True)
class Split:
    """Predictions per variant, and the p-value of their following the configured split."""

    p: float
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Arrival:
    """The p-value of labels arriving alike, the lowest of all challengers; null while it can't be tested."""

    p: float | None


@dataclass(frozen=True, slots=True)
class Health:
    """What became of the reports on this experiment. `unmatched` and `expired` count those of the whole service.

    `expired` are late reports on predictions that had been deleted after their retention.
    """

    unmatched: int
    refused: int
    late: int
    duplicates: int
    corrections: int
    degraded: int
    fallbacks: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Results:
    """Everything on one experiment, as of the offsets per topic and partition that have been applied.

    `since`, in seconds since the Unix epoch, is set where older predictions are not counted: when the counts were
    begun, the topics did not hold them any more.
    """

    experiment: str
    status: str
    model: str
    metric: str
    champion: str
    alpha: float
    missing: Missing
    window_s: float
    watermark: float | None
    variants: list[VariantResult]
    effects: dict[str, dict[str, Effect]]
    split: Split
    arrival: Arrival
    verdict: Verdict
    health: Health
    totals: Counts
    offsets: dict[str, dict[str, int]]
    updated_at: float | None
    since: float | None = None
