"""Plans: the rows and days of a verdict against plainly simulated ones, and the endpoint in words and errors."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from contender.contracts.feedback_service import PlanRequest
from contender.contracts.metrics import metric_named
from services.feedback_service.domain.confidence import half_width
from services.feedback_service.domain.planning import Record, Wish, plan
from services.feedback_service.domain.record import record_of
from services.feedback_service.errors import InvalidPlan, NoRecord
from services.feedback_service.experiments import InMemoryExperiments
from services.feedback_service.handlers.planning import plan_experiment
from services.feedback_service.handlers.results import ReadResults
from services.feedback_service.verdict_store import InMemoryVerdictStore
from shared.clock import FixedClock
from tests.unit.feedback_service.worlds import DAY, DAY_S, MIDNIGHT, World, rows

GIVEN = Record(row_variance=0.25, rows_per_day=500.0)


class Snapshots:
    """Those of one world."""

    def __init__(self, snapshots):
        self.kept = snapshots

    async def read(self, _):
        return self.kept


def reads(revisions=(), snapshots=()) -> ReadResults:
    experiments = InMemoryExperiments()
    for revision in revisions:
        experiments.put(revision)
    return ReadResults(Snapshots(list(snapshots)), experiments, FixedClock(0.0), InMemoryVerdictStore())


def simulated(effect: float, variance: float, tuning_n: int, runs: int = 400) -> np.ndarray:
    """The rows at which a normal walk first leaves the sequence, looked at every 20 rows."""
    random, step = np.random.default_rng(3), 20
    n = np.arange(step, 40_000, step)
    sums = np.cumsum(random.normal(effect * step, np.sqrt(variance * step), (runs, len(n))), axis=1)
    out = np.abs(sums / n) > half_width(np.sqrt(variance / n), n, alpha=0.05, tuning_n=tuning_n)
    out[:, n < 200] = False
    return np.where(out.any(axis=1), n[out.argmax(axis=1)], np.inf)


def test_rows_are_those_of_a_plain_simulation():
    planned = plan(GIVEN, Wish(effect=0.05))
    came = simulated(0.05, 1.0, planned.tuning_n)
    assert planned.rows == pytest.approx(np.median(came), rel=0.1)
    assert planned.rows_at_power == pytest.approx(np.quantile(came, 0.8), rel=0.1)


def test_another_tuning_takes_no_fewer_rows_than_the_planned_one():
    planned = plan(GIVEN, Wish(effect=0.05))
    for other in (planned.tuning_n // 8, planned.tuning_n * 8):
        assert np.median(simulated(0.05, 1.0, other)) > 0.97 * planned.rows


def test_uneven_shares_and_more_challengers_take_more_rows():
    even = plan(GIVEN, Wish(effect=0.05))
    uneven = plan(GIVEN, Wish(effect=0.05, shares=(0.9, 0.1)))
    three = plan(GIVEN, Wish(effect=0.05, shares=(0.34, 0.33, 0.33)))
    assert uneven.effect_variance == pytest.approx(0.25 * (10.0 + 1.0 / 0.9))
    assert uneven.rows > 2.5 * even.rows
    assert three.rows > even.rows


def test_days_are_whole_cycles_and_the_time_of_the_last_label():
    planned = plan(replace(GIVEN, window_s=2 * DAY_S), Wish(effect=0.2))
    assert planned.days == pytest.approx(7.0 + 2.0 + 2.0 / 24, abs=0.01)
    by_rows = plan(replace(GIVEN, cycle_days=0, window_s=3600.0), Wish(effect=0.05))
    assert by_rows.days == pytest.approx(by_rows.rows / 500.0 + 3660.0 / DAY_S, abs=0.02)


def test_days_that_vary_take_longer_than_alike_ones():
    assert plan(replace(GIVEN, day_variance=0.01), Wish(effect=0.05)).days > plan(GIVEN, Wish(effect=0.05)).days


def test_a_negative_that_is_a_missing_label_waits_for_late_ones():
    slow = replace(GIVEN, rows_per_day=100_000.0, cycle_days=0, window_s=10 * DAY_S, assumes_negative=True)
    assert plan(slow, Wish(effect=0.1)).days > 20.0


def test_hidden_labels_cost_what_their_weights_do():
    planned = plan(GIVEN, Wish(effect=0.05, hidden_share=0.5, exploration_share=0.1))
    assert planned.exploration_factor == pytest.approx(5.5)
    seen = replace(GIVEN, hidden_share=0.5, exploration_share=0.1)
    assert plan(seen, Wish(effect=0.05)).exploration_factor == 1.0
    assert plan(seen, Wish(effect=0.05, exploration_share=0.2)).exploration_factor == pytest.approx(3.0 / 5.5)


def test_a_planned_end_costs_a_known_share_more_than_one_look_alone():
    planned = plan(GIVEN, Wish(effect=0.05, power=0.5))
    assert planned.horizon_rows / planned.fixed_rows == pytest.approx(1.31, abs=0.01)


@pytest.mark.parametrize("hypothesis", ["non-inferiority", "no difference"])
def test_a_claim_with_a_margin_is_planned_by_the_distance_to_it(hypothesis):
    wide, narrow = (plan(GIVEN, Wish(effect=0.0, hypothesis=hypothesis, margin=m)) for m in (0.1, 0.05))
    assert narrow.rows == pytest.approx(4.0 * wide.rows, rel=0.1)


def world_with_days() -> tuple[World, object]:
    random, days = np.random.default_rng(5), 14
    day = np.repeat(np.arange(days), 500)
    matured = rows(random, len(day), scores=(0.2, 0.2), day=DAY + day)
    world = World(declared={"cycle_days": 7, "cycle_reason": ""})
    return world, world.snapshot(matured, watermark=MIDNIGHT + days * DAY_S + 3600.0 * (1 + 1 / 24))


def test_the_record_is_what_the_champion_has():
    world, snapshot = world_with_days()
    record = record_of(world.revision, [snapshot], metric_named("log_loss"))
    loss = np.log(4.0)  # from one outcome to the other at a score of .2
    assert record.row_variance == pytest.approx(0.25 * 0.75 * loss**2, rel=0.2)
    assert record.rows_per_day == pytest.approx(500.0)
    assert record.days == 14
    assert record.day_spread == pytest.approx(np.sqrt(0.25 * 0.75 / 250.0) * loss, rel=0.5)
    assert record.day_variance < 0.5 * 4.0 * record.row_variance / 500.0
    assert record_of(world.revision, [], metric_named("log_loss")) is None


async def test_a_plan_says_whose_record_it_is_and_what_to_declare():
    world, snapshot = world_with_days()
    planned = await plan_experiment(
        reads([world.revision], [snapshot]), PlanRequest(model="m", metric="log_loss", effect=0.05)
    )
    text = " ".join(planned.sentences)
    assert planned.experiment == "e"
    assert f"tuning_n {planned.tuning_n:,}" in text
    assert "The record is that of e" in text
    assert "whole cycles of 7 days" in text


async def test_figures_that_are_given_need_no_record():
    request = PlanRequest(model="m", metric="brier", effect=0.01, standard_deviation=0.2, rows_per_day=1_000.0)
    planned = await plan_experiment(reads(), request)
    assert (planned.experiment, planned.row_variance) == (None, pytest.approx(0.04))
    assert planned.rows_per_day == 1_000.0


async def test_without_a_record_the_problem_says_how_to_get_one():
    with pytest.raises(NoRecord, match="champion against itself"):
        await plan_experiment(reads(), PlanRequest(model="m", metric="brier", effect=0.01))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"effect": 0.0}, "effect"),
        ({"effect": -1.0}, "effect"),
        ({"shares": [1.0]}, "shares"),
        ({"shares": [0.9, 0.9]}, "shares"),
        ({"shares": [1.0, 0.0]}, "shares"),
        ({"alpha": 0.9}, "alpha"),
        ({"power": 1.0}, "power"),
        ({"hypothesis": "non-inferiority"}, "margin"),
        ({"hypothesis": "no difference", "margin": 0.01, "effect": 0.02}, "effect"),
        ({"hidden_share": 0.5}, "hidden_share"),
        ({"exploration_share": 0.0}, "exploration_share"),
        ({"rows_per_day": -1.0}, "rows_per_day"),
        ({"metric": "calibration_error"}, "metric"),
        ({"metric": "nonsense"}, "metric"),
    ],
)
async def test_what_can_not_be_planned_is_refused_by_field(wrong, field):
    right = PlanRequest(model="m", metric="brier", effect=0.01, standard_deviation=0.2, rows_per_day=1_000.0)
    with pytest.raises(InvalidPlan) as refusal:
        await plan_experiment(reads(), msgspec.structs.replace(right, **wrong))
    assert {fault.field for fault in refusal.value.errors} == {field}
