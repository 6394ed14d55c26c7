"""Experiments whose allocation changes: effects, checks and shares are those of each epoch."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest

from contender.contracts.experiments import VariantAllocation
from contender.contracts.feedback_service import Results
from services.feedback_service.domain.snapshots import GroupSnapshot, PartitionSnapshot
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.worlds import Rows, World

RAMP = (0.01, 0.1, 0.5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def drawn(rng: np.random.Generator, n: int, share: float, rate: float, scores=(0.25, 0.25)) -> Rows:
    """Rows of an epoch: the challenger's with a chance of `share`, and outcomes at the rate of that time."""
    arm = (rng.random(n) < share).astype(int)
    return Rows(arm, np.array(scores)[arm], (rng.random(n) < rate).astype(float), rng.integers(0, BUCKETS, n))


def epoch_groups(world: World, rows: Rows, epoch: int, shares: Mapping[str, float]) -> list[GroupSnapshot]:
    """What workers publish of an epoch; a variant without rows has no group."""
    groups = world.snapshot(rows).groups
    return [
        msgspec.structs.replace(group, epoch=epoch, probability=shares[group.variant])
        for group in groups
        if group.cohorts[0].counts.predictions
    ]


def look(world: World, *epochs: Sequence[GroupSnapshot]) -> Results:
    status = world.snapshot(Rows(*[np.zeros(0, int)] * 4)).status
    return world.look_at([PartitionSnapshot(status, [group for groups in epochs for group in groups])]).results


def ramped(world: World, rng: np.random.Generator, rates: Sequence[float], n=6000, scores=(0.25, 0.25)):
    """The rows of a ramp and their groups, an epoch for each share."""
    rows = [drawn(rng, n, share, rate, scores) for share, rate in zip(RAMP, rates, strict=True)]
    groups = [
        epoch_groups(world, of, epoch, {"champion": 1.0 - share, "challenger": share})
        for epoch, (of, share) in enumerate(zip(rows, RAMP, strict=True))
    ]
    return rows, groups


def test_effects_are_combined_over_epochs_by_n_p_1_minus_p(rng):
    world = World(declared={"epoch": 2, "metric": "brier"})
    rows, groups = ramped(world, rng, (0.2, 0.3, 0.4), scores=(0.3, 0.25))
    effect = look(world, *groups).effects["challenger"]["brier"]
    differences = []
    for of in rows:
        loss = (of.score - of.outcome) ** 2
        differences.append(loss[of.arm == 1].mean() - loss[of.arm == 0].mean())
    realised = [(of.arm == 1).mean() for of in rows]
    by_realised = np.average(differences, weights=[share * (1.0 - share) for share in realised])
    by_recorded = np.average(differences, weights=[share * (1.0 - share) for share in RAMP])
    assert effect.estimate == pytest.approx(by_realised, rel=1e-9)
    assert effect.estimate == pytest.approx(by_recorded, abs=0.1 * (effect.high - effect.low))
    assert effect.n == 18_000


def test_a_base_rate_that_drifts_during_a_ramp_is_no_effect():
    """Pooled over the ramp, the arm that is large when outcomes are rare would seem better."""
    found, pooled = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        world = World(declared={"epoch": 2, "metric": "brier"})
        rows, groups = ramped(world, rng, (0.05, 0.2, 0.6), n=3000)
        results = look(world, *groups)
        effect = results.effects["challenger"]["brier"]
        found += effect.better is not None
        loss, arm = (np.concatenate([getattr(of, name) for of in rows]) for name in ("outcome", "arm"))
        pooled.append(loss[arm == 1].mean() - loss[arm == 0].mean())
        assert results.split.p > 0.001
    assert np.mean(pooled) > 0.15
    assert found <= 2  # 5 % of 20, and one more


def test_an_epoch_without_one_arm_changes_no_effect_and_no_check(rng):
    world, other = (World(declared={"epoch": 1}) for _ in range(2))
    both = epoch_groups(world, drawn(rng, 4000, 0.5, 0.25, (0.5, 0.25)), 1, {"champion": 0.5, "challenger": 0.5})
    champion_alone = epoch_groups(world, drawn(rng, 9000, 0.0, 0.6), 0, {"champion": 1.0, "challenger": 0.0})
    challenger_alone = epoch_groups(world, drawn(rng, 700, 1.0, 0.1), 2, {"champion": 0.0, "challenger": 1.0})
    one, more = look(world, both), look(other, champion_alone, both, challenger_alone)
    assert more.effects == one.effects
    assert (more.checks, more.split.p) == (one.checks, one.split.p)
    assert (more.verdict.status, more.verdict.sentence) == (one.verdict.status, one.verdict.sentence)
    assert [epoch.n["champion"] for epoch in more.epochs] == [9000, one.epochs[0].n["champion"], 0]


def test_rows_of_an_arm_that_is_alone_in_its_epoch_are_not_enough(rng):
    world = World(declared={"epoch": 1})
    alone = epoch_groups(world, drawn(rng, 9000, 0.0, 0.25), 0, {"champion": 1.0, "challenger": 0.0})
    few = epoch_groups(world, drawn(rng, 220, 0.8, 0.25), 1, {"champion": 0.2, "challenger": 0.8})
    results = look(world, alone, few)
    assert results.verdict.status == "withheld: too few"
    assert "champion has 9," not in results.verdict.sentence


def declared(shares: Mapping[str, float], epoch: int, coverage: float = 1.0) -> dict[str, object]:
    variants = [VariantAllocation(name, f"v-{name}", share) for name, share in shares.items()]
    return {"variants": variants, "epoch": epoch, "coverage": coverage}


def test_the_split_is_that_of_each_epoch(rng):
    world = World(declared=declared({"champion": 0.5, "challenger": 0.5}, 2))
    _, groups = ramped(world, rng, (0.25, 0.25, 0.25))
    assert look(world, *groups).split.p > 0.1
    broken = epoch_groups(world, drawn(rng, 6000, 0.2, 0.25), 1, {"champion": 0.9, "challenger": 0.1})
    assert look(world, groups[0], broken, groups[2]).split.p < 0.001


def test_the_split_is_in_steps_of_the_hash(rng):
    """A weight of .05 at a coverage of .001 gets one step of ten thousand, of eleven."""
    world = World(declared=declared({"champion": 0.95, "challenger": 0.05}, 0, coverage=0.001))
    shares = {"champion": 0.001, "challenger": 0.0001}
    groups = epoch_groups(world, drawn(rng, 12_000, 1 / 11, 0.25), 0, shares)
    assert look(world, groups).split.p > 0.1


def test_a_variant_that_gets_no_rows_breaks_the_split_of_now(rng):
    world = World(declared=declared({"champion": 0.5, "challenger": 0.5}, 0, coverage=0.2))
    groups = epoch_groups(world, drawn(rng, 3000, 0.0, 0.25), 0, {"champion": 0.1, "challenger": 0.1})
    assert look(world, groups).split.p < 0.001


def test_rows_that_record_no_chance_are_compared_with_the_declared_shares(rng):
    world = World(declared=declared({"champion": 0.9, "challenger": 0.1}, 0))
    groups = epoch_groups(world, drawn(rng, 6000, 0.1, 0.25), 0, {"champion": 1.0, "challenger": 1.0})
    assert look(world, groups).split.p > 0.1


def test_sticky_units_keep_their_epoch_and_the_shares_of_then(rng):
    """A unit's rows are of the epoch of its first one; its later rows come in while the weights are others."""
    world = World(declared=declared({"champion": 0.5, "challenger": 0.5}, 1))
    hashes, activity = rng.random(8000), rng.gamma(0.5, size=8000)
    first = {}
    counted: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    for epoch, limit in enumerate((0.9, 0.5)):
        for unit in rng.choice(8000, 12_000, p=activity / activity.sum()):
            arm, of_epoch = first.setdefault(unit, (int(hashes[unit] >= limit), epoch))
            counted[of_epoch].append((unit, arm))
    assert 0 < len(counted[1]) < len(counted[0])
    groups = []
    for epoch, share in enumerate((0.1, 0.5)):
        units, arms = np.array(counted[epoch]).T
        rows = Rows(arms, np.full(len(arms), 0.25), rng.binomial(1, 0.25, len(arms)).astype(float), units % BUCKETS)
        groups.append(epoch_groups(world, rows, epoch, {"champion": 1.0 - share, "challenger": share}))
    results = look(world, *groups)
    assert results.split.p > 0.05
    assert [epoch.n for epoch in results.epochs] == [
        {"champion": counts.count(0), "challenger": counts.count(1)}
        for counts in ([arm for _, arm in counted[epoch]] for epoch in (0, 1))
    ]


def test_weights_that_change_while_some_units_are_left_out_break_the_split(rng):
    """Of the units that an epoch adds, busy ones are in the arm whose range was left out before: no fair arms."""
    world = World(declared=declared({"champion": 0.5, "challenger": 0.5}, 1, coverage=0.2))
    hashes, activity = rng.random(4000), rng.gamma(0.8, size=4000)
    first: dict[int, tuple[int, int]] = {}
    rows: list[int] = []
    for epoch, starts in enumerate([{0: (0.0, 0.18), 1: (0.9, 0.92)}, {0: (0.0, 0.1), 1: (0.5, 0.6)}]):
        for unit in rng.choice(4000, 30_000, p=activity / activity.sum()):
            arm = next((arm for arm, (low, high) in starts.items() if low <= hashes[unit] < high), None)
            if unit in first or arm is not None:
                known_arm, known_epoch = first.setdefault(unit, (arm or 0, epoch))
                rows += [known_arm] if known_epoch == 1 else []
    arms = np.array(rows)
    chosen = Rows(arms, np.full(len(arms), 0.25), np.zeros(len(arms)), rng.integers(0, BUCKETS, len(arms)))
    groups = epoch_groups(world, chosen, 1, {"champion": 0.1, "challenger": 0.1})
    assert look(world, groups).split.p < 0.001
