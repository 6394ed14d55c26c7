"""Worlds that broke verdicts, in small: each looked at many times, with what must come out."""

import numpy as np
import pytest
from scipy.special import expit

from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.worlds import DAY, DAY_S, MIDNIGHT, START, Rows, World


def statuses(world: World, rows: Rows, looks: int, **seen) -> list[str]:
    n = len(rows.arm)
    return [world.look(rows.first(k * n // looks), **seen).results.verdict.status for k in range(1, looks + 1)]


def regression(rng: np.random.Generator, n: int, worse: float) -> Rows:
    arm = rng.integers(0, 2, n)
    error = rng.normal(size=n) * np.where(arm == 0, 1.0 + worse, 1.0)
    return Rows(arm, np.zeros(n), error, rng.integers(0, BUCKETS, n))


def test_a_verdict_is_never_taken_back():
    decided = 0
    for seed in range(12):
        world = World(task="regression", declared={"metric": "absolute_error"})
        found = statuses(world, regression(np.random.default_rng(seed), 16_000, 0.1), 25)
        first = next((index for index, status in enumerate(found) if status == "challenger better"), len(found))
        assert set(found[first:]) <= {"challenger better"}
        assert "champion better" not in found
        decided += first < len(found)
    assert decided >= 10


def test_equal_models_are_rarely_told_apart():
    wrong = 0
    for seed in range(25):
        world = World(task="regression", declared={"metric": "absolute_error"})
        found = statuses(world, regression(np.random.default_rng(100 + seed), 10_000, 0.0), 20)
        wrong += any("better" in status for status in found)
    assert wrong <= 3


def test_a_champion_that_drops_hard_rows_is_found_out():
    wrong = withheld = 0
    for seed in range(8):
        rng, n = np.random.default_rng(seed), 40_000
        score = expit(-1.3 + rng.normal(size=n))
        outcome, arm = (rng.random(n) < score).astype(float), rng.integers(0, 2, n)
        bucket = rng.integers(0, BUCKETS, n)
        loss = -np.log(np.where(outcome == 1.0, score, 1.0 - score))
        dropped = (arm == 0) & (loss > 1.5) & (rng.random(n) < 0.17)
        rows, world, status = Rows(arm, score, outcome, bucket), World(), ""
        for look in range(2_000, n + 1, 2_000):
            seen, lost = rows.first(look), dropped[:look]
            unanswered = [bucket[:look][lost], bucket[:0]]
            status = world.look(seen.of(~lost), unanswered=unanswered).results.verdict.status
        wrong += world.memory.verdict_on("challenger") is not None
        withheld += status == "withheld: unanswered rows"
    assert (wrong, withheld) == (0, 8)


@pytest.mark.parametrize("window_s", [3600.0, 7200.0])
def test_labels_of_one_arm_that_come_three_times_slower_are_withheld(window_s):
    for seed in range(4):
        rng, n = np.random.default_rng(seed), 20_000
        arm, score, time = rng.integers(0, 2, n), expit(-1.3 + rng.normal(size=n)), np.arange(float(n))
        positive, bucket = rng.random(n) < score, rng.integers(0, BUCKETS, n)
        delay_s = rng.exponential(np.where(arm == 0, 1_500.0, 4_500.0))
        label = np.where(positive & (delay_s <= window_s), 1.0, np.nan)
        world = World(missing="negative", window_s=window_s)
        for look in range(1_000, n + 1, 1_000):
            now = float(time[look - 1]) + window_s
            late = positive & (delay_s > window_s) & (time + delay_s <= now)
            rows = Rows(arm, score, label, bucket, late=late).first(look)
            status = world.look(rows, watermark=START + now).results.verdict.status
        assert world.memory.events == []
        assert status == "withheld: label tail"


def test_days_that_differ_as_those_of_flights_do_never_decide_for_the_worse_one():
    """The challenger is better on average, and worse on many days in a row: the weather lasts."""
    wrong, right, by_rows, days, per_day = 0, 0, 0, 35, 400
    for seed in range(12):
        rng = np.random.default_rng(seed)
        weather = np.zeros(days)
        for day in range(1, days):
            weather[day] = 0.6 * weather[day - 1] + rng.normal(0.0, 0.25)
        day = np.repeat(np.arange(days), per_day)
        arm = rng.integers(0, 2, len(day))
        error = rng.normal(size=len(day)) * np.where(arm == 1, np.exp(weather[day] - 0.05), 1.0)
        rows = Rows(arm, np.zeros(len(day)), error, rng.integers(0, BUCKETS, len(day)), DAY + day)
        world = World(task="regression", declared={"metric": "absolute_error", "cycle_days": 7, "cycle_reason": ""})
        led = set()
        for seen in range(1, days + 1):
            watermark = MIDNIGHT + seen * DAY_S + world.window_s * (1 + 1 / 24)
            results = world.look(rows.first(seen * per_day), watermark=watermark).results
            led |= {results.effects["challenger"]["absolute_error"].better}
        verdict = world.memory.verdict_on("challenger")
        wrong += verdict is not None and verdict.status == "champion better"
        right += verdict is not None and verdict.status == "challenger better"
        by_rows += False in led
    assert by_rows >= 3
    assert wrong == 0
