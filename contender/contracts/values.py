"""The values that calls and events carry."""

from typing import Literal, get_args

Scalar = bool | int | float | str | None
Outcome = bool | int | float | str
Score = float | list[float]
"""A number, or one probability per class; the task says which."""

Missing = Literal["excluded", "negative"]
"""What a label means that has not come within the window: nothing, or the negative outcome."""

ClockName = Literal["wall", "event"]
"""Which time an experiment goes by: this world's, in which rows carry about the present, or that of a replay's rows."""

Hypothesis = Literal["superiority", "non-inferiority", "no difference"]
"""What a verdict claims: one is better, the challenger is not worse by a margin, or the two differ by less than it."""

OutcomeDesign = Literal["may depend on the answer", "independent of the answer"]
"""Whether the outcome of a row would be the same under any answer, as a flight's delay is and a click is not."""

FeedbackKind = Literal["outcome", "rating", "reward", "conversion", "complaint", "shown", "decided"]
"""What a report is about: what came true, how the answer was taken, or what the application did with it.

`shown` says whether the answer was put before its user, and `decided` what a person decided.
"""

FEEDBACK_KINDS: tuple[FeedbackKind, ...] = get_args(FeedbackKind)
OUTCOME: FeedbackKind = "outcome"
LABEL_KINDS: tuple[FeedbackKind, ...] = (OUTCOME, "decided")
"""Those whose value is a label, as an outcome is; that of the others is a number, or whether there was one."""

Correction = Literal["none", "holm"]
"""How the metrics that do not decide allow for their number: not at all, or by Holm's procedure."""

EstimatorName = Literal["randomised", "paired"]
"""The difference between rows that were assigned to either variant, or that of two scores of the same rows."""

Dtype = Literal["float", "integer", "string", "boolean"]

REQUEST = "request"
"""The `source` of a model's column whose value the caller sends; other columns have the feature that serves them."""
