"""How long an experiment may take: what its plan needs, against the traffic of a day."""

from contender.contracts.experiments import ExperimentRevision, Finding
from contender.contracts.feedback_service import Plan, PlanRequest
from contender.contracts.metrics import metric_named
from services.ab_router.domain.traffic import DayOfTraffic

_ERRORS_OF_TUNING = 3.0
"""At the rows for which an interval is tuned it reaches about three standard errors to either side (alpha .05)."""
_TRIAL_EFFECT = 0.01


def plan_request(experiment: ExperimentRevision, day: DayOfTraffic | None) -> PlanRequest | None:
    """The question for a plan; None for an experiment in shadow, to whose paired differences no plan applies.

    A claim with a margin is planned for no difference. What a claim of superiority should find is not declared: its
    plan begins with some effect, and `effect_of_tuning` gives the one that its `tuning_n` is meant for.
    """
    if experiment.shadow:
        return None
    champion = [variant.weight for variant in experiment.variants if variant.name == experiment.champion]
    others = [variant.weight for variant in experiment.variants if variant.name != experiment.champion]
    return PlanRequest(
        model=experiment.model,
        metric=experiment.metric,
        effect=_TRIAL_EFFECT if experiment.hypothesis == "superiority" else 0.0,
        shares=tuple(weight * experiment.coverage for weight in [*champion, *others]),
        alpha=experiment.alpha,
        hypothesis=experiment.hypothesis,
        margin=experiment.margin,
        cycle_days=experiment.cycle_days,
        window_s=experiment.window_s,
        rows_per_day=day.accepted_per_day if day and day.accepted else None,
    )


def effect_of_tuning(experiment: ExperimentRevision, plan: Plan) -> float:
    """The effect that an interval tuned for `tuning_n` rows can just tell from zero, in the metric's own unit."""
    return float(_ERRORS_OF_TUNING * (plan.effect_variance / experiment.tuning_n) ** 0.5)


def planned_finding(
    experiment: ExperimentRevision, request: PlanRequest, plan: Plan, day: DayOfTraffic | None
) -> Finding:
    """How many rows and days a verdict takes. It refuses nothing: waiting is the caller's to decide."""
    words = metric_named(experiment.metric).words
    aim = f"to tell a difference of {request.effect:.2g} in {words}" if request.effect else f"to judge {words}"
    if plan.rows is None or plan.days is None:
        return Finding("plan", f"needs more rows or days than can be planned for, {aim}", blocks=False)
    rows = day.accepted if day else 0
    pace = "" if rows else f" at the {plan.rows_per_day:,.0f} a day of experiment {plan.experiment}"
    message = (
        f"needs about {plan.rows:,} labelled rows of the champion and the smallest challenger, {aim} in half of all "
        f"cases; the last day had {f'{rows:,}' if rows else 'none'} of this model: about {max(plan.days, 1.0):,.0f} "
        f"days{pace}"
    )
    return Finding("plan", message, blocks=False)
