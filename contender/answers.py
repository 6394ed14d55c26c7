"""The results of experiments, as the client gives them."""

import msgspec

from contender.contracts.operation import Operation
from contender.contracts.values import Missing


class FeedbackAccepted(msgspec.Struct, frozen=True):
    """How many outcomes are on record."""

    accepted: int


class Interval(msgspec.Struct, frozen=True):
    """A mean with the interval that holds it at every look; null while unknown."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One variant. `metrics` are over matured rows, `live` over all rows that have a label."""

    name: str
    version: str
    champion: bool
    n: int
    labelled: int
    matured: int
    matured_labelled: int
    late: int
    refused: int
    duplicates: int
    corrections: int
    fallbacks: int
    degraded: int
    metrics: dict[str, Interval]
    live: dict[str, Interval]


class Effect(msgspec.Struct, frozen=True):
    """Challenger minus champion in one metric; `better` is null while the interval holds zero."""

    estimate: float | None
    low: float | None
    high: float | None
    p: float
    n: int
    better: bool | None


class Verdict(msgspec.Struct, frozen=True):
    """Where the experiment stands, in one word and one sentence."""

    status: str
    sentence: str


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on one experiment: variants, effects by challenger and metric, and the verdict."""

    experiment: str
    status: str
    model: str
    metric: str
    champion: str
    alpha: float
    missing: Missing
    window_s: float
    watermark: float | None
    variants: list[Variant]
    effects: dict[str, dict[str, Effect]]
    verdict: Verdict
    offsets: dict[str, dict[str, int]]

    def __str__(self) -> str:
        return self.verdict.sentence


GIVE_FEEDBACK = Operation(
    "give_feedback", "POST", "/v1/feedback", "Accepts outcomes of predictions.", FeedbackAccepted, status=202
)
GET_RESULTS = Operation(
    "get_results", "GET", "/v1/experiments/{name:path}/results", "Shows the results of an experiment.", Results
)
