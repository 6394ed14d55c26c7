"""What a running experiment still takes: in rows, in days, in words."""

import numpy as np
import pytest

from services.feedback_service.domain.confidence import half_width
from services.feedback_service.domain.passages import Claim, DayEvidence, RowEvidence, by_days, by_rows
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.worlds import DAY, DAY_S, MIDNIGHT, Rows, World

METRIC = "absolute_error"


def errors(n: int, worse: float, days: int = 0, seed: int = 1) -> Rows:
    random = np.random.default_rng(seed)
    arm = np.arange(n) % 2
    error = np.abs(random.normal(size=n)) * np.where(arm == 0, 1.0 + worse, 1.0)
    day = None if not days else DAY + np.arange(n) * days // n
    return Rows(arm, np.zeros(n), error, random.integers(0, BUCKETS, n), day)


def results(matured: Rows, days: int = 0, **declared):
    given = {"metric": METRIC, **({"cycle_days": 7, "cycle_reason": ""} if days else {}), **declared}
    watermark = MIDNIGHT + days * DAY_S + 3600.0 * (1 + 1 / 24)
    return World(task="regression", declared=given).look(matured, **({"watermark": watermark} if days else {})).results


def test_rows_are_left_where_days_do_not_matter():
    found = results(errors(1_000, 0.08))
    forecast = found.forecast["challenger"]
    assert forecast.reachable
    assert forecast.rows_left > 0
    assert "more rows are left until a verdict" in found.verdict.sentence


def test_a_larger_effect_takes_fewer_rows():
    few, many = (results(errors(1_000, worse)).forecast["challenger"].rows_left for worse in (0.12, 0.03))
    assert few < many


def test_days_left_end_with_a_whole_week():
    found = results(errors(2_000, 0.06, days=10), days=10)
    assert found.forecast["challenger"].days_left % 7 == pytest.approx(4.0, abs=0.05)
    assert f"about {found.forecast['challenger'].days_left:.0f} days are left until a verdict at this pace" in str(
        found
    )


def test_what_leads_waits_for_the_end_of_its_week():
    found = results(errors(5_000, 0.4, days=5), days=5)
    assert found.verdict.status == "leading"
    assert found.forecast["challenger"].days_left == pytest.approx(2.0, abs=0.05)


def test_no_effect_in_many_rows_is_not_in_reach():
    matured = errors(40_000, 0.0)
    matured.outcome[1::2] = matured.outcome[::2]
    found = results(matured)
    forecast = found.forecast["challenger"]
    assert (forecast.reachable, forecast.rows_left) == (False, None)
    assert "not in reach at this margin: the effect is too small" in found.verdict.sentence


def test_what_is_decided_or_has_too_few_rows_has_no_forecast():
    assert results(errors(8_000, 0.4)).forecast == {}
    assert results(errors(150, 0.1)).forecast == {}
    assert results(errors(1_000, 0.05), status="stopped", stopped_at=MIDNIGHT).forecast == {}


def test_the_same_evidence_has_the_same_forecast():
    first, second = (results(errors(2_000, 0.05, days=10), days=10).forecast for _ in range(2))
    assert first == second


def test_days_that_show_nothing_yet_are_waited_for():
    truth = np.full(2_000, 0.05)
    rows = RowEvidence(variance=1.0)
    steady, unsteady = (
        by_days(Claim(), rows, DayEvidence(cycle=7, variance=v), truth, per_day=500.0, limit=364).days
        for v in (1 / 500, 1 / 500 + 0.05**2)
    )
    # of 400 experiments simulated row sums by days, 34 and 82 % were decided within one and two weeks, and 20 and 50 %
    assert [np.mean(steady <= day) for day in (7, 14)] == pytest.approx([0.343, 0.815], abs=0.05)
    assert [np.mean(unsteady <= day) for day in (7, 14)] == pytest.approx([0.198, 0.497], abs=0.05)


def test_a_planned_end_decides_what_the_sequence_does_not():
    truth, evidence = np.full(2_000, 0.05), RowEvidence(variance=1.0)
    claim = Claim(alpha_rows=0.025, horizon_rows=4_000)
    found = by_rows(claim, evidence, truth, first=200.0, limit=4_000.0).rows
    alone = by_rows(Claim(alpha_rows=0.025), evidence, truth, first=200.0, limit=4_000.0).rows
    wide = half_width(4_000**-0.5, 4_000, alpha=0.025, tuning_n=5_000)
    assert np.mean(found <= 4_000) > np.mean(alone <= 4_000) + 0.1
    assert np.mean(alone <= 4_000) >= np.mean(0.05 + np.random.default_rng(1).normal(size=9_999) / 4_000**0.5 > wide)
