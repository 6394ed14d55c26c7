"""The 95th percentile of latency: its interval holds at every look, and so does that of its effect."""

from math import inf, log

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import norm

from contender.contracts.metrics import metric_named
from services.feedback_service.domain.memory import ChallengerMemory
from services.feedback_service.domain.sequences import Spending, look_at_rows
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.estimates import Estimate
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from services.feedback_service.domain.sums.percentile import BINS, EDGES, MIN_ROWS, LatencyPercentile
from services.feedback_service.domain.sums.score_histogram import ScoreHistogram

MEAN, SPREAD, LOOKS, ROWS = 3.0, 0.6, 100, 20_000
P95 = np.exp(MEAN + SPREAD * norm.ppf(0.95))


def of(latencies: np.ndarray) -> LatencyPercentile:
    keys, ones = LatencyPercentile.value_additions(np.zeros(len(latencies), dtype=np.uint8), latencies)
    return LatencyPercentile(np.bincount(keys, ones, BINS))


def lognormal(rng: np.random.Generator, rows: int, factor: float = 1.0) -> np.ndarray:
    return factor * rng.lognormal(MEAN, SPREAD, rows)


def looks_at(latencies: np.ndarray) -> list[LatencyPercentile]:
    """The histograms at each of LOOKS looks."""
    parts = [of(part).counts for part in np.split(latencies, LOOKS)]
    return [LatencyPercentile(counts) for counts in np.cumsum(parts, axis=0)]


def test_bins_are_3_percent_wide_and_reach_from_a_tenth_of_a_millisecond_to_ten_minutes():
    assert (EDGES[0], EDGES[-1]) == pytest.approx((0.1, 600_000.0))
    assert EDGES[1:] / EDGES[:-1] == pytest.approx(1.03, abs=1e-4)
    assert [np.flatnonzero(of(np.array([ms])).counts).item() for ms in (0.0, 0.1, 0.10001, 6e5, 1e7)] == [
        0,
        0,
        1,
        BINS - 2,
        BINS - 1,
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_percentile_is_that_of_the_rows_to_within_a_bin(seed):
    latencies = lognormal(np.random.default_rng(seed), 5000)
    assert of(latencies).value == pytest.approx(np.quantile(latencies, 0.95), rel=0.03)


def test_the_evidence_is_the_e_value_of_two_cells():
    """The formula as the statistics' own script has it, edge by edge; only its sign says on which side."""
    latencies = lognormal(np.random.default_rng(1), 3000)
    evidence = of(latencies).evidence
    for edge in range(150, 220, 7):
        below = float(np.sum(latencies <= EDGES[edge]))
        above, a, b = len(latencies) - below, 95.0, 5.0
        formula = betaln(a + below, b + above) - betaln(a, b) - below * log(0.95) - above * log(0.05)
        assert abs(evidence[edge]) == pytest.approx(max(0.0, formula), abs=1e-6)
        assert formula <= 0.0 or (evidence[edge] > 0.0) == (below > 0.95 * len(latencies))


def test_the_interval_misses_the_percentile_at_any_of_100_looks_in_at_most_5_percent_of_runs():
    """The script: 1.9 % of 2,000 runs; a plain interval at each look 37.6 %."""
    rng, runs, missed = np.random.default_rng(6), 150, 0
    for _ in range(runs):
        looks = (histogram.own_look(0.05) for histogram in looks_at(lognormal(rng, ROWS)))
        missed += any(not look.low <= P95 <= look.high for look in looks)
    assert missed / runs <= 0.05


def test_equal_arms_differ_at_any_of_100_looks_in_at_most_5_percent_of_runs():
    rng, runs, alarms = np.random.default_rng(7), 40, 0
    for _ in range(runs):
        pairs = zip(*(looks_at(lognormal(rng, ROWS // 2)) for _ in range(2)), strict=True)
        looks = [LatencyPercentile.look([pair], 0.05) for pair in pairs]
        alarms += any(look is not None and look.excludes_zero for look in looks)
    assert alarms / runs <= 0.05


def test_a_slower_challenger_is_found_and_p_falls_below_alpha_with_the_interval():
    rng = np.random.default_rng(8)
    champion, challenger = looks_at(lognormal(rng, ROWS)), looks_at(lognormal(rng, ROWS, 1.3))
    for pair in list(zip(champion, challenger, strict=True))[9::10]:
        for alpha in (0.01, 0.05, 0.2):
            look = LatencyPercentile.look([pair], alpha)
            assert look is not None
            assert look.excludes_zero == (look.p <= alpha)
    assert look.low < 0.3 * P95 < look.high
    assert look.excludes_zero
    assert look.estimate == pytest.approx(0.3 * P95, rel=0.2)


def test_epochs_are_compared_within_themselves():
    """The champion is slow and serves most rows in the first epoch, both are fast in the second: no effect."""
    rng = np.random.default_rng(9)
    first = of(lognormal(rng, 9000, 3.0)), of(lognormal(rng, 1000, 3.0))
    second = of(lognormal(rng, 5000)), of(lognormal(rng, 5000))
    pooled = first[0] + second[0], first[1] + second[1]
    look, wrong = (LatencyPercentile.look(epochs, 0.05) for epochs in ([first, second], [pooled]))
    assert look is not None
    assert not look.excludes_zero
    assert wrong is not None
    assert wrong.excludes_zero


def test_too_few_rows_of_an_arm_say_nothing_and_enough_have_a_bounded_interval():
    rng = np.random.default_rng(10)
    many, few, enough = (of(lognormal(rng, rows)) for rows in (5000, MIN_ROWS - 1, MIN_ROWS))
    assert LatencyPercentile.compare([(many, few)]) is None
    assert LatencyPercentile.look([(few, many)], 0.05) is None
    look = LatencyPercentile.look([(many, enough)], 0.001)
    assert look is not None
    assert look.is_bounded
    assert look.n == 5000 + MIN_ROWS
    assert LatencyPercentile().own_look(0.05).high == inf
    assert np.isnan(LatencyPercentile().value)


def test_the_looks_are_remembered_and_there_is_none_at_a_planned_end():
    rng = np.random.default_rng(11)
    pair = of(lognormal(rng, 5000)), of(lognormal(rng, 5000, 1.5))
    estimate = LatencyPercentile.compare([pair]).effect
    spending = Spending(alpha=0.025, tuning_n=5000, horizon_rows=1000)
    found, memory = look_at_rows(
        estimate,
        spending,
        ChallengerMemory(),
        "latency_p95",
        decided=False,
        look_at=lambda alpha: LatencyPercentile.look([pair], alpha),
    )
    alone = LatencyPercentile.look([pair], 0.025)
    assert (found.look, memory.horizon) == (alone, None)
    assert (memory.sequences["latency_p95"].low, memory.sequences["latency_p95"].high) == (alone.low, alone.high)
    assert memory.one_sided["latency_p95"].low >= alone.low  # the ends are edges of bins
    assert found.intervals.two_sided.p == pytest.approx(2.0 * alone.p)


def test_an_effect_without_any_interval_is_not_remembered():
    spending = Spending(alpha=0.05, tuning_n=5000)
    found, memory = look_at_rows(Estimate(1.0, inf, 900), spending, ChallengerMemory(), "m", decided=False)
    assert (memory.sequences, found.intervals.two_sided.p) == ({}, 1.0)


def days_of(rng: np.random.Generator, days: int, factor: float) -> dict[int, dict[int, float]]:
    """Days that are slow or fast for both arms alike."""
    totals = {}
    for day in range(days):
        counts = of(lognormal(rng, 2000, factor * (1.0 + 0.3 * (day % 2)))).counts
        sparse = {int(key): float(counts[key]) for key in np.flatnonzero(counts)}
        totals[day] = LatencyPercentile.day_totals({}, sparse)
    return totals


def test_days_give_the_effect_and_how_each_moves_it():
    rng = np.random.default_rng(12)
    effect = LatencyPercentile.day_effect([(days_of(rng, 14, 1.0), days_of(rng, 14, 1.3))])
    assert effect is not None
    assert effect.days == tuple(range(14))
    whole = np.quantile(np.concatenate([lognormal(rng, 50_000), lognormal(rng, 50_000, 1.3)]), 0.95)
    assert effect.value == pytest.approx(0.3 * whole, rel=0.2)
    assert effect.influence.sum() == pytest.approx(0.0, abs=1e-9)
    assert 0.0 < np.sqrt(np.square(effect.influence).sum()) < 0.2 * effect.value
    assert LatencyPercentile.day_effect([({}, {})]) is None


def test_histograms_merge_and_are_read_as_they_were_counted():
    rng = np.random.default_rng(13)
    first, second = lognormal(rng, 700), lognormal(rng, 900)
    merged, whole = of(first) + of(second), of(np.concatenate([first, second]))
    assert merged.counts.tolist() == whole.counts.tolist()
    sparse = {int(key): float(whole.counts[key]) for key in np.flatnonzero(whole.counts)}
    assert LatencyPercentile.read({}, sparse).counts.tolist() == whole.counts.tolist()
    assert whole.estimate == Estimate(whole.value, inf, 1600)


def test_a_percentile_may_be_of_any_mean_and_scores_are_no_reports():
    rows = LabelledRows("regression", np.array([10.0]), np.array([2.0]), None, np.array([3], dtype=np.uint8))
    keys, ones = LatencyPercentile.additions(metric_named("absolute_error"), rows)
    assert (EDGES[keys[0] - 1] < 8.0 <= EDGES[keys[0]], ones.tolist()) == (True, [1.0])
    with pytest.raises(NotImplementedError):
        ScoreHistogram.value_additions(rows.buckets, rows.outcomes)
    assert sums_of(metric_named("latency_p95")) is LatencyPercentile
