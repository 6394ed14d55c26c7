"""Who gets which variant, whatever the order of rows, revisions and routers."""

import itertools
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision, Namespace, TargetingRule, VariantAllocation
from services.ab_router.domain.assignment import (
    FirstAssignment,
    InForce,
    UnitKey,
    first_assignments,
    stopped_lately,
)
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


def in_part(start: float, end: float, **changes: object) -> ExperimentRevision:
    """An experiment on a part of a namespace."""
    return revision(namespace=Namespace("page", start, end), **changes)


UNITS = st.text(min_size=1)
EXPERIMENTS = st.fixed_dictionaries(
    {
        "coverage": st.floats(0.001, 1),
        "holdout": st.floats(0, 0.5),
        "seed": st.text(max_size=20),
        "targeting": st.sampled_from([[], [TargetingRule("plan", equals="pro")]]),
        "namespace": st.none() | st.builds(Namespace, st.just("page"), st.floats(0, 1), st.floats(0, 1)),
        "status": st.sampled_from(["running", "decided", "paused"]),
        "forced": st.sampled_from([{}, {"tester": "b"}]),
    }
)


@given(units=st.lists(UNITS | st.just("tester") | st.just("")), declared=st.lists(EXPERIMENTS, max_size=4))
def test_a_row_is_in_one_experiment_at_most_and_says_why(units, declared):
    experiments = [revision(name=f"e-{at}", **changes) for at, changes in enumerate(declared)]
    in_force = InForce(experiments)
    for unit in units:
        for context in ({}, {"plan": "pro"}):
            row = PredictionRow(unit, context=context)
            assignment = in_force.assign(row)
            assert assignment == in_force.assign(row)
            has_variant = assignment.reason in {"split", "forced"}
            assert has_variant == (assignment.experiment is not None) == (assignment.variant is not None)
            assert (assignment.reason == "no experiment") == (not experiments)
            assert assignment.excluded == (assignment.reason == "forced")
            if has_variant:
                assert assignment.experiment.status != "paused"
                assert unit
            if unit == "" and in_force.refuses(row):
                assert assignment.reason in {"no unit", "paused"}


@given(unit=UNITS, cuts=st.lists(st.integers(0, 1000), min_size=2, max_size=5, unique=True))
def test_parts_of_a_namespace_that_do_not_meet_share_no_unit(unit, cuts):
    bounds = [cut / 1000 for cut in sorted(cuts)]
    experiments = [
        in_part(low, high, name=f"e-{at}", seed=f"s-{at}") for at, (low, high) in enumerate(itertools.pairwise(bounds))
    ]
    alone = [experiment.name for experiment in experiments if assigned(experiment, unit).variant]
    assert len(alone) <= 1
    together = InForce(experiments).assign(PredictionRow(unit))
    assert [together.experiment.name] == alone if alone else together.reason == "other namespace"


def test_the_parts_of_a_whole_namespace_take_every_unit():
    parts = [in_part(low, high, name=f"e-{low}") for low, high in ((0.0, 0.25), (0.25, 0.6), (0.6, 1.0))]
    in_force = InForce(parts)
    taken = Counter(in_force.assign(PredictionRow(f"user-{at}")).experiment.name for at in range(5_000))
    for name, share in (("e-0.0", 0.25), ("e-0.25", 0.35), ("e-0.6", 0.4)):
        assert taken[name] / 5_000 == pytest.approx(share, abs=0.03)


@given(unit=UNITS, share=st.floats(0.001, 0.5), more=st.floats(0.001, 0.5))
def test_a_holdout_is_the_same_units_in_all_experiments_of_a_model(unit, share, more):
    low, high = sorted((share, more))
    first = assigned(revision(holdout=low, seed="one", name="e-1"), unit)
    second = assigned(revision(holdout=low, seed="two", name="e-2", coverage=0.1), unit)
    assert (first.reason == "holdout") == (second.reason == "holdout")
    if first.reason == "holdout":
        assert assigned(revision(holdout=high), unit).reason == "holdout"
        assert (first.experiment, first.variant, first.excluded) == (None, None, False)


def test_a_holdout_is_as_large_as_declared_and_another_models_is_another():
    units = [f"user-{at}" for at in range(10_000)]
    held = {unit for unit in units if assigned(revision(holdout=0.2), unit).reason == "holdout"}
    others = {unit for unit in units if assigned(revision(holdout=0.2, model="other"), unit).reason == "holdout"}
    assert len(held) / 10_000 == pytest.approx(0.2, abs=0.02)
    assert len(held & others) / len(held) == pytest.approx(0.2, abs=0.05)


def test_the_steps_are_taken_in_order():
    unit, other = "user-1", "user-2"
    rules = [TargetingRule("plan", equals="pro")]
    out = Namespace("page", 0.0, 0.0)
    experiment = revision(forced={unit: "b"}, holdout=0.5, targeting=rules, namespace=out, coverage=1e-4)
    forced = assigned(experiment, unit)
    assert (forced.reason, forced.variant.name, forced.excluded, forced.probability) == ("forced", "b", True, None)
    held = next(u for u in map(str, range(100)) if assigned(revision(holdout=0.5), u).reason == "holdout")
    assert assigned(experiment, held).reason == "holdout"
    free = next(u for u in map(str, range(100)) if assigned(revision(holdout=0.5), u).reason == "split")
    assert assigned(experiment, free).reason == "not targeted"
    pro = InForce([experiment]).assign(PredictionRow(free, context={"plan": "pro"}))
    assert pro.reason == "other namespace"
    outside = assigned(revision(coverage=1e-4), other)
    assert (outside.reason, outside.experiment) == ("outside coverage", None)
    assert assigned(revision(status="paused", forced={unit: "b"}), unit).reason == "paused"


def test_the_reason_is_of_the_experiment_that_a_row_came_furthest_in():
    far = revision(name="e-1", namespace=Namespace("page", 0.0, 0.0))
    near = revision(name="e-2", targeting=[TargetingRule("plan", equals="pro")])
    for experiments in ([far, near], [near, far]):
        assert InForce(experiments).assign(PredictionRow("u")).reason == "other namespace"


def test_a_tester_is_forced_by_any_experiment_in_force():
    first, second = revision(name="e-1"), revision(name="e-2", forced={"tester": "a"})
    assignment = InForce([first, second]).assign(PredictionRow("tester"))
    assert (assignment.reason, assignment.experiment.name, assignment.variant.name) == ("forced", "e-2", "a")


def test_a_row_without_a_unit_is_refused_by_experiments_that_target_it_alone():
    rules = [TargetingRule("country", equals="NL")]
    dutch, abroad = PredictionRow(context={"country": "NL"}), PredictionRow(context={"country": "US"})
    refusing = InForce([revision(targeting=rules)])
    assert (refusing.refuses(dutch), refusing.refuses(abroad)) == ("e", "")
    assert refusing.assign(abroad).reason == "not targeted"
    lenient = InForce([revision(unit_missing="champion")])
    assert (lenient.refuses(dutch), lenient.assign(dutch).reason) == ("", "no unit")
    assert InForce([revision(status="paused")]).refuses(dutch) == ""
    assert InForce([]).assign(dutch).reason == "no experiment"


def test_in_shadow_the_champion_has_every_unit():
    variants = [VariantAllocation("b", "v2", 0.0), VariantAllocation("a", "v1", 1.0), VariantAllocation("c", "v3", 0.0)]
    experiment = revision(variants=variants, shadow=True)
    assignments = [assigned(experiment, f"user-{at}") for at in range(1_000)]
    assert {(each.variant.name, each.share, each.reason) for each in assignments} == {("a", 1.0, "split")}
    rows = [PredictionRow(f"user-{at}") for at in range(1_000)]
    assert list(first_assignments(rows, assignments)) == []


@given(unit=UNITS, steps=st.lists(st.sampled_from([0.01, 0.05, 0.25, 0.5]), min_size=2, max_size=2))
def test_a_canary_that_widens_moves_nobody(unit, steps):
    def at_step(share: float) -> ExperimentRevision:
        equal = [VariantAllocation(name, name, 1 / 3) for name in "abc"]
        return revision(variants=equal, coverage=min(1.0, 3 * share))

    low, high = sorted(steps)
    before = variant_of(at_step(low), unit)
    assert before is None or variant_of(at_step(high), unit) == before


def test_the_split_of_100_000_units_is_that_of_the_counted_shares():
    variants = [VariantAllocation("a", "v1", 0.5), VariantAllocation("b", "v2", 0.3), VariantAllocation("c", "v3", 0.2)]
    in_force = InForce([revision(variants=variants, coverage=0.37)])
    assignments = [in_force.assign(PredictionRow(f"customer-{at}")) for at in range(100_000)]
    counts = Counter(each.variant.name for each in assignments if each.variant)
    shares = {each.variant.name: each.share for each in assignments if each.variant}
    total = sum(counts.values())
    expected = {name: total * share / sum(shares.values()) for name, share in shares.items()}
    chi_square = sum((counts[name] - rows) ** 2 / rows for name, rows in expected.items())
    assert chi_square < 13.8  # two degrees of freedom, p = .001
    assert total / 100_000 == pytest.approx(sum(shares.values()), abs=0.005)


# First assignments


def ramped(weight: float, epoch: int) -> ExperimentRevision:
    """Half of the units or so, with another weight of `b` in each epoch."""
    variants = [VariantAllocation("a", "v1", 1 - weight), VariantAllocation("b", "v2", weight)]
    return revision(variants=variants, epoch=epoch, sticky=epoch > 1)


def test_a_ramp_moves_nobody_who_is_in_and_would_move_two_fifths_without_first_assignments():
    rows = [PredictionRow(f"user-{at}") for at in range(10_000)]
    before = InForce([ramped(0.1, 1)])
    assignments = [before.assign(row) for row in rows[:5_000]]
    known = {UnitKey("e", row.unit): None for row in rows} | dict(first_assignments(rows[:5_000], assignments))
    after = InForce([ramped(0.5, 2)])
    assert {after.unit_key(row) for row in rows} == set(known)
    for row, first in zip(rows, assignments, strict=False):
        kept = after.assign(row, known)
        assert (kept.variant.name, kept.epoch, kept.probability) == (first.variant.name, 1, first.probability)
        assert (kept.reason, kept.share, kept.excluded) == ("split", 0.5, False)
    fresh = [after.assign(row, known) for row in rows[5_000:]]
    assert {(each.epoch, each.probability) for each in fresh} == {(2, 0.5)}
    unsticky = InForce([msgspec.structs.replace(ramped(0.5, 2), sticky=False)])
    moved = sum(
        unsticky.assign(row).variant.name != each.variant.name for row, each in zip(rows, assignments, strict=False)
    )
    assert moved / 5_000 == pytest.approx(0.4, abs=0.03)


def test_a_unit_whose_first_assignment_is_unreadable_gets_the_champion_and_does_not_count():
    in_force = InForce([ramped(0.5, 2)])
    rows = [PredictionRow(f"user-{at}") for at in range(100)]
    torn = dict.fromkeys([UnitKey("e", row.unit) for row in rows], FirstAssignment("gone", 1, 0.5))
    for known in ({}, torn):
        assignments = [in_force.assign(row, known) for row in rows]
        assert {(each.reason, each.variant.name, each.excluded) for each in assignments} == {
            ("assignment unreadable", "a", True)
        }
        assert list(first_assignments(rows, assignments)) == []


def test_only_units_that_an_allocation_may_have_moved_are_looked_up():
    row = PredictionRow("user-1")
    assert InForce([ramped(0.1, 1)]).unit_key(row) is None
    assert InForce([ramped(0.5, 2)]).unit_key(PredictionRow("")) is None
    assert InForce([msgspec.structs.replace(ramped(0.5, 2), status="paused")]).unit_key(row) is None
    forced = msgspec.structs.replace(ramped(0.5, 2), forced={"user-1": "b"})
    assert InForce([forced]).unit_key(row) is None


def test_units_of_experiments_that_stopped_lately_are_deleted():
    ages = {"running": None, "just": 30.0, "lately": 61.0, "yesterday": 86_000.0, "long ago": 90_000.0}
    experiments = [revision(name=name, stopped_at=age and 1e6 - age) for name, age in ages.items()]
    assert stopped_lately(experiments, 1e6) == ["lately", "yesterday"]


@pytest.mark.parametrize("rules", [[], [TargetingRule(key="country", equals="NZ")]])
def test_a_unit_that_a_holdout_leaves_out_says_so_beside_other_experiments(rules):
    first = revision(name="e-1", holdout=0.5, namespace=Namespace("n", 0.0, 0.5))
    second = revision(name="e-2", namespace=Namespace("n", 0.5, 1.0), targeting=rules)
    units = [str(number) for number in range(200)]
    held = [unit for unit in units if assigned(first, unit).reason == "holdout"]
    reasons = Counter(InForce([first, second]).assign(PredictionRow(unit)).reason for unit in held)
    assert reasons["holdout"] > 20
    assert set(reasons) <= {"holdout", "split"}, "the second experiment has no holdout"
