"""Experiments of FakeContender: declared by a test, and assigned as the router does, without its speed and its store.

Forced units come first, then the holdout, targeting and the namespace of each experiment, and the hash at last. A test
compares it with the router's own, row by row.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import msgspec

from contender.assignment import bucket, choose, counted_shares, in_namespace, ranges
from contender.contracts.ab_router import AssignmentReason, PredictionRow
from contender.contracts.experiments import ExperimentRevision, NewExperiment, Status, TargetingRule, VariantAllocation
from contender.contracts.values import Scalar
from contender.errors import ContenderError


@dataclass(frozen=True, slots=True)
class Assigned:
    """A row's assignment; see the fields of a Prediction."""

    reason: AssignmentReason
    experiment: ExperimentRevision | None = None
    variant: VariantAllocation | None = None
    share: float | None = None
    probability: float | None = None

    @property
    def excluded(self) -> bool:
        """Whether the row counts in no results though it has a variant: it did not get it by chance."""
        return self.variant is not None and self.probability is None


def assigned(experiments: Sequence[ExperimentRevision], row: PredictionRow) -> Assigned:
    """The assignment of a row by the experiments in force on its model, oldest first."""
    if not experiments:
        return Assigned("no experiment")
    for experiment in experiments:
        forced = None if experiment.status == "paused" else experiment.forced.get(row.unit)
        if any(variant.name == forced for variant in experiment.variants):
            return _variant(experiment, forced or "", "forced")
    left = [list(_left_at(experiment, row)) for experiment in experiments]
    for experiment, steps in zip(experiments, left, strict=True):
        if not steps:
            return _let_in(experiment, row.unit)
    return Assigned(max((steps[0] for steps in left), key=_LEFT.index))


def refusing(experiments: Sequence[ExperimentRevision], row: PredictionRow) -> str:
    """The experiment that refuses a row without a unit; empty where none does."""
    if row.unit:
        return ""
    strict = (each for each in experiments if each.status != "paused" and each.unit_missing == "refuse")
    return next((each.name for each in strict if _is_targeted(each, row)), "")


def declared_revision(
    model: str,
    variants: Mapping[str, float] | Sequence[VariantAllocation],
    *,
    name: str,
    seed: str,
    status: Status,
    **declared: Any,
) -> ExperimentRevision:
    """The revision in force of a declaration, whose fields are those of `POST /v1/experiments`.

    Raises:
        ContenderError: a field is mistyped or unknown, or the weights do not add up to 1.
    """
    if isinstance(variants, Mapping):
        variants = [VariantAllocation(arm, arm, weight) for arm, weight in variants.items()]
    if not isclose(total := sum(variant.weight for variant in variants), 1.0):
        raise ContenderError(f"the weights of the variants add up to {total:g}, not to 1")
    body = msgspec.to_builtins({"name": name, "model": model, "variants": variants, **declared})
    try:
        new = msgspec.convert(body, NewExperiment)
    except msgspec.ValidationError as error:
        raise ContenderError(f"the experiment can't be declared: {error}") from error
    kept = [field for field in NewExperiment.__struct_fields__ if field in ExperimentRevision.__struct_fields__]
    fields: dict[str, Any] = {field: getattr(new, field) for field in kept}
    fields |= {"champion": new.champion or new.variants[0].name, "revision": 1, "epoch": 1}
    fields |= {"status": status, "seed": seed, "changed_at": 0.0, "started_at": 0.0}
    return ExperimentRevision(**fields)


_LEFT: tuple[AssignmentReason, ...] = ("not targeted", "other namespace", "holdout")
"""Why an experiment leaves a row to others; of the reasons of several the last one counts."""


def _left_at(experiment: ExperimentRevision, row: PredictionRow) -> Iterator[AssignmentReason]:
    """The steps at which an experiment leaves a row to others; a row without a unit passes those that are for units."""
    part = experiment.namespace
    if row.unit and in_namespace(row.unit, (f"holdout/{experiment.model}", 0.0, experiment.holdout)):
        yield "holdout"
    if not _is_targeted(experiment, row):
        yield "not targeted"
    if row.unit and part and not in_namespace(row.unit, (part.name, part.start, part.end)):
        yield "other namespace"


def _let_in(experiment: ExperimentRevision, unit: str) -> Assigned:
    if experiment.status == "paused" or not unit:
        return Assigned("paused" if experiment.status == "paused" else "no unit")
    weights = [variant.weight for variant in experiment.variants]
    place = choose(bucket(experiment.seed, unit) or 0.0, ranges(len(weights), experiment.coverage, weights))
    return (
        _variant(experiment, experiment.variants[place].name, "split") if place >= 0 else Assigned("outside coverage")
    )


def _variant(experiment: ExperimentRevision, name: str, reason: AssignmentReason) -> Assigned:
    index = [variant.name for variant in experiment.variants].index(name)
    share = counted_shares([variant.weight for variant in experiment.variants], experiment.coverage)[index]
    probability = share if reason == "split" else None
    return Assigned(reason, experiment, experiment.variants[index], share, probability)


def _is_targeted(experiment: ExperimentRevision, row: PredictionRow) -> bool:
    return all(_is_met(rule, experiment.seed, row.context) for rule in experiment.targeting)


def _is_met(rule: TargetingRule, seed: str, context: Mapping[str, Scalar]) -> bool:
    if rule.key not in context:
        return False
    value = context[rule.key]
    if rule.matches:
        return isinstance(value, str) and re.fullmatch(rule.matches, value) is not None
    if rule.percent is not None:
        drawn = bucket(f"{seed}/percent/{rule.key}", _text(value))
        return value is not None and drawn is not None and drawn < rule.percent / 100
    if rule.low is not None or rule.high is not None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and _within(rule, float(value or 0))
    values = [] if rule.one_of is msgspec.UNSET else rule.one_of
    values = values if rule.equals is msgspec.UNSET else [rule.equals]
    return any(known == value and isinstance(known, bool) == isinstance(value, bool) for known in values)


def _within(rule: TargetingRule, value: float) -> bool:
    return (rule.low is None or value >= rule.low) and (rule.high is None or value <= rule.high)


def _text(value: Scalar) -> str:
    """A text as it is, anything else as JSON has it; whole numbers without a point."""
    if isinstance(value, str):
        return value
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return msgspec.json.encode(whole).decode()
