"""What the services answer, as the client gives it. Fields that a newer service adds are left out, not refused."""

import msgspec

from contender.contracts.values import Missing, Scalar


class Outputs(msgspec.Struct, frozen=True):
    """The score and the label it stands for.

    The score is the probability of the last class for a binary model, the value for a regression, and a list of class
    probabilities for a multiclass model.
    """

    score: float | list[float]
    label: Scalar


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the router. `degraded` says that some features could not be had."""

    prediction_id: str
    model: str
    version: str
    variant: str | None
    experiment: str | None
    outputs: Outputs
    inputs: dict[str, Scalar] = {}
    degraded: bool = False


class Refusal(msgspec.Struct, frozen=True):
    """Why one row of a batch has no prediction: the row itself is the cause, so asking again does not help.

    `errors` holds the field and the message of each fault, such as `inputs.plan`.
    """

    status: int
    detail: str
    errors: list[dict[str, str]] = []


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


class _RowAnswer(msgspec.Struct):
    error: Refusal | None = None


def read_row(answer: msgspec.Raw) -> Prediction | Refusal:
    """One row's answer in a batch.

    Raises:
        msgspec.DecodeError: it is neither a prediction nor a refusal.
    """
    return msgspec.json.decode(answer, type=_RowAnswer).error or msgspec.json.decode(answer, type=Prediction)
