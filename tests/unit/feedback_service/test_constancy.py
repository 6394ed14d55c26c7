"""The effect week by week, and whether it stays as it is."""

import numpy as np
import pytest
from scipy import stats

from services.feedback_service.domain.constancy import constancy, slope_z, week_by_week
from services.feedback_service.domain.sums.mean import ClusteredSums, DayEffects
from tests.unit.feedback_service.worlds import DAY, Rows, World, rows


def epoch(champion: np.ndarray, challenger: np.ndarray, n=1000.0, first=0):
    """The totals by day of two arms with these daily means over n rows each."""
    return tuple(
        {first + day: {0: n, 1: n * mean} for day, mean in enumerate(arm.tolist())} for arm in (champion, challenger)
    )


def noise(seed: int, days: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, days)


def test_a_week_alone_has_the_interval_of_its_days():
    effects = noise(1, 16) + 0.02
    points = week_by_week([epoch(np.full(16, 0.3), 0.3 + effects)], range(16), 7, 0.05)
    assert [point.day for point in points] == ["1970-01-07", "1970-01-14"]
    for point, week in zip(points, (effects[:7], effects[7:14]), strict=True):
        interval = stats.ttest_1samp(week, 0.0).confidence_interval(0.95)
        assert (point.estimate, point.low, point.high) == pytest.approx((week.mean(), *interval))


@pytest.mark.parametrize(("cycle", "weeks"), [(0, 4), (1, 4), (3, 4), (14, 2)])
def test_a_span_is_a_cycle_or_a_week(cycle, weeks):
    assert len(week_by_week([epoch(np.zeros(28), noise(1, 28))], range(28), cycle, 0.05)) == weeks


def test_a_week_with_few_days_has_no_interval():
    arms = [{day: totals for day, totals in arm.items() if day < 4} for arm in epoch(np.zeros(7), noise(1, 7))]
    (point,) = week_by_week([(arms[0], arms[1])], range(7), 7, 0.05)
    assert (point.low, point.high) == (None, None)
    assert week_by_week([({}, {})], range(7), 7, 0.05) == []


@pytest.mark.parametrize("cycle", [0, 7])
def test_the_slope_is_that_of_weighted_least_squares(cycle):
    rng = np.random.default_rng(3)
    days = np.delete(np.arange(100, 128), 5)
    effects = DayEffects(days, rng.normal(size=27) + 0.05 * days, rng.uniform(50.0, 200.0, 27))
    columns = np.eye(cycle)[(days - 100) % cycle] if cycle else np.ones((27, 1))
    design = np.column_stack([columns, days.astype(float)])
    root = np.sqrt(effects.weights)
    solved, (left,), *_ = np.linalg.lstsq(design * root[:, np.newaxis], effects.values * root)
    freedom = 27 - design.shape[1]
    weighted = design.T @ (design * effects.weights[:, np.newaxis])
    error = np.sqrt(left / freedom * np.linalg.inv(weighted)[-1, -1])
    slope, z, k = slope_z(effects, 100, cycle)
    assert (slope, k) == (pytest.approx(solved[-1]), 27)
    assert z == pytest.approx(stats.norm.isf(stats.t.sf(abs(slope) / error, freedom)))


def test_the_effect_of_a_day_weighs_its_epochs_by_their_overlap():
    epochs = [
        ({1: {0: 10.0, 1: 1.0}, 2: {0: 5.0, 1: 1.0}}, {1: {0: 30.0, 1: 9.0}}),
        ({1: {0: 20.0, 1: 8.0}}, {1: {0: 20.0, 1: 4.0}}),
    ]
    found = ClusteredSums.effects_of_days(epochs)
    assert found.days.tolist() == [1]
    assert found.weights.tolist() == [17.5]
    assert found.values[0] == pytest.approx((7.5 * 0.2 - 10.0 * 0.2) / 17.5)


def test_a_decay_is_flagged_and_a_constant_effect_or_weekend_is_not():
    weekend = np.where(np.arange(28) % 7 >= 5, -0.1, 0.0)
    fading, steady = np.linspace(0.05, 0.0, 28) + noise(1, 28), np.full(28, 0.05) + weekend + noise(1, 28)
    found = constancy([epoch(np.zeros(28), fading)], range(28), 7, 0.05)
    assert found.p < 0.05
    assert found.change_per_day == pytest.approx(-0.05 / 27, rel=0.3)
    assert constancy([epoch(np.zeros(28), steady)], range(28), 7, 0.05).p > 0.2


def test_the_least_p_of_all_cycles_stays_and_counts_for_each_challenger():
    effects = np.concatenate([np.linspace(0.1, 0.0, 28), np.linspace(0.0, 0.1, 28)]) + noise(2, 56)
    early, late = (constancy([epoch(np.zeros(56), effects)], range(days), 7, 0.05) for days in (28, 56))
    assert late.p <= early.p < 0.05
    assert constancy([epoch(np.zeros(56), effects)], range(28), 7, 0.05, 3).p == pytest.approx(3 * early.p)


def test_within_the_first_cycle_a_trend_may_be_the_weekday():
    found = constancy([epoch(np.zeros(13), noise(1, 13))], range(13), 7, 0.05)
    assert (found.p, found.change_per_day) == (None, None)
    assert constancy([epoch(np.zeros(13), noise(1, 13))], range(13), 0, 0.05).p is not None


def test_results_have_the_weeks_and_the_test():
    some = rows(np.random.default_rng(1), 14_000, (0.3, 0.25))
    some = Rows(some.arm, some.score, some.outcome, some.bucket, DAY + np.arange(14_000) // 1000)
    found = World(declared={"cycle_days": 7, "cycle_reason": ""}).look(some).results
    assert [point.day for point in found.weeks["challenger"]] == ["2024-10-10", "2024-10-17"]
    assert 0.0 < found.constancy["challenger"].p <= 1.0
    auc = World(declared={"metric": "auc", "cycle_days": 7, "cycle_reason": ""}).look(some).results
    assert auc.weeks == {"challenger": []}
    assert auc.constancy["challenger"].p is None
