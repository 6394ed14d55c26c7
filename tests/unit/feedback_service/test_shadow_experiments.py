"""Experiments in which the champion answers everything, and challengers score the same rows in shadow."""

import msgspec
import numpy as np
import pytest
from scipy.special import expit, logit

from contender.contracts.experiments import Guardrail, VariantAllocation
from contender.contracts.feedback_service import Counts, Results
from services.feedback_service.domain.snapshots import CohortSnapshot, PartitionSnapshot, SumsSnapshot
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.test_join import apply, block, feedback, joined, numbers, predictions, shadow, shadows
from tests.unit.feedback_service.test_paired_worlds import by_bucket, loss, with_pairs
from tests.unit.feedback_service.worlds import LATE_ENOUGH, START, WINDOW_S, Rows, World

SHADOW = {
    "shadow": True,
    "outcome": "independent of the answer",
    "variants": [
        VariantAllocation("champion", "v-champion", 1.0),
        VariantAllocation("challenger", "v-challenger", 0.0),
    ],
}
BLIND = SHADOW | {"outcome": "may depend on the answer"}
N = 3000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def answered(rng: np.random.Generator, n: int = N) -> tuple[Rows, np.ndarray]:
    """The champion's rows, all labelled, and the challenger's better scores of them."""
    better = expit(-1.3 + rng.normal(size=n))
    outcome = (rng.random(n) < better).astype(float)
    worse = expit(0.5 * logit(better) - 0.65)
    return Rows(np.zeros(n, int), worse, outcome, rng.integers(0, BUCKETS, n)), better


def agreement(rows: Rows, score: np.ndarray) -> SumsSnapshot:
    equal = ((rows.score > 0.5) == (score > 0.5)).astype(float)
    totals = {
        "equal labels": by_bucket(rows.bucket, equal),
        "score difference": by_bucket(rows.bucket, np.abs(rows.score - score)),
    }
    return SumsSnapshot({number: round(n) for number, n in by_bucket(rows.bucket, np.ones(len(score))).items()}, totals)


def published(world: World, rows: Rows, score: np.ndarray, watermark: float = LATE_ENOUGH) -> PartitionSnapshot:
    """The champion's group, and that of the pairs."""
    snapshot = world.snapshot(rows, watermark)
    snapshot = msgspec.structs.replace(snapshot, groups=snapshot.groups[:1])
    labelled = ~np.isnan(rows.outcome)
    difference = np.where(labelled, loss(rows.outcome, score) - loss(rows.outcome, rows.score), 0.0)
    paired = with_pairs(snapshot, rows.bucket, difference, labelled.astype(float))
    *others, group = paired.groups
    cohort = msgspec.structs.replace(group.cohorts[0], ledgers={"agreement": agreement(rows, score)})
    if world.missing == "negative":
        rows_of = {number: round(n) for number, n in by_bucket(rows.bucket, (~labelled).astype(float)).items()}
        assumed = loss(np.zeros(len(score)), score) - loss(np.zeros(len(score)), rows.score)
        totals = {"log_loss": by_bucket(rows.bucket, np.where(labelled, 0.0, assumed))}
        cohort = msgspec.structs.replace(cohort, assumed=SumsSnapshot(rows_of, totals))
    group = msgspec.structs.replace(group, cohorts=[cohort], missing=world.missing)
    return PartitionSnapshot(paired.status, [*others, group])


def look(world: World, *seen) -> Results:
    return world.look_at([published(world, *seen)]).results


def test_pairs_alone_decide(rng):
    results = look(World(declared=SHADOW), *answered(rng))
    assert results.verdict.status == "challenger better"
    assert f"on the same rows: both have scored {N:,} matured rows" in results.verdict.sentence
    effect = results.effects["challenger"]["log_loss"]
    assert (effect.estimator, effect.n, effect.better) == ("paired", N, True)
    checks = results.checks["challenger"]
    assert (checks.arrival, checks.tail, checks.unanswered, checks.estimators, results.split.p) == (*[None] * 4, 1.0)
    assert results.variants[1].n == 0


@pytest.mark.parametrize(("rows", "status"), [(99, "withheld: too few"), (0, "withheld: too few"), (120, "collecting")])
def test_pairs_alone_are_counted(rng, rows, status):
    seen, score = answered(rng, rows)
    results = look(World(declared=SHADOW), seen, seen.score + 0.0001 * np.sign(score - 0.5))
    assert results.verdict.status == status
    assert f"both have scored {rows} matured rows" in results.verdict.sentence


def test_a_shadow_that_has_scored_nothing_yet_says_so(rng):
    world = World(declared=SHADOW)
    snapshot = world.snapshot(answered(rng)[0])
    results = world.look_at([msgspec.structs.replace(snapshot, groups=snapshot.groups[:1])]).results
    assert results.verdict.status == "withheld: too few"
    assert "both have scored 0 matured rows, and it takes at least 100" in results.verdict.sentence
    assert results.agreement == {}


def test_a_guardrail_is_watched_on_pairs(rng):
    seen, better = answered(rng)
    world = World(declared=SHADOW | {"metric": "brier", "guardrails": [Guardrail("log_loss", 0.001)]})
    results = look(world, with_scores(seen, better), seen.score)
    assert results.verdict.status == "stopped: guardrail"
    assert f"over {N:,} matured rows" in results.verdict.sentence


def with_scores(rows: Rows, score: np.ndarray) -> Rows:
    """The same rows where the champion has other scores."""
    return Rows(rows.arm, score, rows.outcome, rows.bucket)


def test_labels_that_may_depend_on_the_answer_never_decide(rng):
    seen, score = answered(rng)
    world = World(declared=BLIND)
    results = look(world, seen, score)
    equal = float(np.mean((seen.score > 0.5) == (score > 0.5)))
    distance = float(np.mean(np.abs(seen.score - score)))
    assert results.verdict.status == "collecting"
    assert results.verdict.sentence == (
        "A shadow shows agreement only, since the outcome may depend on the answer: challenger and champion have both "
        f"scored 3,000 rows; they give {100 * equal:.3g} % of the rows the same label, and their scores differ by "
        f"{distance:.3g} on average."
    )
    assert (world.memory.events, results.effects["challenger"], results.forecast) == ([], {}, {})
    found = results.agreement["challenger"]
    assert (found.answered, found.scored) == (N, N)
    for interval, mean in ((found.equal_labels, equal), (found.score_difference, distance)):
        assert interval.mean == pytest.approx(mean)
        assert interval.low < mean < interval.high


def test_a_shadow_that_shows_agreement_ends_without_a_verdict(rng):
    stopped = {"status": "stopped", "stopped_at": START}
    verdict = look(World(declared=BLIND | stopped), *answered(rng)).verdict
    assert (verdict.status, verdict.sentence[:32]) == ("ended", "A shadow shows agreement only, s")


def test_a_metric_that_no_pairs_have_never_decides_in_shadow(rng):
    verdict = look(World(declared=SHADOW | {"metric": "auc"}), *answered(rng)).verdict
    assert verdict.status == "collecting"
    assert verdict.sentence.startswith("A shadow shows agreement only, since AUC is no mean over labelled rows: ")


def test_missing_labels_that_mean_negative_wait_for_the_champions_late_ones(rng):
    seen, score = answered(rng)
    positive = seen.outcome == 1.0
    seen.outcome[~positive] = np.nan
    seen.late = positive & (rng.random(N) < 0.05)
    seen.outcome[seen.late] = np.nan
    world = World(declared=SHADOW, missing="negative")
    at = START + WINDOW_S
    first = look(world, seen, score, at)
    assert first.verdict.status == "leading"
    assert "late labels are waited for one more window" in first.verdict.sentence
    assert look(world, seen, score, at + WINDOW_S).verdict.status == "challenger better"


def test_a_window_that_cuts_many_labels_off_withholds_in_shadow_as_well(rng):
    seen, score = answered(rng)
    positive = seen.outcome == 1.0
    seen.outcome[~positive] = np.nan
    seen.late = positive & (rng.random(N) < 0.4)
    seen.outcome[seen.late] = np.nan
    verdict = look(World(declared=SHADOW, missing="negative"), seen, score, START + WINDOW_S).verdict
    assert verdict.status == "withheld: label tail"


def test_two_challengers_in_shadow_share_alpha_and_have_a_verdict_each(rng):
    declared = SHADOW | {"variants": [*SHADOW["variants"], VariantAllocation("third", "v-third", 0.0)]}
    seen, score = answered(rng)
    world = World(("champion", "challenger", "third"), declared=declared)
    snapshot = published(world, seen, score)
    noisy = expit(logit(seen.score) + 0.01 * rng.normal(size=N))
    third = msgspec.structs.replace(published(world, seen, noisy).groups[-1], variant="third")
    results = world.look_at([PartitionSnapshot(snapshot.status, [*snapshot.groups, third])]).results
    assert [verdict.status for verdict in results.verdicts] == ["challenger better", "collecting"]
    assert set(results.agreement) == {"challenger", "third"}


def test_agreement_is_over_all_partitions_and_epochs(rng):
    seen, score = answered(rng)
    world = World(declared=BLIND)
    snapshot = published(world, seen, score)
    group = snapshot.groups[-1]
    waiting = CohortSnapshot(
        LATE_ENOUGH, Counts(), {}, SumsSnapshot(), SumsSnapshot(), ledgers=group.cohorts[0].ledgers
    )
    later = msgspec.structs.replace(group, epoch=2, cohorts=[waiting])
    results = world.look_at([PartitionSnapshot(snapshot.status, [*snapshot.groups, later])]).results
    assert results.agreement["challenger"].scored == 2 * N


def test_the_join_of_a_shadow_experiment_counts_every_pair():
    join, units = joined(), [f"u{row}" for row in range(400)]
    scores = [0.3 + 0.001 * row for row in range(400)]
    apply(join, predictions("f", block(rows=400, unit=units, score=scores)))
    apply(join, shadows(shadow(rows=range(300), score=[score + 0.1 for score in scores[:300]])))
    apply(join, feedback(*(("f", row, row % 2, 5.0) for row in range(400))))
    world = World(declared=SHADOW)
    results = world.look_at([numbers(join)]).results
    found = results.agreement["challenger"]
    assert (found.answered, found.scored) == (400, 300)
    assert found.score_difference.mean == pytest.approx(0.1)
    assert found.equal_labels.mean == pytest.approx(2 / 3)  # 100 scores cross 0.5
    assert results.verdict.status == "withheld: too few"  # nothing has matured
