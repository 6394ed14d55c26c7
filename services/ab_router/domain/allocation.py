"""Allocations: which shares the hash can split, and whether another allocation moves units that are in."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from contender.contracts.experiments import VariantAllocation
from contender.contracts.limits import SHARES
from services.ab_router.domain.bounds import span, within
from services.ab_router.domain.hashing import STEPS, counted_shares, ranges
from shared.errors import FieldError, shortened

TOLERANCE = 1e-9
"""How far a sum of shares may be off, as floats are."""
SHARE_TOLERANCE = 0.1
"""How far a share counted in steps of the hash may be off, as a part of the declared one."""
_STEPS = [step / STEPS for step in range(STEPS)]


def share_faults(weights: Mapping[str, float], coverage: float) -> Iterator[FieldError]:
    """Shares that the hash can't split: it has 10,000 steps. Only where weights and coverage are in range.

    Args:
        weights: the weight of each variant by its field; a variant with a weight of 0 gets no unit.
        coverage: the share of the units that take part.
    """
    positive = [weight for weight in weights.values() if weight != 0]
    if not all(within(share, SHARES) for share in (coverage, *positive)) or not adds_up(weights.values()):
        return
    counted_by_field = zip(weights.items(), counted_shares(list(weights.values()), coverage), strict=True)
    for (field, weight), counted in counted_by_field:
        declared = weight * coverage
        is_below = declared * STEPS < 1 - TOLERANCE
        if weight != 0 and (is_below or abs(counted / declared - 1) > SHARE_TOLERANCE):
            yield FieldError(
                field,
                f"is {declared:.6g} of all units with the coverage, and would be {counted:.6g}: the hash has "
                f"{STEPS:,} steps; a variant needs one at least, and a share within a tenth of the declared one",
            )


def allocation_faults(
    variants: Sequence[VariantAllocation], weights: Mapping[str, float], coverage: float
) -> list[FieldError]:
    """The faults of another allocation of an experiment: a weight for each variant by its name, and the coverage."""
    names = [variant.name for variant in variants]
    unknown = [name for name in weights if name not in names]
    if unknown:
        return [FieldError(f"weights.{shortened(unknown[0])}", f"is not one of the variants: {', '.join(names)}")]
    faults = [
        *(FieldError(f"weights.{name}", "is missing: name a weight for each") for name in names if name not in weights),
        *(
            FieldError(f"weights.{name}", f"must be {span(SHARES)}")
            for name, weight in weights.items()
            if not within(weight, SHARES)
        ),
    ]
    if not faults and not adds_up(weights.values()):
        faults.append(FieldError("weights", f"add up to {sum(weights.values()):g}; they must add up to 1"))
    if not within(coverage, SHARES):
        faults.append(FieldError("coverage", f"must be {span(SHARES)}"))
    return faults or list(share_faults({f"weights.{name}": weights[name] for name in names}, coverage))


def moves_units(
    before: Sequence[VariantAllocation], coverage: float, after: Sequence[VariantAllocation], new_coverage: float
) -> bool:
    """Whether a unit that is in would get another variant, or none.

    No unit moves where the steps of each variant are all among its steps afterwards. Steps that no variant had may go
    to any: their units were not in.

    Args:
        before: the variants with the weights so far.
        coverage: the coverage so far.
        after: the same variants, in the same order, with other weights.
        new_coverage: the coverage from now on.
    """
    pairs = zip(steps_of(before, coverage), steps_of(after, new_coverage), strict=True)
    return any(old and not (new.start <= old.start and old.stop <= new.stop) for old, new in pairs)


def steps_of(variants: Sequence[VariantAllocation], coverage: float) -> list[range]:
    """The steps of the hash, from 0 to 9,999, whose units get each variant."""
    bounds = ranges(len(variants), coverage, [variant.weight for variant in variants])
    return [range(bisect_left(_STEPS, low), bisect_left(_STEPS, high)) for low, high in bounds]


def adds_up(weights: Iterable[float]) -> bool:
    """Whether weights add up to 1, as floats do."""
    return abs(sum(weights) - 1) <= TOLERANCE
