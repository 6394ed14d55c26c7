"""What an experiment may declare of its units and of the way in which it runs, and which ones could meet."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.experiments import (
    Bandit,
    Canary,
    ExperimentRevision,
    Namespace,
    NewExperiment,
    TargetingRule,
    VariantAllocation,
)
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.experiments import draft, started
from services.ab_router.domain.hashing import in_namespace
from services.ab_router.domain.overlaps import overlaps, unit_share
from shared.errors import InvalidField

HALVES = [VariantAllocation("old", "v1", 0.5), VariantAllocation("new", "v2", 0.5)]
SHADOW = [VariantAllocation("old", "v1", 1.0), VariantAllocation("new", "v2", 0.0)]
VERSIONS = {
    name: ModelVersion(model="m", version=name, task="binary", classes=["no", "yes"], inputs=[], registered_at=1.0)
    for name in ("v1", "v2", "champion")
}


def new(**changes: object) -> NewExperiment:
    return msgspec.structs.replace(NewExperiment(name="e", model="m", variants=HALVES), **changes)


def drafted(**changes: object) -> ExperimentRevision:
    return draft(new(**changes), VERSIONS, seed="seed", now=10.0)


def running(name: str, **changes: object) -> ExperimentRevision:
    return started(drafted(name=name, **changes), 20.0)


def arms(count: int) -> list[VariantAllocation]:
    return [VariantAllocation(f"arm-{at}", "v1", 1 / count) for at in range(count)]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"namespace": Namespace("a b")}, ["namespace.name"]),
        ({"namespace": Namespace("n", 0.5, 0.5)}, ["namespace"]),
        ({"namespace": Namespace("n", 0.6, 0.5)}, ["namespace"]),
        ({"namespace": Namespace("n", -0.1, 0.5)}, ["namespace"]),
        ({"namespace": Namespace("n", 0.5, 1.1)}, ["namespace"]),
        ({"namespace": Namespace("n", float("nan"), 1.0)}, ["namespace"]),
        ({"namespace": Namespace("n", 0.0001, 0.0002)}, ["namespace"]),
        ({"namespace": Namespace("n", 0.0, 0.0005)}, ["namespace"]),
        ({"holdout": -0.1}, ["holdout"]),
        ({"holdout": 0.6}, ["holdout"]),
        ({"holdout": 0.0001}, ["holdout"]),
        ({"holdout": float("nan")}, ["holdout"]),
        ({"owner": "x" * 201}, ["owner"]),
        ({"reason": "x" * 501}, ["reason"]),
        ({"changed_by": "x" * 201}, ["changed_by"]),
        ({"forced": {"tester": "other"}}, ["forced.tester"]),
        ({"forced": {"": "new"}}, ["forced."]),
        ({"forced": {"x" * 1_001: "new"}}, [f"forced.{'x' * 99}…"]),
        ({"forced": {f"u-{at}": "new" for at in range(101)}}, ["forced"]),
        ({"targeting": [TargetingRule("a", equals=1)] * 21}, ["targeting"]),
        ({"targeting": [TargetingRule("a")]}, ["targeting[0]"]),
        ({"targeting": [TargetingRule("a", equals=None, matches="b")]}, ["targeting[0]"]),
        ({"targeting": [TargetingRule("a", equals=1), TargetingRule("", low=1.0)]}, ["targeting[1].key"]),
        ({"targeting": [TargetingRule("a", low=2.0, high=1.0)]}, ["targeting[0].low"]),
        ({"targeting": [TargetingRule("a", high=float("inf"))]}, ["targeting[0].high"]),
        ({"targeting": [TargetingRule("a", one_of=[])]}, ["targeting[0].one_of"]),
        ({"targeting": [TargetingRule("a", one_of=list(range(1_001)))]}, ["targeting[0].one_of"]),
        ({"targeting": [TargetingRule("a", one_of=["x" * 1_001])]}, ["targeting[0].one_of"]),
        ({"targeting": [TargetingRule("a", equals="x" * 1_001)]}, ["targeting[0].equals"]),
        ({"targeting": [TargetingRule("a", matches="(")]}, ["targeting[0].matches"]),
        ({"targeting": [TargetingRule("a", matches="a" * 201)]}, ["targeting[0].matches"]),
        ({"targeting": [TargetingRule("a", percent=0.0)]}, ["targeting[0].percent"]),
        ({"targeting": [TargetingRule("a", percent=100.1)]}, ["targeting[0].percent"]),
        ({"shadow": True}, ["variants[0].weight", "variants[1].weight"]),
        ({"shadow": True, "variants": SHADOW, "champion": "new"}, ["variants[0].weight", "variants[1].weight"]),
        ({"variants": SHADOW}, ["variants[1].weight"]),
        ({"canary": Canary([])}, ["canary.steps"]),
        ({"canary": Canary([0.1] * 21)}, ["canary.steps"]),
        ({"canary": Canary([0.2, 0.1])}, ["canary.steps"]),
        ({"canary": Canary([0.1, 0.1])}, ["canary.steps"]),
        ({"canary": Canary([0.0, 0.1])}, ["canary.steps"]),
        ({"canary": Canary([0.5, 1.1])}, ["canary.steps"]),
        ({"canary": Canary([float("nan")])}, ["canary.steps"]),
        ({"canary": Canary([0.3, 0.6, 0.7])}, ["canary.steps[1]"]),
        ({"canary": Canary([0.00001, 0.5])}, ["canary.steps[0]"]),
        ({"canary": Canary([0.00016, 0.5])}, ["canary.steps[0]"]),
        ({"canary": Canary(), "variants": arms(5)}, ["canary.steps[2]"]),
        ({"canary": Canary(), "coverage": 0.5001}, ["coverage"]),
        (
            {"canary": Canary(), "variants": [VariantAllocation("a", "v1", 0.9), VariantAllocation("b", "v2", 0.1)]},
            ["variants[0].weight", "variants[1].weight"],
        ),
        ({"canary": Canary(rows_per_step=99)}, ["canary.rows_per_step"]),
        ({"canary": Canary(seconds_per_step=0.5)}, ["canary.seconds_per_step"]),
        ({"bandit": Bandit(floor=0.005)}, ["bandit.floor"]),
        ({"bandit": Bandit(floor=0.5)}, ["bandit.floor"]),
        ({"bandit": Bandit(floor=0.34), "variants": arms(3)}, ["bandit.floor"]),
        ({"bandit": Bandit(rows_per_arm=1)}, ["bandit.rows_per_arm"]),
        ({"bandit": Bandit(seconds_per_step=float("nan"))}, ["bandit.seconds_per_step"]),
        (
            {"bandit": Bandit(0.2), "variants": [VariantAllocation("a", "v1", 0.9), VariantAllocation("b", "v2", 0.1)]},
            ["variants[1].weight"],
        ),
        ({"canary": Canary(), "bandit": Bandit()}, ["bandit"]),
        ({"shadow": True, "variants": SHADOW, "bandit": Bandit()}, ["bandit", "variants[1].weight"]),
        ({"variants": [HALVES[0], VariantAllocation("new", "v2", 0.5, "newest")]}, ["variants[1].alias"]),
        ({"variants": [HALVES[0], VariantAllocation("new", "v9", 0.5)]}, ["variants[1].version"]),
        ({"variants": [VariantAllocation("a" * 200, "v9", 0.0001)] * 10_000}, ["variants", "variants"]),
    ],
)
def test_a_placement_that_can_not_be_is_refused_by_field(changes, fields):
    with pytest.raises(InvalidField) as refused:
        draft(new(**changes), VERSIONS, seed="seed", now=10.0)
    assert [error.field for error in refused.value.errors] == fields
    assert all(error.field in refused.value.detail for error in refused.value.errors)


def test_a_placement_is_kept_as_it_was_declared():
    declared = {
        "namespace": Namespace("pricing", 0.25, 0.75),
        "targeting": [
            TargetingRule("country", one_of=["DE", "AT"]),
            TargetingRule("age", low=18.0),
            TargetingRule("plan", matches="pro.*"),
            TargetingRule("tenant", percent=12.5),
            TargetingRule("beta", equals=False),
        ],
        "forced": {"tester": "new"},
        "holdout": 0.003,
        "unit_missing": "champion",
        "owner": "team",
        "bandit": Bandit(0.1),
    }
    revision = drafted(**declared)
    assert {name: getattr(revision, name) for name in declared} == declared


def test_shadow_tells_agreement_where_an_outcome_may_depend_on_the_answer():
    assert drafted(shadow=True, variants=SHADOW, shadow_share=0.2).shadow_share == 0.2


@pytest.mark.parametrize(("count", "coverage"), [(2, 0.02), (3, 0.03), (10, 0.1)])
def test_a_canary_s_allocation_follows_from_its_first_step(count, coverage):
    revision = drafted(canary=Canary([0.01, 0.1]), variants=arms(count))
    assert (revision.coverage, revision.step) == (pytest.approx(coverage), 0)
    assert {variant.weight for variant in revision.variants} == {1 / count}


def test_the_last_step_of_a_canary_is_all_units_at_most():
    assert drafted(canary=Canary([0.25, 1.0]), variants=arms(3)).coverage == 0.75


# Experiments beside each other


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (None, None, True),
        (Namespace("n", 0.0, 0.5), None, True),
        (Namespace("n", 0.0, 0.5), Namespace("n", 0.5, 1.0), False),
        (Namespace("n", 0.5, 1.0), Namespace("n", 0.0, 0.5), False),
        (Namespace("n", 0.0, 0.501), Namespace("n", 0.5, 1.0), True),
        (Namespace("n", 0.2, 0.3), Namespace("n"), True),
        (Namespace("n", 0.0, 0.5), Namespace("other", 0.5, 1.0), True),
    ],
)
def test_experiments_share_no_unit_only_in_parts_of_one_namespace_that_do_not_meet(first, second, shared):
    (overlap,) = overlaps(drafted(namespace=first), [running("f", namespace=second)])
    assert (overlap.experiment, overlap.status, overlap.shares_units) == ("f", "running", shared)


@given(bounds=st.lists(st.integers(0, 1_000), min_size=4, max_size=4, unique=True), unit=st.text(min_size=1))
def test_no_unit_is_in_two_parts_that_do_not_meet(bounds, unit):
    start, end, other_start, other_end = (bound / 1_000 for bound in sorted(bounds))
    parts = [Namespace("n", start, end), Namespace("n", other_start, other_end)]
    (overlap,) = overlaps(drafted(namespace=parts[0]), [running("f", namespace=parts[1])])
    assert not overlap.shares_units
    assert sum(in_namespace(unit, (part.name, part.start, part.end)) for part in parts) <= 1


def test_only_other_experiments_in_force_on_the_model_are_beside_one():
    others = [drafted(name="draft"), running("e"), running("f"), msgspec.structs.replace(running("g"), model="n")]
    stopped = [msgspec.structs.replace(running("h"), status=status) for status in ("stopped", "paused", "decided")]
    found = overlaps(drafted(), [*others, *stopped])
    assert [(overlap.experiment, overlap.status) for overlap in found] == [
        ("f", "running"),
        ("h", "paused"),
        ("h", "decided"),
    ]


def test_the_share_of_an_experiment_counts_namespace_coverage_and_holdout():
    assert unit_share(running("f")) == 1.0
    assert unit_share(running("f", coverage=0.5, namespace=Namespace("n", 0.2, 0.6), holdout=0.1)) == 0.18
