"""Plans an experiment: the rows and days that a verdict takes, from how much a champion's rows and days vary."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import norm

from contender.contracts.feedback_service import Plan
from contender.contracts.values import Hypothesis
from services.feedback_service.domain.confidence import half_width
from services.feedback_service.domain.days import DAY_S
from services.feedback_service.domain.passages import Claim, DayEvidence, Floats, RowEvidence, by_days, by_rows
from services.feedback_service.domain.sequences import both_sides
from services.feedback_service.domain.split import MIN_MATURED_ROWS
from services.feedback_service.domain.traffic import maturing_s

COURSES = 2_000
_LONGEST_DAYS = 730
_MOST_ROWS = 50.0
"""The last look, in units of the rows at which the interval is as narrow as the effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a model's rows before an experiment.

    Attributes:
        experiment: whose rows they are; empty: the figures were given.
        n: the champion's rows.
        row_variance: their variance per row, n se^2, which allows for units that return.
        rows_per_day: answered rows of all variants in a day.
        labelled_share: the share of them that count.
        day_variance: the variance of a day's effect beyond what its rows bring.
        day_spread: the standard deviation of the champion's means of days, for comparison; None: too few days.
        days: the whole days behind both.
        window_s, cycle_days, assumes_negative: those of the experiment.
        hidden_share: the share of rows whose label was hidden, and `exploration_share` of them seen all the same.
    """

    experiment: str = ""
    n: int = 0
    row_variance: float
    rows_per_day: float
    labelled_share: float = 1.0
    day_variance: float = 0.0
    day_spread: float | None = None
    days: int = 0
    window_s: float = DAY_S
    cycle_days: int = 7
    assumes_negative: bool = False
    hidden_share: float = 0.0
    exploration_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an experiment should find, and how it is laid out.

    Attributes:
        effect: how much better the challenger is, in the metric's unit; at least 0.
        shares: of the variants, the champion's first.
        power: the probability of a verdict that `Plan.rows_at_power` is for.
        hidden_share: the share of rows whose label is hidden; None: as in the record.
        exploration_share: the share of them whose label is seen all the same; None: as in the record.
    """

    effect: float
    shares: Sequence[float] = field(default=(0.5, 0.5))
    alpha: float = 0.05
    power: float = 0.8
    hypothesis: Hypothesis = "superiority"
    margin: float = 0.0
    hidden_share: float | None = None
    exploration_share: float | None = None

    @property
    def distance(self) -> float:
        """How far the effect is from what must be excluded."""
        return {
            "superiority": self.effect,
            "non-inferiority": self.margin + self.effect,
            "no difference": self.margin - self.effect,
        }[self.hypothesis]


def plan(record: Record, wish: Wish) -> Plan:
    """The plan, without its sentences.

    Rows are the labelled rows of the champion and its smallest challenger together, as `Effect.n` counts them. The
    median and the power are those of the time at which a running look first claims something (`passages`).
    """
    champion, challenger = wish.shares[0], min(wish.shares[1:])
    part = challenger / (champion + challenger)
    factor = exploration_factor(record, wish)
    variance = factor * record.row_variance * (1.0 / part + 1.0 / (1.0 - part))
    claim = _claim(wish, variance)
    truth = np.full(COURSES, wish.effect)
    evidence = RowEvidence(variance=variance)
    first = MIN_MATURED_ROWS / min(part, 1.0 - part)
    passages = by_rows(claim, evidence, truth, first=first, limit=max(_MOST_ROWS * claim.tuning_n, 10.0 * first))
    rows, rows_at_power = (_quantile(passages.rows, share) for share in (0.5, wish.power))
    per_day = record.rows_per_day * record.labelled_share * (champion + challenger)
    reached = passages.rows / per_day
    if record.cycle_days:
        days_so_far = DayEvidence(cycle=record.cycle_days, variance=record.day_variance + variance / per_day)
        reached = by_days(claim, evidence, days_so_far, truth, per_day=per_day, limit=_LONGEST_DAYS).days
    days, days_at_power = _days(record, wish, reached)
    alpha = claim.alpha_rows if wish.hypothesis == "superiority" else both_sides(claim.alpha_rows)
    return Plan(
        tuning_n=claim.tuning_n,
        rows=_whole(rows),
        rows_at_power=_whole(rows_at_power),
        days=days,
        days_at_power=days_at_power,
        rows_per_day=per_day,
        horizon_rows=round(variance * ((_z(alpha / 2.0) + norm.ppf(wish.power)) / wish.distance) ** 2),
        fixed_rows=round(variance * ((_z(alpha) + norm.ppf(wish.power)) / wish.distance) ** 2),
        row_variance=record.row_variance,
        effect_variance=variance,
        day_variance=record.day_variance,
        day_spread=record.day_spread,
        exploration_factor=factor,
        experiment=record.experiment or None,
        record_rows=record.n,
        record_days=record.days,
        cycle_days=record.cycle_days,
        window_s=record.window_s,
    )


def exploration_factor(record: Record, wish: Wish) -> float:
    """By how much labels that are hidden, but for an explored share, raise the variance against that of the record.

    A row stands for 1 / e others where e is the probability that its label is seen, so the variance of the weighted
    mean is 1 - h + h / e of the plain one, h being the share of hidden rows (Horvitz, Thompson, JASA 1952). Values are
    taken for alike in hidden rows and others.
    """
    hidden = record.hidden_share if wish.hidden_share is None else wish.hidden_share
    explored = record.exploration_share if wish.exploration_share is None else wish.exploration_share
    return _spread(hidden, explored) / _spread(record.hidden_share, record.exploration_share)


def _spread(hidden: float, explored: float) -> float:
    return 1.0 - hidden + hidden / explored


def _claim(wish: Wish, variance: float) -> Claim:
    """The claim with the N* that suits: where the interval that is tightest there is as narrow as the distance."""
    alpha = wish.alpha / (len(wish.shares) - 1)
    claim = Claim(hypothesis=wish.hypothesis, margin=wish.margin, alpha_rows=alpha, alpha_days=alpha)
    side = alpha if wish.hypothesis == "superiority" else both_sides(alpha)
    reach = float(half_width(1.0, 1, alpha=side, tuning_n=1))
    return replace(claim, tuning_n=max(1, round(variance * (reach / wish.distance) ** 2)))


def _days(record: Record, wish: Wish, reached: Floats) -> tuple[float | None, float | None]:
    """Days until a verdict, in the median and at the power, with the time in which the last row matures.

    Where a missing label is negative, late ones are waited for from when either variant has enough labels.
    """
    matures = maturing_s(record.window_s) / DAY_S
    tail = 0.0
    if record.assumes_negative:
        tail = MIN_MATURED_ROWS / min(wish.shares) / record.rows_per_day + record.window_s / DAY_S
    median, at_power = (max(_quantile(reached, share), tail) + matures for share in (0.5, wish.power))
    return _known(median), _known(at_power)


def _quantile(values: Floats, share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


def _z(alpha: float) -> float:
    return float(norm.ppf(1.0 - alpha / 2.0))


def _whole(rows: float) -> int | None:
    return round(rows) if np.isfinite(rows) else None


def _known(days: float) -> float | None:
    return round(days, 2) if np.isfinite(days) else None
