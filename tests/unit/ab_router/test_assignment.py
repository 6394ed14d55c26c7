"""Who gets which variant, whatever the order of rows, revisions and routers."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from services.ab_router.domain.assignment import InForce
from services.ab_router.domain.hashing import choose, ranges
from tests.experiment_revisions import revision


def assigned(experiment: ExperimentRevision, unit: str):
    return InForce([experiment]).assign(PredictionRow(unit))


def variant_of(experiment: ExperimentRevision, unit: str) -> VariantAllocation | None:
    return assigned(experiment, unit).variant


@pytest.mark.parametrize(
    ("weights", "coverage"), [((1 / 3, 1 / 3, 1 / 3), 1.0), ((0.95, 0.05), 0.02), ((0.7, 0.2, 0.1), 0.37)]
)
def test_a_share_is_that_of_the_hashs_steps_which_lead_to_the_variant(weights, coverage):
    variants = [VariantAllocation(f"arm-{at}", "v1", weight) for at, weight in enumerate(weights)]
    experiment = revision(variants=variants, coverage=coverage)
    counts = Counter(choose(step / 10_000, ranges(len(weights), coverage, weights)) for step in range(10_000))
    for index, variant in enumerate(variants):
        unit = next(unit for unit in map(str, range(10**6)) if variant_of(experiment, unit) == variant)
        assignment = assigned(experiment, unit)
        assert assignment.share == assignment.probability == counts[index] / 10_000


@given(unit=st.text(min_size=1), weight=st.floats(0.05, 0.95), coverage=st.floats(0.1, 1))
def test_a_unit_keeps_its_variant_through_every_revision(unit, weight, coverage):
    shares = [VariantAllocation("a", "v1", 1 - weight), VariantAllocation("b", "v2", weight)]
    running = revision(variants=shares, coverage=coverage)
    later = revision(variants=shares, coverage=coverage, revision=7, epoch=3, reason="a word", status="decided")
    assert variant_of(running, unit) == variant_of(later, unit)


@given(unit=st.text(min_size=1), coverages=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_more_coverage_moves_nobody_who_is_in_already(unit, coverages):
    low, high = sorted(coverages)
    before = variant_of(revision(coverage=low), unit)
    assert before is None or variant_of(revision(coverage=high), unit) == before


@pytest.mark.parametrize(("weights", "coverage"), [((0.5, 0.5), 1.0), ((0.8, 0.15, 0.05), 1.0), ((0.3, 0.7), 0.25)])
def test_shares_of_many_units_are_close_to_the_weights(weights, coverage):
    variants = [VariantAllocation(f"arm-{at}", "v1", weight) for at, weight in enumerate(weights)]
    experiment = revision(variants=variants, coverage=coverage)
    units = 20_000
    counts = Counter(variant.name if (variant := variant_of(experiment, f"user-{at}")) else None for at in range(units))
    expected = {variant.name: coverage * variant.weight for variant in variants} | {None: 1 - coverage}
    for name, share in expected.items():
        error = (share * (1 - share) / units) ** 0.5
        assert counts[name] / units == pytest.approx(share, abs=4 * error)


def test_another_seed_assigns_independently():
    first, second = revision(), revision(seed="another")
    same = sum(variant_of(first, f"user-{at}") == variant_of(second, f"user-{at}") for at in range(4_000))
    assert same / 4_000 == pytest.approx(0.5, abs=0.04)
