"""By which metrics an experiment may decide, what they need, and in which segments they are shown."""

from collections.abc import Hashable, Iterator, Sequence

from contender.contracts import limits
from contender.contracts.experiments import NewExperiment
from contender.contracts.metrics import LABELLED, Metric, metrics_of
from contender.contracts.metrics.metric import MEAN
from contender.contracts.problems import FieldError
from contender.contracts.tasks import Task
from services.ab_router.domain.bounds import span, within

_SEGMENT_CHARACTERS = 100


def metric_faults(new: NewExperiment, task: Task) -> Iterator[FieldError]:
    """The faults of the metric, the guardrails and the segments of a declaration for models of a task."""
    metrics = {metric.name: metric for metric in metrics_of(task) if metric.may_decide}
    shown = [metric.name for metric in metrics_of(task) if not metric.may_decide]
    known = ", ".join(metrics)
    if new.metric in shown:
        yield FieldError("metric", f"must decide, and {new.metric} is only shown: {known}")
    elif new.metric not in metrics:
        yield FieldError("metric", f"is not a metric of a {task.name} model: {known}")
    yield from _segment_faults(new, metrics)
    if len(new.guardrails) > limits.GUARDRAILS:
        yield FieldError("guardrails", f"has {len(new.guardrails)} entries; expected at most {limits.GUARDRAILS}")
        return
    if _has_twins([(guardrail.metric, guardrail.segment) for guardrail in new.guardrails]):
        yield FieldError("guardrails", "names a metric twice, for the same rows")
    for index, guardrail in enumerate(new.guardrails):
        path = f"guardrails[{index}]"
        if guardrail.metric not in metrics:
            yield FieldError(f"{path}.metric", f"is not a metric of a {task.name} model: {known}")
        if not within(guardrail.margin, limits.MARGINS):
            yield FieldError(f"{path}.margin", f"must be {span(limits.MARGINS)}")
        if guardrail.segment and guardrail.segment not in new.segments:
            declared = ", ".join(new.segments) or "there are none"
            yield FieldError(f"{path}.segment", f"must be one of the declared segments: {declared}")
        elif guardrail.segment and not _has_segments(metrics.get(guardrail.metric)):
            yield FieldError(f"{path}.segment", _needs_mean(guardrail.metric, metrics))
    yield from unmet_needs(new, metrics)


def _segment_faults(new: NewExperiment, metrics: dict[str, Metric]) -> Iterator[FieldError]:
    if len(new.segments) > limits.SEGMENTS:
        yield FieldError("segments", f"has {len(new.segments)} entries; expected at most {limits.SEGMENTS}")
        return
    if _has_twins(new.segments):
        yield FieldError("segments", "names a key twice")
    for index, key in enumerate(new.segments):
        if not 0 < len(key) <= _SEGMENT_CHARACTERS:
            message = f"must be a key of the context, of 1 to {_SEGMENT_CHARACTERS} characters"
            yield FieldError(f"segments[{index}]", message)
    if new.segments and not _has_segments(metrics.get(new.metric)):
        yield FieldError("segments", _needs_mean(new.metric, metrics))


def unmet_needs(new: NewExperiment, metrics: dict[str, Metric]) -> Iterator[FieldError]:
    """Fields that the metrics of a verdict need and that are not declared, given the known metrics by name."""
    named = dict.fromkeys([new.metric, *(guardrail.metric for guardrail in new.guardrails)])
    needed: dict[str, str] = {}
    for name in named:
        metric = metrics.get(name)
        if metric and metric.needs and not getattr(new, metric.needs):
            needed.setdefault(metric.needs, name)
    for field, name in needed.items():
        yield FieldError(field, f"must be declared: the metric {name} is computed by it")


def _has_segments(metric: Metric | None) -> bool:
    """Whether a metric is a mean over rows with an outcome, which are summed by segment; an unknown one is a fault."""
    return metric is None or (metric.sums == MEAN and metric.ledger == LABELLED)


def _needs_mean(name: str, metrics: dict[str, Metric]) -> str:
    means = ", ".join(metric.name for metric in metrics.values() if _has_segments(metric))
    return f"can't be shown for {name}, no mean over rows with an outcome: choose {means}, or leave the segments out"


def _has_twins(names: Sequence[Hashable]) -> bool:
    return len(set(names)) < len(names)
