"""Days as observations: which are whole, and how often whole cycles of them decide wrongly or rightly."""

from zoneinfo import ZoneInfo

import numpy as np
import pytest

from services.feedback_service.domain.confidence import confidence_sequence
from services.feedback_service.domain.day_sequence import cycle_effects, cycles_wanted, day_sequence, whole_days
from services.feedback_service.domain.memory import RunningSequence
from services.feedback_service.domain.sums.estimates import Estimate
from services.feedback_service.domain.sums.mean import ClusteredSums
from tests.unit.feedback_service.worlds import BUCKETS, DAY, DAY_S, Rows, World

HOUR_S = 3600.0
MIDNIGHT = DAY * DAY_S


def whole(at: float, **changes: object) -> range:
    given = {
        "seen": range(DAY, DAY + 40),
        "clock": "wall",
        "time_zone": ZoneInfo("UTC"),
        "watermark": at,
        "window_s": HOUR_S,
        "began_at": MIDNIGHT + 10 * HOUR_S,
        "stopped_at": None,
    }
    return whole_days(**{**given, **changes})


def test_a_day_is_whole_once_its_window_and_a_cohort_have_passed() -> None:
    end = MIDNIGHT + 2 * DAY_S + HOUR_S + HOUR_S / 24
    assert len(whole(end - 1.0)) == 0
    assert list(whole(end)) == [DAY + 1]
    assert list(whole(end + DAY_S)) == [DAY + 1, DAY + 2]
    assert len(whole(MIDNIGHT)) == len(whole(1e300)) == len(whole(end, watermark=None)) == 0


@pytest.mark.parametrize(("began", "first"), [(0.0, DAY), (1799.0, DAY), (1801.0, DAY + 1), (None, DAY + 1)])
def test_the_day_of_the_start_is_whole_if_it_started_with_it(began: float | None, first: int) -> None:
    assert whole(MIDNIGHT + 5 * DAY_S, began_at=None if began is None else MIDNIGHT + began).start == first


def test_the_first_day_of_a_replay_is_whole() -> None:
    assert whole(MIDNIGHT + 5 * DAY_S, clock="event", began_at=MIDNIGHT + 900 * DAY_S).start == DAY


def test_the_day_of_the_stop_is_not_whole() -> None:
    assert whole(MIDNIGHT + 9 * DAY_S, stopped_at=MIDNIGHT + 4.5 * DAY_S).stop == DAY + 4
    assert whole(MIDNIGHT + 9 * DAY_S, stopped_at=MIDNIGHT + 5 * DAY_S - 60.0).stop == DAY + 5


def test_days_begin_at_midnight_in_the_experiments_time_zone() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    end = MIDNIGHT + 2 * DAY_S - 9 * HOUR_S + HOUR_S + HOUR_S / 24
    assert list(whole(end, time_zone=tokyo, began_at=MIDNIGHT)) == [DAY + 1]


def test_a_cycle_has_at_least_five_days() -> None:
    assert [cycles_wanted(cycle) for cycle in (0, 1, 3, 5, 7, 30)] == [0, 5, 6, 5, 7, 30]


def totals(rates: np.ndarray, rows: int) -> dict[int, dict[int, float]]:
    return {day: {0: float(rows), 1: float(hits)} for day, hits in enumerate(rates)}


def test_within_the_first_cycle_days_vary_as_they_do_and_later_around_their_own_weekday() -> None:
    differences = np.tile([0.3, 0.3, 0.3, 0.3, 0.3, -0.6, -0.6], 3) + np.repeat([0.00, 0.01, -0.01], 7)
    champion, challenger = totals(np.full(21, 50.0), 100), totals(50.0 + 100 * differences, 100)
    first, second, third = cycle_effects(ClusteredSums, [(champion, challenger)], range(21), 7)
    assert first.standard_error == pytest.approx(differences[:7].std(ddof=1) / np.sqrt(7))
    week = differences[:14].reshape(2, 7)
    assert second.standard_error == pytest.approx(np.sqrt(np.square(week - week.mean(0)).sum() / 7 / 14))
    assert [look.n for look in (first, second, third)] == [7, 14, 21]
    assert third.value == pytest.approx(differences.mean())


def test_days_that_have_no_rows_are_no_observations() -> None:
    champion = {day: value for day, value in totals(np.full(14, 50.0), 100).items() if day % 7 < 5}
    challenger = {day: {0: 100.0, 1: 50.0 + day} for day in champion}
    assert [look.n for look in cycle_effects(ClusteredSums, [(champion, challenger)], range(14), 7)] == [5, 10]
    few = {day: value for day, value in champion.items() if day % 7 < 4}
    assert [look.n for look in cycle_effects(ClusteredSums, [(few, few)], range(14), 7)] == [8]


def test_no_whole_cycle_is_no_sequence() -> None:
    assert day_sequence([], 0.05) is None


def signs(rng: np.random.Generator, effects: np.ndarray, rows: int) -> tuple[int, int]:
    """The sign of the verdict of rows alone, and of rows and days; looks at the end of each day."""
    days = len(effects)
    hits = rng.binomial(rows, 0.8, days), rng.binomial(rows, 0.8 + effects)
    by_cycle = cycle_effects(ClusteredSums, [(totals(hits[0], rows), totals(hits[1], rows))], range(days), 7)
    running, both_running, alone = RunningSequence(), RunningSequence(), 0
    for day in range(1, days + 1):
        shares = [float(arm[:day].sum()) / (rows * day) for arm in hits]
        error = float(np.sqrt(sum(share * (1 - share) for share in shares) / (rows * day)))
        look = Estimate(shares[1] - shares[0], error, 2 * rows * day)
        running = running.after_or_anew(confidence_sequence(look, alpha=0.05, tuning_n=5000))
        alone = alone or side(running)
        if day % 7 == 0:
            look = confidence_sequence(by_cycle[day // 7 - 1], alpha=0.05, tuning_n=28)
            both_running = both_running.after_or_anew(look)
        if side(running) and side(running) == side(both_running):
            return alone, side(running)
    return alone, 0


def side(running: RunningSequence) -> int:
    return int(running.low > 0.0) - int(running.high < 0.0)


def test_a_weekday_effect_never_decides_for_the_worse_one() -> None:
    rng, alone, together = np.random.default_rng(2), [], []
    for _ in range(60):
        start = rng.integers(7)
        effects = np.array([0.02 if (start + day) % 7 < 5 else -0.08 for day in range(56)])
        one, both = signs(rng, effects, 10_000)
        alone.append(one)
        together.append(both)
    assert np.mean(np.array(alone) > 0) > 0.5
    assert np.mean(np.array(together) > 0) == 0.0
    assert np.mean(np.array(together) < 0) > 0.9


def test_effects_of_days_that_average_to_nothing_decide_nothing() -> None:
    rng = np.random.default_rng(3)
    found = np.array([signs(rng, rng.normal(0.0, 0.02, 84), 2500) for _ in range(150)])
    assert np.mean(found[:, 0] != 0) > 0.4
    assert np.mean(found[:, 1] != 0) <= 0.05 + 1.65 * np.sqrt(0.05 * 0.95 / 150)


def test_independent_rows_decide_rarely_wrongly_and_a_week_later_at_most() -> None:
    rng = np.random.default_rng(4)
    assert np.mean([signs(rng, np.zeros(84), 2500)[1] != 0 for _ in range(100)]) <= 0.05
    assert np.mean([signs(rng, np.full(14, 0.04), 2500)[1] == 1 for _ in range(40)]) > 0.9


def by_day(rng: np.random.Generator, days: int, per_day: int, effect: float = 0.0) -> Rows:
    """Rows day by day, whose challenger is nearer the truth by `effect`, but for a weekday's share of its own."""
    n = days * per_day
    arm, day = rng.integers(0, 2, n), DAY + np.arange(n) // per_day
    outcome = (rng.random(n) < 0.25).astype(float)
    return Rows(arm, np.where(arm == 1, 0.25, 0.25 + effect), outcome, rng.integers(0, BUCKETS, n), day)


def test_a_verdict_comes_with_the_first_whole_week() -> None:
    world = World(declared={"cycle_days": 7, "cycle_reason": ""})
    rows = by_day(np.random.default_rng(5), 10, 1500, effect=0.3)
    statuses, counts = [], []
    for days in range(1, 11):
        watermark = MIDNIGHT + days * DAY_S + world.window_s + world.window_s / 24
        results = world.look(rows.first(days * 1500), watermark=watermark).results
        statuses.append(results.verdict.status)
        counts.append(results.days.whole)
    assert counts == list(range(1, 11))
    assert statuses == ["leading"] * 6 + ["challenger better"] * 4
    event = world.memory.events[0]
    assert (event.whole_days, event.effect.days.n) == (7, 7)
    assert event.sentence.endswith(", over 7 whole days.")
    points = results.timeline["challenger"]
    assert len({point.day for point in points}) == 10
    assert [point.low is None for point in points] == [True] * 4 + [False] * 6
    assert all(point.low < point.estimate < point.high for point in points[4:])
    assert results.days.wanted == 7
