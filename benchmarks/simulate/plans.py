"""Plans and forecasts against simulated experiments: the rows of a verdict, and whether half decide by the median."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
from scipy.special import expit

from benchmarks.simulate.lines import Lines
from benchmarks.simulate.worlds import Floats, Integers
from contender.contracts.feedback_service import Counts, DayPoint, Forecast, Verdict, VerdictStatus
from contender.contracts.metrics import metric_named
from contender.contracts.tasks import task_named
from services.feedback_service.domain.assessing import Assessment, Circumstances
from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.day_sequence import cycle_effects, day_by_day, day_sequence
from services.feedback_service.domain.design import ExperimentDesign
from services.feedback_service.domain.forecasting import forecast_of
from services.feedback_service.domain.memory import ChallengerMemory, RunningSequence
from services.feedback_service.domain.merging import Arm, Tally
from services.feedback_service.domain.planning import Record, Wish, plan
from services.feedback_service.domain.sentences import Contest
from services.feedback_service.domain.sequences import Intervals, RowLook
from services.feedback_service.domain.sums.estimates import Estimate
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered
from services.feedback_service.domain.sums.units import BUCKETS
from services.feedback_service.domain.verdicts import Evidence

ALPHA, SEED = 0.05, 7
_RECORD_ROWS, _TRUTH_ROWS, _LOOKS, _TIMES = 10_000, 400_000, 120, 3
_OFF, _FEWEST = 0.25, 60
_TUNING_N, _LONGEST_DAYS, _SCALE = 5_000, 364, 0.05


@dataclass(frozen=True, slots=True)
class PlannedWorld:
    """Rows of a champion and a better challenger.

    Attributes:
        metric: what decides.
        base: logit of the base rate of a binary model.
        flat: how much of its spread the champion's scores keep; of a regression, by how much its errors are larger.
        share: the challenger's share.
        unit_rows: rows of a unit, which come one after the other and share its base rate.
    """

    metric: str
    base: float = -1.3
    flat: float = 0.5
    share: float = 0.5
    unit_rows: int = 1

    def rows(self, random: np.random.Generator, n: int) -> tuple[Integers, Integers, Floats, Floats]:
        """Of each row the arm and the unit's bucket, and its value under champion and challenger; shape (rows,)."""
        count = -(-n // self.unit_rows)
        unit = np.repeat(np.arange(count), self.unit_rows)[:n]
        arms, buckets = (random.random(count) < self.share).astype(np.int64), random.integers(0, BUCKETS, count)
        metric = metric_named(self.metric)
        if "regression" in metric.values:
            outcomes = random.normal(size=n)
            values = [metric.row_values("regression", outcomes * k, np.zeros(n)) for k in (1.0 + self.flat, 1.0)]
        else:
            logits = random.normal(size=n)
            shift = 0.8 * random.normal(size=count) if self.unit_rows > 1 else np.zeros(count)
            outcomes = (random.random(n) < expit(self.base + shift[unit] + logits)).astype(np.float64)
            guesses = (self.flat * logits + (1.0 - self.flat) * random.normal(size=n), logits)
            values = [metric.row_values("binary", outcomes, expit(self.base + guess)) for guess in guesses]
        return arms[unit], buckets[unit], values[0], values[1]


WORLDS = {
    "log loss": PlannedWorld("log_loss"),
    "log loss, base rate 5 %": PlannedWorld("log_loss", base=-3.4, flat=0.4),
    "log loss, a small effect": PlannedWorld("log_loss", flat=0.65),
    "log loss, 90/10": PlannedWorld("log_loss", share=0.1),
    "log loss, units of 10 rows": PlannedWorld("log_loss", unit_rows=10),
    "Brier score": PlannedWorld("brier", flat=0.4),
    "accuracy": PlannedWorld("accuracy", base=0.0),
    "accuracy, 90/10": PlannedWorld("accuracy", base=0.0, flat=0.3, share=0.1),
    "absolute error, 6 % smaller": PlannedWorld("absolute_error", flat=0.06),
    "squared error, 10 % smaller, 90/10": PlannedWorld("squared_error", flat=0.05, share=0.1),
}


def planned_rows(world: PlannedWorld, runs: int) -> tuple[int, float]:
    """The planned rows, and the median of those at which runs first exclude zero.

    The plan knows the true effect and a record of 10,000 rows of the champion in both arms.
    """
    random = np.random.default_rng(SEED)
    _, buckets, champion, _ = world.rows(random, _RECORD_ROWS)
    estimate = ClusteredSums.of(buckets, champion).estimate
    _, _, *values = world.rows(random, _TRUTH_ROWS)
    record = Record(row_variance=estimate.n * estimate.standard_error**2, rows_per_day=1_000.0)
    planned = plan(
        record, Wish(effect=abs(float(np.mean(values[1] - values[0]))), shares=(1 - world.share, world.share))
    )
    rows = planned.rows or 0
    first = [_decides_at(world, random, _TIMES * rows, planned.tuning_n) for _ in range(runs)]
    return rows, float(np.median(first))


def _decides_at(world: PlannedWorld, random: np.random.Generator, n: int, tuning_n: int) -> float:
    arms, buckets, *values = world.rows(random, n)
    served = np.where(arms == 1, values[1], values[0])
    sums, ends = [ClusteredSums(), ClusteredSums()], np.linspace(0, n, _LOOKS + 1).astype(int)
    for start, end in pairwise(ends.tolist()):
        for arm in (0, 1):
            here = start + np.flatnonzero(arms[start:end] == arm)
            sums[arm] = sums[arm] + ClusteredSums.of(buckets[here], served[here])
        comparison = compare_clustered([(sums[0], sums[1])]) if min(part.n for part in sums) >= 100 else None  # noqa: PLR2004
        if comparison and confidence_sequence(comparison.effect, alpha=ALPHA, tuning_n=tuning_n).excludes_zero:
            return float(end)
    return np.inf


def plans(runs: int) -> tuple[str, bool]:
    """Planned rows against the median of simulated experiments, in each of the worlds."""
    ratios = {}
    for name, world in WORLDS.items():
        planned, came = planned_rows(world, runs)
        ratios[name] = planned / came
    came_all = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    room = _OFF + (1.3 * runs**-0.5 if runs < 100 else 0.0)  # noqa: PLR2004 - the runs of the figure
    right = all(1.0 - room <= ratio <= 1.0 + room for ratio in ratios.values())
    return f"planned rows / simulated median {came_all}; wanted .75 to 1.25 each", right


@dataclass(slots=True)
class _Course:
    """An experiment of independent rows, day by day; the variance of the effect is 1 per row."""

    effects: Floats
    running: RunningSequence
    per_day: int
    days: int = 0

    @property
    def look(self) -> ConfidenceSequence:
        """The look at its rows."""
        n = self.days * self.per_day
        estimate = Estimate(float(self.effects[: self.days].mean()), n**-0.5, n)
        return confidence_sequence(estimate, alpha=ALPHA, tuning_n=_TUNING_N)

    @property
    def totals(self) -> list[dict[int, dict[int, float]]]:
        """The totals of champion and challenger by day."""
        half = self.per_day / 2.0
        return [
            {day: {0: half, 1: half * sign * float(effect) / 2.0} for day, effect in enumerate(self.effects)}
            for sign in (-1.0, 1.0)
        ]


def decided_by(runs: int, *, cycle: int, scale: float, day_scale: float = 0.0) -> tuple[float, float, int]:
    """The shares of experiments decided before, and at or before, the stated median; and how many had one.

    Effects come from a normal distribution around zero whose standard deviation is `scale`, so that a third of them
    are small (N* suits one of .043); those of days vary by `day_scale` around it. The statement is made after the first
    whole cycle, or where there are none after a fifth of N*, where nothing is decided yet and a verdict is in reach.
    """
    random, before, by, stated = np.random.default_rng(SEED), 0, 0, 0
    per_day = 500 if cycle else 50  # looks at rows alone are many
    at = cycle or _TUNING_N // 5 // per_day
    for _ in range(100 * runs):
        if stated == runs:
            break
        days = random.normal(random.normal(0.0, scale), (1.0 / per_day + day_scale**2) ** 0.5, _LONGEST_DAYS + at)
        course = _Course(days, RunningSequence(), per_day)
        found = _decision(course, cycle, at)
        forecast = _stated(course, cycle, at) if found > at else None
        if forecast is None or forecast.days_left is None:
            continue
        stated += 1
        before += found - at < forecast.days_left - 0.5
        by += found - at <= forecast.days_left + 0.5
    return before / stated, by / stated, stated


def _decision(course: _Course, cycle: int, at: int) -> float:
    """The day of the verdict, infinite where none comes; the running interval is kept as of day `at`."""
    running, totals, kept = RunningSequence(), course.totals, None
    found = np.inf
    for day in range(1, len(course.effects) + 1):
        course.days = day
        running = running.after_or_anew(course.look)
        if day == at:
            kept = running
        if cycle and not day % cycle and running.excludes_zero:
            sequence = day_sequence(cycle_effects(ClusteredSums, [(totals[0], totals[1])], range(day), cycle), ALPHA)
            agrees = (
                sequence is not None and sequence[1].excludes_zero and (sequence[1].low > 0.0) == (running.low > 0.0)
            )
            found = min(found, day if agrees else np.inf)
        elif not cycle and running.excludes_zero:
            found = min(found, day)
        if found <= day and day >= at:
            break
    course.running = kept or running
    return float(found)


def _stated(course: _Course, cycle: int, at: int) -> Forecast | None:
    """The forecast of the product at day `at`."""
    course.days = at
    look, metric = course.look, metric_named("accuracy")
    design = ExperimentDesign(
        name="e", status="running", model="m", champion="champion", challengers=("challenger",), versions={}, shares={},
        task=task_named("binary"), metric=metric, alpha=ALPHA, tuning_n=_TUNING_N, window_s=3600.0, missing="excluded",
        clock="event", time_zone=ZoneInfo("UTC"), cycle_days=cycle,
    )  # fmt: skip
    matured, half = Tally(Counts(predictions=look.n // 2)), course.per_day // 2
    arms = {
        (0, name): Arm(matured=matured, day_rows=dict.fromkeys(range(at), half)) for name in ("champion", "challenger")
    }
    given = Circumstances(design, arms, range(at), 1.0, at * 86_400.0 + 3600.0 + 150.0, None)
    status: VerdictStatus = "leading" if course.running.excludes_zero else "collecting"
    verdict = Verdict(status, "", "challenger")
    evidence = Evidence(effect=RowLook(look, Intervals(course.running, course.running)))
    assessment = Assessment(
        challenger="challenger",
        contest=Contest(champion="champion", challenger="challenger", metric="accuracy", lower_is_better=False),
        evidence=evidence,
        verdict=verdict,
        failures=[],
        effects={},
        segments=[],
        memory=ChallengerMemory(),
    )
    return forecast_of(given, assessment, verdict, _timeline(course, cycle, at))


def _timeline(course: _Course, cycle: int, at: int) -> Sequence[DayPoint]:
    totals = course.totals
    return day_by_day(ClusteredSums, [(totals[0], totals[1])], range(at), cycle, ALPHA)


def days_left(runs: int, *, cycle: int, day_scale: float = 0.0) -> tuple[str, bool]:
    """Whether half of the experiments are decided by the stated median.

    Where verdicts come at the ends of cycles alone, several fall on the stated day: half of those count.
    """
    before, by, stated = decided_by(max(runs, _FEWEST), cycle=cycle, scale=_SCALE, day_scale=day_scale)
    share = (before + by) / 2.0 if cycle else by
    room = 0.1 + 1.65 * 0.5 * (stated**-0.5 if stated < 200 else 0.0)  # noqa: PLR2004 - the runs of the figure
    came = f"decided before the stated day {before:.1%}, by its end {by:.1%} of {stated}"
    return f"{came}; wanted 50 % +- 10", abs(share - 0.5) <= room


LINES: Lines = {
    "planned rows": (plans, 100),
    "days left, rows alone": (partial(days_left, cycle=0), 200),
    "days left, whole weeks": (partial(days_left, cycle=7), 200),
    "days left, days that vary": (partial(days_left, cycle=7, day_scale=0.04), 200),
}
