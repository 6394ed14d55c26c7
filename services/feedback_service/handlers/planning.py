"""The use case of plans: what an experiment would take, from the record of the model's newest one."""

from collections.abc import Iterator
from dataclasses import replace

import msgspec

from contender.contracts import limits
from contender.contracts.feedback_service import Plan, PlanRequest
from contender.contracts.metrics import METRICS, metric_named
from contender.contracts.problems import FieldError
from services.feedback_service.domain.planning import Record, Wish, plan
from services.feedback_service.domain.planning_sentences import sentences_of
from services.feedback_service.domain.record import record_of
from services.feedback_service.errors import InvalidPlan, NoRecord
from services.feedback_service.handlers.results import ReadResults

_POWERS = (0.1, 0.99)
_WAY_OUT = (
    "run an experiment of the champion against itself first, or give standard_deviation and rows_per_day: a plan then "
    "needs no record"
)


async def plan_experiment(reads: ReadResults, request: PlanRequest) -> Plan:
    """A plan from the model's newest experiment that has matured rows of the champion in the metric.

    Raises:
        InvalidPlan: a field is out of range, or does not fit the others.
        NoRecord: there is no such experiment, and the request does not say what it would.
        ResultsUnavailable: the snapshots can't be read.
    """
    faults = list(_faults(request))
    if faults:
        raise InvalidPlan("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)
    record = _with_given(await _record(reads, request), request)
    wish = Wish(
        effect=request.effect,
        shares=request.shares,
        alpha=request.alpha,
        power=request.power,
        hypothesis=request.hypothesis,
        margin=request.margin,
        hidden_share=request.hidden_share,
        exploration_share=request.exploration_share,
    )
    planned = plan(record, wish)
    return msgspec.structs.replace(
        planned, sentences=sentences_of(planned, request, metric_named(request.metric).words)
    )


async def _record(reads: ReadResults, request: PlanRequest) -> Record:
    """The record; where both figures are given, one that has nothing else."""
    if request.standard_deviation is not None and request.rows_per_day is not None:
        return Record(row_variance=request.standard_deviation**2, rows_per_day=request.rows_per_day)
    revisions = [revision for revision in reads.experiments.all() if revision.model == request.model]
    metric = metric_named(request.metric)
    for revision in sorted(revisions, key=lambda revision: revision.started_at or 0.0, reverse=True):
        record = record_of(revision, await reads.snapshots.read(revision.name), metric)
        if record is not None and (record.rows_per_day > 0.0 or request.rows_per_day):
            return record
    raise NoRecord(f"no experiment of model {request.model!r} has matured rows with {metric.words}: {_WAY_OUT}")


def _with_given(record: Record, request: PlanRequest) -> Record:
    """The record with what the request says in its place."""
    if request.standard_deviation is not None:
        record = replace(record, row_variance=request.standard_deviation**2)
    return replace(
        record,
        rows_per_day=request.rows_per_day or record.rows_per_day,
        window_s=record.window_s if request.window_s is None else request.window_s,
        cycle_days=record.cycle_days if request.cycle_days is None else request.cycle_days,
    )


def _faults(request: PlanRequest) -> Iterator[FieldError]:
    """What is out of range; numbers of JSON are finite, but sums of them may not be."""
    superiority, different = request.hypothesis == "superiority", request.hypothesis == "no difference"
    explored = request.exploration_share
    shares = request.shares
    most = limits.MARGINS[1]
    deciding = [metric.name for metric in METRICS if metric.may_decide]
    checks = [
        ("metric", request.metric not in deciding, f"must be one of {', '.join(deciding)}"),
        ("effect", not 0.0 <= request.effect <= most, f"must be from 0 to {most:g}: how much better the challenger is"),
        ("effect", superiority and request.effect == 0.0, "must be above 0 for a claim without a margin"),
        ("effect", different and request.effect >= request.margin > 0.0, "must be below the margin"),
        ("margin", not 0.0 <= request.margin <= most, f"must be from 0 to {most:g}"),
        ("margin", not superiority and request.margin == 0.0, "must be above 0 for this hypothesis"),
        ("shares", not limits.VARIANTS[0] <= len(shares) <= limits.VARIANTS[1], "must have 2 to 10 entries"),
        ("shares", not all(share >= limits.SHARES[0] for share in shares), f"must each be at least {limits.SHARES[0]}"),
        ("shares", not sum(shares) <= 1.0 + 1e-9, "must add up to at most 1"),
        ("alpha", not limits.ALPHAS[0] <= request.alpha <= limits.ALPHAS[1], "must be from 1e-09 to 0.5"),
        ("power", not _POWERS[0] <= request.power <= _POWERS[1], "must be from 0.1 to 0.99"),
        ("cycle_days", not _within(request.cycle_days, limits.CYCLE_DAYS), "must be from 0 to 366"),
        ("window_s", not _within(request.window_s, limits.WINDOWS_S), "must be from one second to ten years"),
        ("exploration_share", explored is not None and not 0.0 < explored <= 1.0, "must be above 0 and at most 1"),
        ("hidden_share", not _within(request.hidden_share, (0.0, 1.0)), "must be from 0 to 1"),
        ("hidden_share", request.hidden_share is not None and explored is None, "needs an exploration_share"),
        ("standard_deviation", not _positive(request.standard_deviation), "must be above 0"),
        ("rows_per_day", not _positive(request.rows_per_day), "must be above 0"),
    ]
    yield from (FieldError(field, message) for field, is_wrong, message in checks if is_wrong)


def _within(number: float | None, bounds: tuple[float, float]) -> bool:
    return number is None or bounds[0] <= number <= bounds[1]


def _positive(number: float | None) -> bool:
    return number is None or 0.0 < number <= limits.MARGINS[1]
