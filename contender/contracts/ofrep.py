"""The router's calls of the OpenFeature Remote Evaluation Protocol 0.3 (OFREP), which OpenFeature's providers send.

A flag is an experiment in force: its key is the experiment's name, its value the name of the variant. An evaluation
gives what a prediction of the same unit and context would be assigned; it is no exposure, and writes nothing.
"""

from typing import Annotated, Any, Literal

import msgspec

from contender.contracts.experiments import EXPERIMENTS_UNAVAILABLE
from contender.contracts.operation import JSON, Operation
from contender.contracts.problems import ProblemType

UNKNOWN_FLAG = ProblemType("unknown-flag", 404, "No experiment in force has that name.")
UNREADABLE_EVALUATION = ProblemType("unreadable-evaluation", 400, "The body is not JSON.")
TARGETING_KEY_MISSING = ProblemType(
    "targeting-key-missing", 400, "The context has no targetingKey, which names the unit."
)
INVALID_CONTEXT = ProblemType("invalid-context", 400, "The context is missing, mistyped or out of range.")

Reason = Literal["STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"]
"""Why a flag has its value, in the protocol's words."""

ErrorCode = Literal["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "FLAG_NOT_FOUND", "GENERAL"]

ERROR_CODES: dict[ProblemType, ErrorCode] = {
    UNKNOWN_FLAG: "FLAG_NOT_FOUND",
    UNREADABLE_EVALUATION: "PARSE_ERROR",
    TARGETING_KEY_MISSING: "TARGETING_KEY_MISSING",
    INVALID_CONTEXT: "INVALID_CONTEXT",
}
"""The protocol's code of a problem; `GENERAL` for any other."""

TARGETING_KEY = "targetingKey"

_CONTEXT = msgspec.Meta(
    extra_json_schema={
        "required": [TARGETING_KEY],
        "properties": {TARGETING_KEY: {"type": "string", "minLength": 1}},
    }
)


class EvaluationRequest(msgspec.Struct, frozen=True):
    """The context of an evaluation: the unit as `targetingKey`, and the values that targeting rules look at.

    Lists and objects in it are ignored: no rule is about them.
    """

    context: Annotated[dict[str, Any], _CONTEXT]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A flag's value for a context: the name of the variant.

    A unit that takes no part gets the champion's. `metadata` says more: `assignment` is the reason in the words of a
    prediction, beside it are `model`, `version`, `revision` and `epoch` and, for a unit that was assigned, `share` and
    `probability`; `stale` is true while the router can't read the database of experiments, and goes by its last
    reading.
    """

    key: str
    value: str
    variant: str
    reason: Reason
    metadata: dict[str, bool | int | float | str]


class Evaluations(msgspec.Struct, frozen=True):
    """All flags for a context, that of the oldest experiment first."""

    flags: list[Evaluation]


class EvaluationFailure(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The answer to an evaluation that is refused; `key` is that of a single flag."""

    error_code: ErrorCode
    error_details: str
    key: str = ""


_TAG = "openfeature"
_BODY: dict[str, Any] = {"context": {TARGETING_KEY: "u-17", "country": "NZ"}}
_EVALUATION: dict[str, Any] = {
    "key": "churn-2",
    "value": "challenger",
    "variant": "challenger",
    "reason": "SPLIT",
    "metadata": {
        "assignment": "split",
        "model": "churn",
        "version": "0c91",
        "revision": 2,
        "epoch": 1,
        "share": 0.5,
        "probability": 0.5,
    },
}

EVALUATE_FLAG = Operation(
    "evaluate_flag",
    "POST",
    "/ofrep/v1/evaluate/flags/{key}",
    "Gives the variant that a unit is assigned in an experiment; records nothing.",
    Evaluation,
    body=EvaluationRequest,
    problems=(UNKNOWN_FLAG, UNREADABLE_EVALUATION, TARGETING_KEY_MISSING, INVALID_CONTEXT, EXPERIMENTS_UNAVAILABLE),
    error=EvaluationFailure,
    error_media_type=JSON,
    tag=_TAG,
    body_example=_BODY,
    answer_example=_EVALUATION,
)
EVALUATE_FLAGS = Operation(
    "evaluate_flags",
    "POST",
    "/ofrep/v1/evaluate/flags",
    "Gives the variants that a unit is assigned in all experiments in force; records nothing.",
    Evaluations,
    body=EvaluationRequest,
    other_statuses={304: "The flags are those of the ETag in If-None-Match."},
    problems=(UNREADABLE_EVALUATION, TARGETING_KEY_MISSING, INVALID_CONTEXT, EXPERIMENTS_UNAVAILABLE),
    error=EvaluationFailure,
    error_media_type=JSON,
    tag=_TAG,
    body_example=_BODY,
    answer_example={"flags": [_EVALUATION]},
)
