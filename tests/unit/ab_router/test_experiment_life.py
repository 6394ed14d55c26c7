"""How an experiment goes from revision to revision: states, allocations and who keeps a variant."""

from collections.abc import Iterable
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import (
    Bandit,
    Canary,
    Evidence,
    ExperimentChange,
    ExperimentRevision,
    Namespace,
    NewExperiment,
    TargetingRule,
    VariantAllocation,
)
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.allocation import moves_units
from services.ab_router.domain.assignment import InForce, UnitKey
from services.ab_router.domain.experiments import (
    decided,
    declaration_of,
    draft,
    paused,
    ramped,
    started,
    stopped,
    with_champion,
)
from services.ab_router.domain.hashing import bucket
from services.ab_router.domain.history import at_time, history_of
from services.ab_router.domain.promotion import better_challenger, promotion_of
from services.ab_router.domain.revising import revised
from services.ab_router.errors import DesignFixedError, ExperimentStateError, NotDecidedError
from shared.errors import InvalidField

HALVES = [VariantAllocation("old", "v1", 0.5), VariantAllocation("new", "v2", 0.5)]
UNITS = [f"user-{number}" for number in range(4_000)]
SAID = ExperimentChange("agreed", "ann", None, "we know")


def assign(revision: ExperimentRevision, unit: str) -> VariantAllocation | None:
    """The variant of a unit of which no earlier assignment is kept."""
    return InForce([revision]).assign(PredictionRow(unit), {UnitKey(revision.name, unit): None}).variant


def version(name: str, **changes: object) -> ModelVersion:
    known = ModelVersion(model="m", version=name, task="binary", classes=["no", "yes"], inputs=[], registered_at=1.0)
    return msgspec.structs.replace(known, **changes)


VERSIONS = {name: version(name) for name in ("v1", "v2", "v3")} | {"champion": version("v1")}


def new(**changes: object) -> NewExperiment:
    return msgspec.structs.replace(NewExperiment(name="e", model="m", variants=HALVES), **changes)


def drafted(**changes: object) -> ExperimentRevision:
    return draft(new(**changes), VERSIONS, seed="seed", now=10.0)


def running(**changes: object) -> ExperimentRevision:
    return started(drafted(**changes), 20.0, versions=VERSIONS)


def verdict(challenger: str = "new", status: str = "challenger better", number: int = 1) -> Evidence:
    return Evidence(
        experiment="e", number=number, challenger=challenger, status=status, sentence="It is better.", at=30.0
    )


def arms(*weights: float) -> list[VariantAllocation]:
    return [VariantAllocation(f"arm-{at}", f"v{at + 1}", weight) for at, weight in enumerate(weights)]


# States


def test_every_change_says_who_made_it_why_and_against_what():
    for revision in (started(drafted(), 20.0, SAID), paused(running(), 20.0, SAID), stopped(running(), 20.0, SAID)):
        assert (revision.reason, revision.changed_by, revision.override) == ("agreed", "ann", "we know")
    assert stopped(running(), 20.0, SAID, verdict()).evidence == verdict()
    later = paused(started(drafted(), 20.0, SAID), 30.0)
    assert (later.reason, later.changed_by, later.override) == ("", "", "")


def test_times_never_go_back_whatever_another_router_s_clock_says():
    assert [paused(running(), now).changed_at for now in (5.0, 25.0)] == [20.0, 25.0]


def test_a_paused_experiment_goes_on_in_the_same_epoch_as_running_or_decided():
    waiting = paused(running(), 30.0)
    assert (waiting.status, waiting.epoch, waiting.revision) == ("paused", 1, 3)
    assert (started(waiting, 40.0).status, started(waiting, 40.0).started_at) == ("running", 20.0)
    judged = decided(waiting, verdict(), 40.0)
    assert judged.status == "paused"
    assert started(judged, 50.0).status == "decided"


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        (lambda revision: started(revision, 90.0, SAID, VERSIONS), {"draft", "paused"}),
        (lambda revision: paused(revision, 90.0), {"running", "decided"}),
        (lambda revision: stopped(revision, 90.0), {"running", "paused", "decided"}),
        (lambda revision: ramped(revision, None, 0.5, 90.0), {"running", "paused", "decided"}),
        (lambda revision: decided(revision, verdict(number=9), 90.0), {"running", "paused", "decided"}),
        (
            lambda revision: revised(revision, new(owner="bob"), VERSIONS, 90.0),
            {"draft", "running", "paused", "decided"},
        ),
    ],
)
def test_a_change_that_a_state_does_not_allow_is_refused_with_the_state(change, allowed):
    states = [
        drafted(),
        running(),
        paused(running(), 30.0),
        decided(running(), verdict(), 30.0),
        stopped(running(), 30.0),
    ]
    for revision in states:
        if revision.status in allowed:
            assert change(revision).revision == revision.revision + 1
        else:
            with pytest.raises(ExperimentStateError, match=f"experiment e is {revision.status}"):
                change(revision)


def test_the_alias_is_the_champion_at_the_start_and_pinned_from_then_on():
    aliased = [VariantAllocation("old", "champion", 0.5), HALVES[1]]
    waiting = drafted(variants=aliased)
    assert waiting.variants[0] == VariantAllocation("old", "champion", 0.5, "champion")
    promoted = VERSIONS | {"champion": version("v3")}
    revision = started(waiting, 20.0, versions=promoted)
    assert revision.variants == [VariantAllocation("old", "v3", 0.5, "champion"), HALVES[1]]
    assert revision.model_champion == "v3"
    later = with_champion(revision, "v2", 30.0)
    assert (later.variants, later.model_champion, later.epoch) == (revision.variants, "v2", 2)
    assert "v2" in later.reason


def test_a_champion_that_does_not_suit_the_declaration_any_more_refuses_the_start_by_field():
    aliased = drafted(variants=[VariantAllocation("old", "champion", 0.5), HALVES[1]])
    other = VERSIONS | {"v9": version("v9", classes=["a", "b"]), "champion": version("v9", classes=["a", "b"])}
    with pytest.raises(InvalidField) as refused:
        started(aliased, 20.0, versions=other)
    assert [error.field for error in refused.value.errors] == ["variants"]


def test_the_label_range_of_an_alias_is_that_of_the_version_it_stands_for_at_the_start():
    def regression(name: str, high: float) -> ModelVersion:
        return version(name, task="regression", classes=[], target_range=(0.0, high))

    versions = {"v2": regression("v2", 1.0), "v1": regression("v1", 1.0), "champion": regression("v1", 1.0)}
    declared = new(metric="absolute_error", variants=[VariantAllocation("old", "champion", 0.5), HALVES[1]])
    waiting = draft(declared, versions, seed="s", now=1.0)
    assert waiting.label_range is None
    grown = versions | {"v1": regression("v1", 5.0), "champion": regression("v1", 5.0)}
    assert started(waiting, 2.0, versions=grown).label_range == (-5.0, 10.0)


def test_a_revision_of_an_earlier_release_notes_the_champion_without_an_epoch():
    old = msgspec.structs.replace(running(), model_champion="")
    assert with_champion(old, "v1", 30.0).epoch == old.epoch


def test_an_experiment_is_decided_once_each_challenger_has_a_verdict():
    first = decided(running(variants=arms(0.4, 0.3, 0.3)), verdict("arm-1"), 30.0)
    assert (first.status, list(first.verdicts), first.evidence) == ("running", ["arm-1"], verdict("arm-1"))
    second = decided(first, verdict("arm-2", "champion better", 2), 40.0)
    assert (second.status, list(second.verdicts)) == ("decided", ["arm-1", "arm-2"])
    assert decided(second, verdict("arm-2", "champion better", 2), 50.0) is second
    for challenger in ("arm-0", "other"):
        with pytest.raises(InvalidField, match=r"challenger is .* expected one of \['arm-1', 'arm-2'\]"):
            decided(first, verdict(challenger), 50.0)


# Allocations


def moved(before: ExperimentRevision, after: ExperimentRevision, units: Iterable[str] = UNITS) -> list[str]:
    """The units that were in and would get another variant, or none."""
    pairs = [(unit, assign(before, unit), assign(after, unit)) for unit in units]
    return [unit for unit, old, variant in pairs if old is not None and (variant is None or variant.name != old.name)]


@pytest.mark.parametrize(
    ("weights", "coverage", "new_weights", "new_coverage", "moves"),
    [
        ((0.5, 0.5), 0.2, None, 1.0, False),
        ((0.5, 0.5), 1.0, None, 0.2, True),
        ((0.9, 0.1), 1.0, (0.5, 0.5), None, True),
        ((0.9, 0.1), 0.1, (0.9, 0.1), 0.1, False),
        ((0.5, 0.5), 0.1, (0.45, 0.55), 0.9, False),
        ((0.5, 0.5), 0.1, (0.55, 0.45), 0.9, True),
        ((0.5, 0.5), 0.1, (0.5005, 0.4995), None, True),
        ((0.25, 0.25, 0.5), 0.5, (0.25, 0.25, 0.5), 0.75, False),
        ((0.2, 0.4, 0.4), 0.5, (0.3, 0.35, 0.35), 1.0, True),
        ((0.5, 0.5), 1.0, (0.500001, 0.499999), None, True),
        ((0.5, 0.5), 0.5, (0.49999, 0.50001), 0.6, False),
    ],
)
def test_a_ramp_is_sticky_where_the_hash_would_move_a_unit_that_is_in(
    weights, coverage, new_weights, new_coverage, moves
):
    before = running(variants=arms(*weights), coverage=coverage)
    named = None if new_weights is None else {f"arm-{at}": weight for at, weight in enumerate(new_weights)}
    after = allocated(before, named, new_coverage)
    steps = [moves_one(before, after, step) for step in range(10_000)]
    assert any(steps) == moves == moves_units(before.variants, before.coverage, after.variants, after.coverage)
    if new_weights in (None, weights) or coverage == 1.0:
        assert ramped(before, named, new_coverage, 30.0).sticky == moves
    if not moves:
        assert moved(before, after) == []


def allocated(
    before: ExperimentRevision, weights: dict[str, float] | None, coverage: float | None
) -> ExperimentRevision:
    """A revision with another allocation, whether an experiment may change to it or not."""
    variants = [replace(arm, weight=weights[arm.name]) for arm in before.variants] if weights else before.variants
    return replace(before, variants=variants, coverage=before.coverage if coverage is None else coverage)


def moves_one(before: ExperimentRevision, after: ExperimentRevision, step: int) -> bool:
    """Whether a unit in this step of the hash was in and gets another variant, or none: the ranges one by one."""

    def variant_of(revision: ExperimentRevision) -> int | None:
        start = 0.0
        for at, variant in enumerate(revision.variants):
            if start <= step / 10_000 < start + revision.coverage * variant.weight:
                return at
            start += variant.weight
        return None

    return variant_of(before) is not None and variant_of(before) != variant_of(after)


@pytest.fixture(scope="module")
def unit_of_step() -> dict[int, str]:
    """A unit in every 25th step of the hash: twentieths of twentieths of the units begin there."""
    units: dict[int, str] = {}
    numbers = count()
    while len(units) < 400:
        unit = f"user-{next(numbers)}"
        step = round((bucket("seed", unit) or 0.0) * 10_000)
        if step % 25 == 0:
            units.setdefault(step, unit)
    return units


@settings(deadline=None)
@given(
    share=st.integers(1, 19),
    new_share=st.integers(1, 19),
    coverages=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_exactly_the_ramps_that_move_a_unit_are_sticky(unit_of_step, share, new_share, coverages):
    before = running(variants=arms(1 - share / 20, share / 20), coverage=coverages[0] / 20)
    weights = {"arm-0": 1 - new_share / 20, "arm-1": new_share / 20}
    after = allocated(before, weights, coverages[1] / 20)
    expected = {unit for step, unit in unit_of_step.items() if moves_one(before, after, step)}
    assert moves_units(before.variants, before.coverage, after.variants, after.coverage) == bool(expected)
    assert set(moved(before, after, unit_of_step.values())) == expected


def test_an_experiment_stays_sticky_whatever_allocations_follow():
    sticky = ramped(running(), {"old": 0.9, "new": 0.1}, None, 30.0)
    back = ramped(sticky, {"old": 0.5, "new": 0.5}, None, 40.0)
    assert (sticky.sticky, back.sticky, back.epoch) == (True, True, 3)


def test_a_ramp_opens_an_epoch_and_the_same_allocation_does_not():
    before = running(coverage=0.2)
    wider = ramped(before, None, 0.4, 30.0, SAID)
    assert (wider.epoch, wider.coverage, wider.revision, wider.status) == (2, 0.4, 3, "running")
    assert (wider.reason, wider.changed_by) == ("agreed", "ann")
    assert ramped(before, {"old": 0.5, "new": 0.5}, 0.2, 30.0) is before


@pytest.mark.parametrize(
    ("weights", "coverage", "fields"),
    [
        ({"old": 0.5}, None, ["weights.new"]),
        ({"old": 0.5, "new": 0.4}, None, ["weights"]),
        ({"old": 0.5, "new": 0.4, "x": 0.1}, None, ["weights.x"]),
        ({"old": 1.0, "new": 0.0}, None, ["weights.new"]),
        ({"old": float("nan"), "new": 0.5}, None, ["weights.old"]),
        ({"x" * 1_000: 0.5, "y": 0.5}, None, [f"weights.{'x' * 99}…"]),
        (None, 0.0, ["coverage"]),
        (None, 1.5, ["coverage"]),
        (None, 0.0001, ["weights.old", "weights.new"]),
        ({"old": 0.95, "new": 0.05}, 0.001, ["weights.new"]),
    ],
)
def test_an_allocation_that_the_hash_can_not_split_is_refused_by_field(weights, coverage, fields):
    with pytest.raises(InvalidField) as refused:
        ramped(running(), weights, coverage, 30.0)
    assert [error.field for error in refused.value.errors] == fields


def test_weights_change_only_where_all_units_have_taken_part():
    widened = ramped(running(coverage=0.2), None, 1.0, 30.0)
    narrowed = ramped(ramped(running(), None, 0.5, 30.0), None, 1.0, 40.0)
    for revision in (running(coverage=0.2), widened, narrowed):
        with pytest.raises(InvalidField, match="coverage has left units out"):
            ramped(revision, {"old": 0.9, "new": 0.1}, None, 50.0)
    assert ramped(running(), {"old": 0.9, "new": 0.1}, 0.5, 30.0).was_partial


def test_a_canary_begins_at_its_first_step_and_no_step_moves_a_unit():
    revision = running(variants=arms(1 / 3, 1 / 3, 1 / 3), canary=Canary([0.01, 0.05, 0.25, 0.5]))
    assert (revision.step, revision.coverage) == (0, pytest.approx(0.03))
    for step, coverage in enumerate((0.15, 0.75, 1.0), start=1):
        later = ramped(revision, None, coverage, 30.0, step=step)
        assert (later.step, later.epoch, later.sticky) == (step, revision.epoch + 1, False)
        assert moved(revision, later) == []
        revision = later


def test_in_shadow_the_champion_answers_all_and_only_the_coverage_changes():
    alone = [VariantAllocation("old", "v1", 1.0), VariantAllocation("new", "v2", 0.0)]
    revision = running(variants=alone, shadow=True, coverage=0.5)
    names = {variant.name for unit in UNITS if (variant := assign(revision, unit))}
    assert names == {"old"}
    assert ramped(revision, None, 1.0, 30.0).coverage == 1.0
    with pytest.raises(InvalidField, match="weights are fixed"):
        ramped(revision, {"old": 0.5, "new": 0.5}, None, 30.0)


# Another declaration


def test_a_draft_may_become_anything_and_keeps_its_seed_and_place():
    other = new(
        metric="brier", variants=arms(0.5, 0.25, 0.25), coverage=0.4, owner="bob", reason="better", changed_by="ann"
    )
    revision = revised(drafted(), other, VERSIONS, 20.0)
    assert (revision.metric, revision.coverage, revision.owner, revision.champion) == ("brier", 0.4, "bob", "arm-0")
    assert (revision.revision, revision.status, revision.seed, revision.epoch) == (2, "draft", "seed", 0)
    assert (revision.reason, revision.changed_by, revision.changed_at) == ("better", "ann", 20.0)


def test_the_same_declaration_is_no_change():
    for revision in (drafted(), running(), running(coverage=0.5)):
        assert revised(revision, declaration_of(revision), VERSIONS, 30.0) is revision


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"metric": "brier"}, ["metric"]),
        (
            {"metric": "brier", "alpha": 0.1, "window_s": 5.0, "auto_stop": False},
            ["metric", "window_s", "alpha", "auto_stop"],
        ),
        ({"coverage": 0.5}, ["coverage"]),
        ({"variants": [HALVES[0], VariantAllocation("new", "v3", 0.5)]}, ["variants"]),
        ({"variants": [VariantAllocation("old", "v1", 0.6), VariantAllocation("new", "v2", 0.4)]}, ["variants"]),
        ({"variants": arms(0.5, 0.25, 0.25), "champion": "arm-0"}, ["champion", "variants"]),
        ({"champion": "new"}, ["champion"]),
        ({"canary": Canary()}, ["variants", "coverage", "canary"]),
    ],
)
def test_what_is_fixed_at_the_start_can_not_be_replaced_and_is_named(changes, fields):
    with pytest.raises(DesignFixedError) as refused:
        revised(running(), new(**changes), VERSIONS, 30.0)
    named = [error.field for error in refused.value.errors]
    assert named == [field for field in named if field in fields]
    assert set(fields) - set(named) <= {"variants", "coverage"}
    assert all(field in refused.value.detail for field in named)


def test_a_started_experiment_may_change_owner_testers_and_fallback_in_the_same_epoch():
    revision = revised(running(), new(owner="bob", forced={"tester": "new"}, fallback_value=0.3), VERSIONS, 30.0)
    assert (revision.owner, revision.forced, revision.fallback_value) == ("bob", {"tester": "new"}, 0.3)
    assert (revision.epoch, revision.status, revision.started_at) == (1, "running", 20.0)


@pytest.mark.parametrize(
    "changes",
    [{"namespace": Namespace("n", 0.0, 0.5)}, {"holdout": 0.1}, {"targeting": [TargetingRule("country", equals="DE")]}],
)
def test_other_units_that_take_part_open_an_epoch(changes):
    assert revised(running(), new(**changes), VERSIONS, 30.0).epoch == 2


def test_the_weights_of_a_schedule_or_a_bandit_are_its_own_and_no_difference():
    canary = running(canary=Canary([0.1, 0.5]))
    later = ramped(canary, None, 1.0, 30.0, step=1)
    for declared in (new(canary=Canary([0.1, 0.5])), declaration_of(later)):
        assert revised(later, declared, VERSIONS, 40.0) is later
    bandit = ramped(running(bandit=Bandit()), {"old": 0.2, "new": 0.8}, None, 30.0)
    assert revised(bandit, new(bandit=Bandit()), VERSIONS, 40.0) is bandit


def test_an_alias_that_was_pinned_is_no_difference():
    aliased = [VariantAllocation("old", "champion", 0.5), HALVES[1]]
    revision = started(drafted(variants=aliased), 20.0, versions=VERSIONS)
    promoted = VERSIONS | {"champion": version("v3")}
    for variants in (aliased, HALVES, revision.variants):
        assert revised(revision, new(variants=variants), promoted, 30.0) is revision


# Promotion


def test_the_challenger_that_a_verdict_names_as_better_is_promoted():
    for status in ("challenger better", "no worse"):
        judged = decided(running(), verdict(status=status), 30.0)
        assert better_challenger(judged, "", "").version == "v2"
    said = promotion_of(HALVES[1], SAID, verdict(), "e")
    assert (said.version, said.experiment, said.verdict, said.evidence) == ("v2", "e", 1, "It is better.")
    assert (said.changed_by, said.reason, said.override) == ("ann", "agreed", "we know")


def test_without_a_verdict_for_it_only_an_override_promotes_a_challenger():
    harmed = decided(running(), verdict(status="champion better"), 30.0)
    for revision in (running(), harmed):
        with pytest.raises(NotDecidedError, match="names a challenger as better"):
            better_challenger(revision, "", "")
        assert better_challenger(revision, "", "we know").name == "new"


def test_of_several_challengers_the_one_that_is_meant_is_named():
    three = running(variants=arms(0.4, 0.3, 0.3))
    with pytest.raises(NotDecidedError, match="name one of arm-1, arm-2"):
        better_challenger(three, "", "we know")
    one = decided(three, verdict("arm-2"), 30.0)
    assert better_challenger(one, "", "").name == better_challenger(one, "", "we know").name == "arm-2"
    with pytest.raises(NotDecidedError, match="names arm-1 as better"):
        better_challenger(one, "arm-1", "")
    assert better_challenger(one, "arm-1", "we know").name == "arm-1"
    both = decided(one, verdict("arm-1", "no worse", 2), 40.0)
    with pytest.raises(NotDecidedError, match="name one of arm-1, arm-2"):
        better_challenger(both, "", "")
    assert better_challenger(both, "arm-1", "").name == "arm-1"
    with pytest.raises(InvalidField, match="expected one of the challengers: arm-1, arm-2"):
        better_challenger(both, "arm-0", "")


def test_nothing_is_promoted_from_an_experiment_that_is_not_in_force():
    for revision in (drafted(), stopped(running(), 30.0)):
        with pytest.raises(ExperimentStateError, match=f"is {revision.status}"):
            better_challenger(revision, "", "we know")


# History


def test_a_history_says_how_each_revision_differs_from_the_one_before():
    first = drafted()
    second = started(first, 20.0, SAID, VERSIONS)
    third = ramped(second, {"old": 0.6, "new": 0.4}, 0.5, 30.0)
    entries = history_of([first, second, third])
    assert [entry.revision for entry in entries] == [first, second, third]
    changes = [{change.field: (change.before, change.after) for change in entry.changes} for entry in entries]
    assert changes[0] == {}
    assert changes[1] == {
        "epoch": (0, 1),
        "status": ("draft", "running"),
        "started_at": (None, 20.0),
        "model_champion": ("", "v1"),
    }
    assert changes[2] == {
        "coverage": (1.0, 0.5),
        "epoch": (1, 2),
        "sticky": (False, True),
        "was_partial": (False, True),
        "variants[0].weight": (0.5, 0.6),
        "variants[1].weight": (0.5, 0.4),
    }


def test_values_of_a_history_are_plain_json():
    first = drafted()
    second = revised(first, new(canary=Canary(), targeting=[TargetingRule("a", equals=1)]), VERSIONS, 20.0)
    (change,) = [change for change in history_of([first, second])[1].changes if change.field == "targeting"]
    assert (change.before, change.after) == ([], [{"key": "a", "equals": 1}])
    third = revised(second, new(variants=arms(0.5, 0.25, 0.25)), VERSIONS, 30.0)
    changed = {change.field: change for change in history_of([second, third])[1].changes}
    assert [variant["name"] for variant in changed["variants"].after] == ["arm-0", "arm-1", "arm-2"]


def test_the_revision_of_a_time_is_the_newest_then():
    revisions = [drafted(), running(), stopped(running(), 30.0)]
    found = [at_time(revisions, as_of) for as_of in (9.9, 10.0, 19.9, 20.0, 1e9)]
    assert found == [None, revisions[0], revisions[0], revisions[1], revisions[2]]


def test_a_stored_revision_of_the_first_release_is_read():
    document = b"""{"metric": "log_loss", "window_s": 60.0, "name": "e", "model": "m", "revision": 2, "epoch": 1,
        "status": "running", "seed": "s", "champion": "a", "changed_at": 2.0, "started_at": 2.0,
        "variants": [{"name": "a", "version": "v1", "weight": 0.5}, {"name": "b", "version": "v2", "weight": 0.5}]}"""
    revision = msgspec.json.decode(document, type=ExperimentRevision)
    assert (revision.namespace, revision.sticky, revision.verdicts, revision.auto_stop) == (None, False, {}, True)
    assert stopped(revision, 3.0).status == "stopped"
