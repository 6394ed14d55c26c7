"""Worst-case bounds: what missing labels leave open of an effect."""

import numpy as np
import pytest
from scipy.special import expit, logit

from contender.contracts.metrics.absolute_error import ABSOLUTE_ERROR
from contender.contracts.metrics.brier import BRIER
from contender.contracts.metrics.log_loss import LOG_LOSS, binary_log_loss
from contender.contracts.tasks import BINARY
from services.feedback_service.domain.bounds import worst_case
from services.feedback_service.domain.merging import merged_arms
from tests.unit.feedback_service.worlds import BUCKETS, Rows, World

N = 200_000


def test_values_are_bounded_where_the_metric_bounds_them():
    assert LOG_LOSS.value_range("binary", 1e-7) == pytest.approx((0.0, 16.118), abs=1e-3)
    assert BRIER.value_range("binary", 1e-7) == (0.0, 1.0)
    assert BRIER.value_range("multiclass", 1e-7) == (0.0, 2.0)
    assert ABSOLUTE_ERROR.value_range is None


def overconfident_champion(labelled=(0.95, 0.948), shrink=0.35) -> Rows:
    """The champion's scores are shrunk, which costs it 1 % in log loss; its labels come a little more often."""
    rng = np.random.default_rng(1)
    arm = np.repeat([0, 1], N)
    score = expit(-1.3 + rng.normal(size=2 * N))
    outcome = (rng.random(2 * N) < score).astype(float)
    outcome[rng.random(2 * N) >= np.array(labelled)[arm]] = np.nan
    shrunk = expit((1 - shrink) * logit(score) - 1.3 * shrink)
    return Rows(arm, np.where(arm == 0, shrunk, score), outcome, rng.integers(0, BUCKETS, 2 * N))


def arms_of(rows: Rows):
    arms = merged_arms(World().snapshot(rows).groups)
    return arms[1, "champion"].matured, arms[1, "challenger"].matured


def test_the_bounds_are_those_of_the_sorted_values():
    rows = overconfident_champion()
    losses = [
        binary_log_loss(rows.outcome[chosen], rows.score[chosen])
        for chosen in ((rows.arm == arm) & ~np.isnan(rows.outcome) for arm in (0, 1))
    ]
    champion = np.sort(losses[0])
    surplus = len(champion) - len(losses[1])
    lowest = losses[1].mean() - champion[surplus:].mean()
    highest = losses[1].mean() - champion[: len(champion) - surplus].mean()
    found = worst_case([arms_of(rows)], LOG_LOSS, BINARY, (0.0, 16.118), 0.0)
    assert found == pytest.approx((lowest, highest), abs=2e-4)
    assert found[0] <= lowest <= highest <= found[1]


def test_labels_that_come_alike_leave_nothing_open():
    rows = overconfident_champion(labelled=(1.0, 1.0))
    low, high = worst_case([arms_of(rows)], LOG_LOSS, BINARY, (0.0, 16.118), 0.0)
    assert low == high
    assert worst_case([arms_of(rows)], LOG_LOSS, BINARY, (0.0, 16.118), 0.1)[1] == pytest.approx(high + 0.1)


def test_no_labels_and_far_fewer_labels_have_no_bounds():
    for labelled in ((0.0, 0.5), (0.9, 0.8)):
        rows = overconfident_champion(labelled)
        assert worst_case([arms_of(rows)], LOG_LOSS, BINARY, (0.0, 16.118), 0.0) is None
