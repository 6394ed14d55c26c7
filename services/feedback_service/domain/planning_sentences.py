"""The sentences of plans."""

from contender.contracts.feedback_service import Plan, PlanRequest
from services.feedback_service.domain.sentences import days, duration, percent


def sentences_of(plan: Plan, request: PlanRequest, metric: str) -> list[str]:
    """A plan in words: how long it takes, what to declare, what a planned end costs, and where it comes from."""
    return [_time(plan, request, metric), _declare(plan), _planned_end(plan, request), *_explored(plan), _source(plan)]


def _time(plan: Plan, request: PlanRequest, metric: str) -> str:
    found = {
        "superiority": f"a difference of {request.effect:g} in {metric}",
        "non-inferiority": f"being no worse by {request.margin:g} in {metric}",
        "no difference": f"a difference of less than {request.margin:g} in {metric}",
    }[request.hypothesis]
    if plan.days is None:
        return f"Half of the experiments do not show {found} within two years at {plan.rows_per_day:,.0f} rows a day."
    whole = f", over whole cycles of {duration(plan.cycle_days * 86_400.0)}" if plan.cycle_days else ""
    at_power = "is not reached within two years" if plan.days_at_power is None else f"{days(plan.days_at_power)}"
    return (
        f"A verdict on {found} comes within {days(plan.days)} in half of the experiments, and with a power of "
        f"{percent(request.power)} within {at_power}{whole}."
    )


def _declare(plan: Plan) -> str:
    return (
        f"Declare tuning_n {plan.tuning_n:,}: by rows alone it takes {_rows(plan.rows)} of the two variants in the "
        f"median and {_rows(plan.rows_at_power)} at that power, at {plan.rows_per_day:,.0f} a day."
    )


def _planned_end(plan: Plan, request: PlanRequest) -> str:
    cost = plan.horizon_rows / plan.fixed_rows if plan.fixed_rows else 1.0
    return (
        f"With a planned end, horizon_rows {plan.horizon_rows:,} has a power of at least {percent(request.power)}, "
        f"{cost:.2f} times the rows of a single look without any before it."
    )


def _explored(plan: Plan) -> list[str]:
    if plan.exploration_factor == 1.0:
        return []
    return [f"Hidden labels make it {plan.exploration_factor:.3g} times the rows."]


def _source(plan: Plan) -> str:
    if plan.experiment is None:
        return "The figures were given; days are taken to be alike."
    told = f"The record is that of {plan.experiment}: {plan.record_rows:,} matured rows of the champion"
    if plan.day_spread is None:
        return f"{told}, and too few whole days to say how much days vary."
    return f"{told} and {plan.record_days:,} whole days."


def _rows(count: int | None) -> str:
    return "more rows than can be planned for" if count is None else f"{count:,} rows"
