"""What an experiment may declare of the units that take part, and of the way in which it runs."""

from collections.abc import Iterator
from itertools import pairwise

from contender.contracts import limits
from contender.contracts.experiments import Canary, NewExperiment
from contender.contracts.limits import NAME, NAME_WORDS
from services.ab_router.domain.allocation import SHARE_TOLERANCE, TOLERANCE, share_faults
from services.ab_router.domain.bounds import span, within
from services.ab_router.domain.overlaps import NAMESPACE_STEPS, namespace_share
from services.ab_router.domain.ramps import allocation_at
from services.ab_router.domain.targeting import rule_faults
from shared.errors import FieldError, shortened

_WHO_CHARACTERS = 200
_CANARY_STEPS = 20
_WAYS = ("shadow", "canary", "bandit")
_ALL = 1.0


def placement_faults(new: NewExperiment) -> Iterator[FieldError]:
    """The faults of a declaration that do not depend on the model's versions."""
    yield from word_faults(new, owner=_WHO_CHARACTERS)
    yield from _namespace_faults(new)
    yield from _targeting_faults(new)
    yield from _forced_faults(new)
    if not _is_splittable(new.holdout) or not within(new.holdout, limits.HOLDOUTS):
        yield FieldError("holdout", f"must be {span(limits.HOLDOUTS)}, in thousandths")
    declared = [way for way in _WAYS if getattr(new, way)]
    for way in declared[1:]:
        yield FieldError(way, f"can't be declared together with {declared[0]}: an experiment runs in one way")
    yield from _bandit_faults(new)
    if new.canary is not None:
        yield from _canary_faults(new, new.canary)


def word_faults(change: object, **more: int) -> Iterator[FieldError]:
    """Texts of a change that are too long: its reason, who makes it, its override, and more fields with a limit."""
    texts = {"reason": limits.REASON_CHARACTERS, "override": limits.REASON_CHARACTERS, "changed_by": _WHO_CHARACTERS}
    for field, limit in (texts | more).items():
        if len(getattr(change, field, "")) > limit:
            yield FieldError(field, f"is longer than {limit} characters")


def _namespace_faults(new: NewExperiment) -> Iterator[FieldError]:
    namespace = new.namespace
    if namespace is None:
        return
    if NAME.fullmatch(namespace.name) is None:
        yield FieldError("namespace.name", f"must be {NAME_WORDS}")
    if not 0 <= namespace.start < namespace.end <= 1:
        yield FieldError("namespace", "must have a start of at least 0, below its end, which is at most 1")
        return
    size, counted = namespace.end - namespace.start, namespace_share(namespace)
    if abs(counted / size - 1) > SHARE_TOLERANCE:
        yield FieldError(
            "namespace", f"has a share of {size:.6g}, and would have {counted:.6g}: it is split in thousandths"
        )


def _is_splittable(share: float) -> bool:
    """Whether a share, counted in steps of a namespace's hash, is about the declared one."""
    steps = sum(step / NAMESPACE_STEPS < share for step in range(NAMESPACE_STEPS))
    return share == 0 or abs(steps / NAMESPACE_STEPS / share - 1) <= SHARE_TOLERANCE


def _targeting_faults(new: NewExperiment) -> Iterator[FieldError]:
    if len(new.targeting) > limits.RULES:
        yield FieldError("targeting", f"has {len(new.targeting)} rules; expected at most {limits.RULES}")
        return
    for index, rule in enumerate(new.targeting):
        for fault in rule_faults(rule):
            field = f"targeting[{index}].{fault.field}".rstrip(".")
            yield FieldError(field, fault.message)


def _forced_faults(new: NewExperiment) -> Iterator[FieldError]:
    if len(new.forced) > limits.FORCED_UNITS:
        yield FieldError("forced", f"has {len(new.forced)} units; expected at most {limits.FORCED_UNITS}")
        return
    names = [variant.name for variant in new.variants]
    for unit, name in new.forced.items():
        field = f"forced.{shortened(unit)}"
        if not 0 < len(unit) <= limits.TEXT_CHARACTERS:
            yield FieldError(field, f"must be a unit of 1 to {limits.TEXT_CHARACTERS:,} characters")
        if name not in names:
            yield FieldError(field, f"is {shortened(name)!r}, which is not the name of a variant")


def _bandit_faults(new: NewExperiment) -> Iterator[FieldError]:
    bandit, count = new.bandit, len(new.variants)
    if bandit is None:
        return
    if not within(bandit.floor, limits.BANDIT_FLOORS):
        yield FieldError("bandit.floor", f"must be {span(limits.BANDIT_FLOORS)}")
    elif bandit.floor * count >= _ALL:
        yield FieldError("bandit.floor", f"must be below {1 / count:.4g}, since there are {count} variants")
    else:
        for index, variant in enumerate(new.variants):
            if variant.weight < bandit.floor - TOLERANCE:
                yield FieldError(f"variants[{index}].weight", f"must be at least the bandit's floor, {bandit.floor:g}")
    if new.coverage != _ALL:
        yield FieldError("coverage", "must be 1 for a bandit: its weights change, and so all units must take part")
    yield from _pace_faults("bandit", "rows_per_arm", bandit.rows_per_arm, bandit.seconds_per_step)


def _canary_faults(new: NewExperiment, canary: Canary) -> Iterator[FieldError]:
    yield from _pace_faults("canary", "rows_per_step", canary.rows_per_step, canary.seconds_per_step)
    steps, arms = canary.steps, len(new.variants)
    if not within(len(steps), (1, _CANARY_STEPS)):
        yield FieldError("canary.steps", f"has {len(steps)} entries; expected 1 to {_CANARY_STEPS}")
        return
    if not all(0 < step <= 1 for step in steps) or not all(step < later for step, later in pairwise(steps)):
        yield FieldError("canary.steps", "must be shares above 0, each larger than the one before, and at most 1")
        return
    if not arms:
        return
    for index, variant in enumerate(new.variants):
        if abs(variant.weight - 1 / arms) > TOLERANCE:
            yield FieldError(
                f"variants[{index}].weight", f"must be {1 / arms:.6g}: the arms of a canary are equally large"
            )
    coverages = [allocation_at(canary, step, arms - 1)[0] for step in range(len(steps))]
    if new.coverage not in (_ALL, *coverages):
        yield FieldError("coverage", "must be left out: it follows from the steps of the canary")
    for index, step in enumerate(steps):
        field = f"canary.steps[{index}]"
        if index < len(steps) - 1 and arms * step > _ALL + TOLERANCE:
            yield FieldError(field, f"must be at most {1 / arms:.4g}, since there are {arms} arms of that size")
        else:
            weights = {f"{field} of arm {arm}": 1 / arms for arm in range(arms)}
            yield from (FieldError(field, fault.message) for fault in [*share_faults(weights, coverages[index])][:1])


def _pace_faults(way: str, rows_field: str, rows: int, seconds: float) -> Iterator[FieldError]:
    if not within(rows, limits.STEP_ROWS):
        yield FieldError(f"{way}.{rows_field}", f"must be {span(limits.STEP_ROWS)} rows")
    if not within(seconds, limits.STEP_S):
        yield FieldError(f"{way}.seconds_per_step", f"must be {span(limits.STEP_S)}")
