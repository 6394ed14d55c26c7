"""Worlds where both variants score the same rows, looked at through the results."""

import msgspec
import numpy as np
import pytest
from scipy.special import expit, logit

from contender.contracts.experiments import VariantAllocation
from contender.contracts.feedback_service import Counts
from services.feedback_service.domain.memory import ChallengerMemory
from services.feedback_service.domain.results import Look, results_of
from services.feedback_service.domain.sequences import Spending, look_at_rows
from services.feedback_service.domain.snapshots import CohortSnapshot, DaySnapshot, PartitionSnapshot, SumsSnapshot
from services.feedback_service.domain.sums.mean import ClusteredSums, mean_of_differences
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.test_join import (
    WINDOW_S,
    apply,
    block,
    catch_up,
    feedback,
    flush,
    joined,
    numbers,
    shadow,
    shadows,
)
from tests.unit.feedback_service.test_join import predictions as frame_of
from tests.unit.feedback_service.worlds import DAY, DAY_S, LATE_ENOUGH, MIDNIGHT, Rows, World

PAIRED = {"outcome": "independent of the answer"}


def loss(outcome: np.ndarray, score: np.ndarray) -> np.ndarray:
    return -np.log(np.where(outcome == 1.0, score, 1.0 - score))


def by_bucket(bucket: np.ndarray, values: np.ndarray) -> dict[int, float]:
    return {number: float(value) for number, value in enumerate(np.bincount(bucket, values, BUCKETS)) if value}


def with_pairs(
    snapshot: PartitionSnapshot, bucket: np.ndarray, difference: np.ndarray, weight=None, day=None
) -> PartitionSnapshot:
    """What workers have published, with the differences in log loss of matured rows."""
    weight = np.ones(len(bucket)) if weight is None else weight
    rows = {number: round(value) for number, value in by_bucket(bucket, weight).items()}
    sums = SumsSnapshot(rows, {"log_loss": by_bucket(bucket, weight * difference)})
    counts = Counts(predictions=len(bucket), labelled=int((weight > 0).sum()))
    cohort = CohortSnapshot(LATE_ENOUGH, counts, rows, sums, SumsSnapshot(), is_matured=True)
    totals = (
        []
        if day is None
        else [
            DaySnapshot(
                int(d), int((day == d).sum()), {"log_loss": {0: float((day == d).sum()), 1: difference[day == d].sum()}}
            )
            for d in np.unique(day)
        ]
    )
    paired = msgspec.structs.replace(
        snapshot.groups[-1], variant="challenger", cohorts=[cohort], days=totals, paired=True
    )
    return PartitionSnapshot(snapshot.status, [*snapshot.groups, paired])


class PairedWorld(World):
    """A world whose rows both variants score."""

    def look_at(self, rows: Rows, difference: np.ndarray, weight=None, **seen) -> Look:
        snapshot = with_pairs(self.snapshot(rows, **seen), rows.bucket, difference, weight, rows.day)
        look = results_of("e", self.revision, [snapshot], LATE_ENOUGH, self.memory)
        self.memory = look.memory
        return look


def scored(rng: np.random.Generator, n: int, score: np.ndarray, both: list[np.ndarray], **given) -> Rows:
    arm = rng.integers(0, 2, n)
    outcome = (rng.random(n) < score).astype(float)
    return Rows(arm, np.where(arm == 0, *both), outcome, rng.integers(0, BUCKETS, n), **given)


def first_verdict(world: PairedWorld, rows: Rows, difference: np.ndarray, looks: list[int]) -> tuple[int, str]:
    for n in looks:
        status = world.look_at(rows.first(n), difference[:n]).results.verdict.status
        if world.memory.events:
            return n, status
    return 10**9, ""


def test_one_model_twice_is_rarely_told_apart_on_the_same_rows():
    wrong, runs, n = 0, 200, 5_000
    spending = Spending(alpha=0.05, tuning_n=5_000)
    for seed in range(runs):
        rng, memory = np.random.default_rng(seed), ChallengerMemory()
        score = expit(-1.3 + rng.normal(size=n))
        noisy = [expit(logit(score) + 0.2 * rng.normal(size=n)) for _ in range(2)]
        rows = scored(rng, n, score, noisy)
        difference = loss(rows.outcome, noisy[1]) - loss(rows.outcome, noisy[0])
        for k in range(250, n + 1, 250):
            estimate = mean_of_differences([ClusteredSums.of(rows.bucket[:k], difference[:k])])
            look, memory = look_at_rows(estimate, spending, memory, "paired log_loss", decided=False)
            if look.intervals.two_sided.excludes_zero:
                wrong += 1
                break
    assert wrong <= runs * 0.075  # 5 % and 1.65 standard errors


def test_scores_that_are_shrunk_by_half_are_found_on_the_same_rows():
    found = []
    for seed in range(15):
        rng, n = np.random.default_rng(seed), 4_000
        score = expit(-1.3 + rng.normal(size=n))
        shrunk = expit(0.5 * logit(score) - 0.65)
        rows = scored(rng, n, score, [shrunk, score])
        difference = loss(rows.outcome, score) - loss(rows.outcome, shrunk)
        at, status = first_verdict(PairedWorld(declared=PAIRED), rows, difference, [*range(200, n + 1, 200)])
        assert status in {"challenger better", ""}
        found.append(at)
    assert 600 <= np.median(found) <= 1_800


def world_of_pairs(seed: int = 0, n: int = 3_000, **declared) -> tuple[PairedWorld, Rows, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = expit(-1.3 + rng.normal(size=n))
    shrunk = expit(0.3 * logit(score))
    rows = scored(rng, n, score, [shrunk, score])
    return PairedWorld(declared=declared), rows, loss(rows.outcome, score) - loss(rows.outcome, shrunk)


def test_the_effect_is_the_mean_difference_and_the_sentence_says_so():
    world, rows, difference = world_of_pairs(**PAIRED)
    results = world.look_at(rows, difference).results
    effects = results.effects["challenger"]
    assert effects["log_loss"].estimate == pytest.approx(difference.mean())
    assert (effects["log_loss"].estimator, effects["log_loss"].n) == ("paired", 3_000)
    assert effects["auc"].estimator == "randomised"
    assert "on the same rows: both have scored 3,000 matured rows" in results.verdict.sentence
    assert set(world.memory.challengers["challenger"].sequences) >= {"paired log_loss", "auc"}


def test_pairs_do_not_count_where_the_outcome_may_depend_on_the_answer():
    world, rows, difference = world_of_pairs()
    assert world.look_at(rows, difference).results.effects["challenger"]["log_loss"].estimator == "randomised"


def test_too_few_pairs_are_named():
    world, rows, difference = world_of_pairs(**PAIRED)
    verdict = world.look_at(rows.first(60), difference[:60]).results.verdict
    assert verdict.status == "withheld: too few"
    assert "both have scored 60 matured rows, and it takes at least 100" in verdict.sentence


def test_estimators_that_disagree_withhold_the_verdict():
    world, rows, difference = world_of_pairs(**PAIRED)
    assert world.look_at(rows, difference).results.checks["challenger"].estimators > 0.05
    found = world.look_at(rows, difference + 1.0).results
    assert "withheld: estimators disagree" in {event.status for event in world.memory.events}
    fresh, rows, difference = world_of_pairs(**PAIRED)
    results = fresh.look_at(rows, difference + 1.0).results
    assert results.verdict.status == "withheld: estimators disagree"
    assert "on the same rows is not that between the rows" in results.verdict.sentence
    assert found.checks["challenger"].estimators < 0.001


def test_the_days_of_pairs_are_those_of_the_differences():
    rng = np.random.default_rng(1)
    day = np.repeat(np.arange(7), 300)
    score = expit(-1.3 + rng.normal(size=len(day)))
    shrunk = expit(0.3 * logit(score))
    rows = scored(rng, len(day), score, [shrunk, score], day=DAY + day)
    difference = loss(rows.outcome, score) - loss(rows.outcome, shrunk)
    world = PairedWorld(declared={**PAIRED, "cycle_days": 7, "cycle_reason": ""})
    watermark = MIDNIGHT + 7 * DAY_S + world.window_s * (1 + 1 / 24)
    results = world.look_at(rows, difference, watermark=watermark).results
    days = results.effects["challenger"]["log_loss"].days
    mean = difference.mean()
    moved = np.array([(difference[day == d] - mean).sum() for d in range(7)]) / len(day)
    assert results.timeline["challenger"][-1].estimate == pytest.approx(mean)
    assert days.low < mean < days.high
    assert days.high - mean == pytest.approx(half_width_of_days(moved))


def half_width_of_days(moved: np.ndarray) -> float:
    """The sequence over seven days, written out: arXiv 2103.06476 at alpha .05, tightest at 28 days."""
    k, alpha = len(moved), 0.05
    error = np.sqrt(k / (k - 1) * np.square(moved).sum())
    rho2 = (-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / 28
    a = k * rho2 + 1
    return float(error * np.sqrt(k) * np.sqrt(2 * a * np.log(np.sqrt(a) / alpha)) / (k * np.sqrt(rho2)))


def selective(rng: np.random.Generator, n: int, *, better: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outcomes of cases, and the scores of champion and challenger: those above a quantile are blocked."""
    a, b, c = rng.normal(size=(3, n))
    true = expit(-3.2 + 1.2 * a + 1.2 * b + 0.8 * c)
    outcome = (rng.random(n) < true).astype(float)
    return outcome, [expit(-2.95 + 1.2 * a + b), true if better else expit(-2.4 + 1.2 * a)]


def weights(rng: np.random.Generator, blocked: np.ndarray, explored: float) -> np.ndarray:
    return np.where(blocked, np.where(rng.random(len(blocked)) < explored, 1.0 / explored, 0.0), 1.0)


def seen(snapshot: PartitionSnapshot, arm: np.ndarray, bucket: np.ndarray) -> PartitionSnapshot:
    """What workers have published where the labelled rows stand for all."""
    groups = []
    for number, group in enumerate(snapshot.groups):
        counts = np.bincount(bucket[arm == number], minlength=BUCKETS)
        rows = {int(key): int(counts[key]) for key in np.flatnonzero(counts)}
        groups.append(msgspec.structs.replace(group, cohorts=[msgspec.structs.replace(group.cohorts[0], rows=rows)]))
    return PartitionSnapshot(snapshot.status, groups)


def selective_world(**declared) -> PairedWorld:
    return PairedWorld(declared={"labels_seen_if": "score < 0.3", "exploration_share": 0.01, **declared})


@pytest.mark.parametrize(("better", "status"), [(True, "challenger better"), (False, "champion better")])
def test_selective_labels_are_judged_rightly_where_the_champion_answers_alone(better, status):
    found = []
    for seed in range(8):
        rng, n = np.random.default_rng(seed), 40_000
        outcome, (champion, challenger) = selective(rng, n, better=better)
        weight = weights(rng, champion >= np.quantile(champion, 0.95), 0.01)
        arm, bucket = np.zeros(n, dtype=int), rng.integers(0, BUCKETS, n)
        alone = [VariantAllocation("champion", "v1", 1.0), VariantAllocation("challenger", "v2", 0.0)]
        world = selective_world(**PAIRED, variants=alone)
        labelled = np.repeat(np.arange(n), weight.astype(int))
        snapshot = seen(world.snapshot(Rows(arm, champion, outcome, bucket).of(labelled)), arm, bucket)
        snapshot = with_pairs(snapshot, bucket, loss(outcome, challenger) - loss(outcome, champion), weight)
        found.append(results_of("e", world.revision, [snapshot], LATE_ENOUGH).results.verdict.status)
    assert found.count(status) >= 7
    assert set(found) <= {status, "collecting"}


@pytest.mark.parametrize(("better", "status"), [(True, "challenger better"), (False, "champion better")])
def test_selective_labels_are_judged_rightly_between_assigned_rows(better, status):
    found = []
    for seed in range(6):
        rng, n = np.random.default_rng(seed), 200_000
        outcome, scores = selective(rng, n, better=better)
        arm, bucket = rng.integers(0, 2, n), rng.integers(0, BUCKETS, n)
        blocked = np.where(
            arm == 1, scores[1] >= np.quantile(scores[1], 0.9), scores[0] >= np.quantile(scores[0], 0.95)
        )
        labelled = np.repeat(np.arange(n), weights(rng, blocked, 0.1).astype(int))
        world = selective_world(exploration_share=0.1)
        rows = Rows(arm, np.where(arm == 0, *scores), outcome, bucket).of(labelled)
        results = results_of("e", world.revision, [seen(world.snapshot(rows), arm, bucket)], LATE_ENOUGH).results
        assert results.checks["challenger"].arrival > 0.001
        found.append(results.verdict.status)
    assert found.count(status) >= 4
    assert set(found) <= {status, "collecting"}


def test_frames_shadows_and_feedback_end_in_a_paired_verdict():
    rng, join, n = np.random.default_rng(3), joined(), 40
    records, truth = [], []
    for number in range(60):
        arm = ("champion", "challenger")[number % 2]
        score = expit(-1.3 + rng.normal(size=n))
        both = {"challenger": score, "champion": expit(0.3 * logit(score))}
        other = "champion" if arm == "challenger" else "challenger"
        at, units = 100.0 * number, [f"u{number}-{row}" for row in range(n)]
        outcome = (rng.random(n) < score).astype(int)
        served = block(arm, n, at=at, unit=units, score=both[arm].tolist(), assignment_probability=0.5, epoch=1)
        scored_by = shadow(f"f{number}", other, range(n), score=both[other].tolist(), epoch=1)
        records += [
            frame_of(f"f{number}", served, offset=2 * number),
            shadows(scored_by, offset=2 * number + 1),
            feedback(*((f"f{number}", row, int(outcome[row]), at + row + 5) for row in range(n)), offset=number),
        ]
        truth.append(loss(outcome, both["challenger"]) - loss(outcome, both["champion"]))
    records += [frame_of("last", block(at=100.0 * 60 + 10 * WINDOW_S, epoch=1), offset=120)]
    for record in records:
        apply(join, record)
    catch_up(join)
    flush(join)
    world = World(declared=PAIRED, window_s=WINDOW_S)
    results = results_of("e", world.revision, [numbers(join)], LATE_ENOUGH).results
    effect = results.effects["challenger"]["log_loss"]
    assert (effect.estimator, effect.n) == ("paired", 2_400)
    assert effect.estimate == pytest.approx(np.concatenate(truth).mean())
    assert (results.verdict.status, effect.better) == ("challenger better", True)
    assert [variant.n for variant in results.variants] == [1_202, 1_200]
