"""When the results of an experiment may move its traffic: a move, or why the allocation is held."""

from dataclasses import dataclass
from typing import Literal

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import Results, Verdict

GUARDRAIL = "stopped: guardrail"
"""What a verdict says where a guardrail is breached."""

_WITHHELD = "withheld: "
_TOO_FEW = "withheld: too few"
CLOCKS_S = 5.0
"""How far the clocks of two services may lie apart."""

Cause = Literal[
    "too early",
    "too few rows",
    "no results",
    "old results",
    "guardrail",
    "verdict",
    "off schedule",
    "last step",
    "no change",
    "refused",
]


@dataclass(frozen=True, slots=True)
class Move:
    """Another allocation: coverage, the weight of each variant, the step of the schedule if there is one, and why."""

    coverage: float
    weights: dict[str, float]
    step: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The allocation stays as it is: neither a promotion nor a rollback."""

    cause: Cause
    reason: str


def pause_between(revision: ExperimentRevision, seconds: float, now: float) -> Hold | None:
    """Hold until so many seconds after the last change of the experiment, by whomever it was."""
    left = revision.changed_at + seconds - now
    return Hold("too early", f"the next move may come in {left:.0f} s") if left > 0.0 else None


def doubt(revision: ExperimentRevision, results: Results, now: float, age_limit_s: float) -> Hold | None:
    """Why these results may not move traffic, whatever they show; None if they may.

    Args:
        revision: the newest one of the experiment.
        results: as the feedback service gives them.
        now: in seconds since the Unix epoch.
        age_limit_s: results that are older say nothing of what happens now.
    """
    if results.epoch != revision.epoch:
        return Hold("old results", f"the results are those of epoch {results.epoch}, and epoch {revision.epoch} runs")
    age = float("inf") if results.updated_at is None else now - results.updated_at
    if not -CLOCKS_S <= age <= age_limit_s:
        return Hold("old results", f"the results are {age:.0f} s old, and may be {age_limit_s:.0f} s old at most")
    verdicts = {verdict.challenger: verdict for verdict in results.verdicts}
    holds = (_doubt_about(challenger, verdicts.get(challenger)) for challenger in challengers_of(revision))
    return next((hold for hold in holds if hold is not None), None)


def challengers_of(revision: ExperimentRevision) -> list[str]:
    """The variants but the champion, in their order."""
    return [variant.name for variant in revision.variants if variant.name != revision.champion]


def unjudged_guardrail(revision: ExperimentRevision, results: Results) -> Hold | None:
    """A guardrail without a figure, which can't be said to hold; None where each has one."""
    for guardrail in revision.guardrails:
        for challenger in challengers_of(revision):
            effect = results.effects.get(challenger, {}).get(guardrail.metric)
            if effect is None or effect.estimate is None:
                metric, why = guardrail.metric, "too few rows have matured, or no reports come"
                return Hold("guardrail", f"guardrail {metric} can't be judged yet for {challenger}: {why}")
    return None


def _doubt_about(challenger: str, verdict: Verdict | None) -> Hold | None:
    if verdict is None:
        return Hold("no results", f"the results do not know {challenger}")
    if verdict.status == GUARDRAIL:
        return Hold("guardrail", f"{challenger} breaches a guardrail: {verdict.sentence}")
    if verdict.status.startswith(_WITHHELD) and verdict.status != _TOO_FEW:
        return Hold("verdict", f"the verdict on {challenger} is {verdict.status}: {verdict.sentence}")
    if verdict.findings:
        return Hold("verdict", f"the verdict on {challenger} is in question: {verdict.findings[-1]}")
    return None
