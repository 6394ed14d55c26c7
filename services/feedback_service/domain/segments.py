"""The effect among the rows of each declared segment, which segments differ, and which are harmed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contender.contracts import limits
from contender.contracts.feedback_service import SegmentEffect
from contender.contracts.metrics.metric import LABELLED, MEAN, Metric
from services.feedback_service.domain.confidence import ConfidenceSequence, Floats, half_width, p_value
from services.feedback_service.domain.merging import Arm
from services.feedback_service.domain.snapshots import segment_of
from services.feedback_service.domain.split import MIN_MATURED_ROWS
from services.feedback_service.domain.sums.metric_sums import dense
from services.feedback_service.domain.sums.score_histogram import MIN_UNIT_GROUPS, UNIT_GROUPS

_ROUNDING = 1e-12
_LARGEST_E = 1e300


@dataclass(frozen=True, slots=True, eq=False)
class GroupEffects:
    """Challenger minus champion in several segments: arrays of shape (segments,).

    `n` counts the rows of both arms. The standard error is infinite where there are too few, or they do not vary.
    """

    values: Floats
    errors: Floats
    n: Floats

    def sequence(self, alpha: float, tuning_n: int) -> tuple[Floats, Floats, Floats]:
        """The look at each segment: the ends of its interval, infinite where the error is, and p."""
        known = np.isfinite(self.errors)
        errors, n = np.where(known, self.errors, 1.0), np.maximum(self.n, 1.0)
        reach = np.where(known, half_width(errors, n, alpha=alpha, tuning_n=tuning_n), np.inf)
        p = np.where(known, p_value(self.values, errors, n, alpha=alpha, tuning_n=tuning_n), 1.0)
        return self.values - reach, self.values + reach, p


@dataclass(frozen=True, slots=True)
class SegmentLook:
    """A look at one segment."""

    key: str
    value: str | None
    look: ConfidenceSequence


def compare_groups(rows: Floats, totals: Floats) -> GroupEffects:
    """Compare the means of both arms in each segment, over epochs, with groups of units as the observations.

    As `compare_clustered`: epochs weigh n p (1 - p), and a group's influence is added up over arms and epochs before it
    is squared. From k groups the variance is uncertain: it is taken (k - 1) / (k - 3) times, as Student's t has it (see
    `ScoreHistogram.influence`). An epoch counts where the rows of each arm are spread over MIN_UNIT_GROUPS groups, as
    few uneven groups as many even ones (Kish, 1965), and a segment where each arm has MIN_MATURED_ROWS rows in them.

    Args:
        rows: shape (segments, epochs, 2, UNIT_GROUPS), the champion's first.
        totals: the sums of the metric, of the same shape.
    """
    n = rows.sum(axis=-1)
    safe = np.maximum(n, 1.0)
    filled = np.count_nonzero(rows, axis=-1)
    effective = np.square(n) / np.maximum(np.square(rows).sum(axis=-1), 1.0)
    counted = effective.min(axis=-1) >= MIN_UNIT_GROUPS
    means = totals.sum(axis=-1) / safe
    residuals = totals - means[..., np.newaxis] * rows
    varies = np.square(residuals).sum(axis=-1) > _ROUNDING * np.square(totals).sum(axis=-1)
    influence = np.where(varies, np.sqrt(filled / np.maximum(filled - 1, 1)) / safe, 0.0)[..., np.newaxis] * residuals
    weights = np.where(counted, n.prod(axis=-1) / np.maximum(n.sum(axis=-1), 1.0), 0.0)
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    values = (weights * (means[..., 1] - means[..., 0])).sum(axis=-1)
    moved = _stretch(influence, safe)[..., np.newaxis] * (influence[..., 1, :] - influence[..., 0, :])
    variances = np.square((weights[..., np.newaxis] * moved).sum(axis=-2)).sum(axis=-1)
    k = np.where(counted, filled.min(axis=-1), UNIT_GROUPS).min(axis=-1)
    errors = np.sqrt(variances * (k - 1) / (k - 3))
    errors = np.where(errors > 0.0, errors, np.abs(values) / np.sqrt(2.0 * k))  # as `never_certain`
    arms = np.where(counted[..., np.newaxis], n, 0.0).sum(axis=1)
    known = (arms.min(axis=-1) >= MIN_MATURED_ROWS) & (errors > 0.0)
    return GroupEffects(
        np.where(counted.any(axis=-1), values, np.nan), np.where(known, errors, np.inf), n.sum(axis=(1, 2))
    )


def _stretch(influence: Floats, n: Floats) -> Floats:
    """By how much the common variance of both arms exceeds their own, as `estimates.effect`; (segments, epochs)."""
    variances = np.square(influence).sum(axis=-1)
    own = variances.sum(axis=-1)
    common = (np.square(n) * variances).sum(axis=-1) / n.sum(axis=-1) * (1.0 / n).sum(axis=-1)
    stretch: Floats = np.sqrt(np.maximum(1.0, common / np.where(own > 0.0, own, np.inf)))
    return stretch


def segment_effects(
    pairs: Sequence[tuple[Arm, Arm]], metric: Metric, keys: Sequence[str]
) -> tuple[list[str], GroupEffects]:
    """The effect in each segment, by the names of their ledgers: in the order of the keys, the most rows first.

    Args:
        pairs: champion and challenger by epoch.
        metric: a mean over rows with an outcome; others have no sums by segment.
        keys: the declared keys.
    """
    seen = {name for pair in pairs for arm in pair for name, sums in arm.segments.items() if metric.totals_name in sums}
    ledgers = sorted(name for name in seen if segment_of(name)[0] in keys)
    if not ledgers or metric.sums != MEAN or metric.ledger != LABELLED:
        return [], compare_groups(*np.zeros((2, 0, 1, 2, UNIT_GROUPS)))
    empty: Mapping[str, Mapping[int, float]] = {}
    rows, totals = (
        np.array(
            [
                [[dense(arm.segments.get(ledger, empty).get(name, {}), UNIT_GROUPS) for arm in pair] for pair in pairs]
                for ledger in ledgers
            ]
        )
        for name in ("", metric.totals_name)
    )
    counts = rows.sum(axis=(1, 2, 3))
    order = sorted(range(len(ledgers)), key=lambda at: (*_place(ledgers[at], keys), -counts[at], ledgers[at]))
    return [ledgers[at] for at in order], compare_groups(rows[order], totals[order])


def _place(ledger: str, keys: Sequence[str]) -> tuple[int, bool]:
    key, value = segment_of(ledger)
    return keys.index(key), value is None


def look_at_segments(
    ledgers: Sequence[str], effects: GroupEffects, alpha: float, tuning_n: int, least_p: Mapping[str, float]
) -> tuple[list[SegmentEffect], dict[str, float]]:
    """The effect in each segment with its interval, and which are found to differ; and the least p of each.

    The segments found are those of `find` over all looks. The intervals are of this look, each at alpha.

    Args:
        ledgers: the names of the segments.
        effects: theirs.
        alpha: that of each interval, and the false discovery rate.
        tuning_n: the rows at which an interval is tightest.
        least_p: the least p of the looks before, by ledger; 1 where it is missing.
    """
    lows, highs, p = effects.sequence(alpha, tuning_n)
    p = np.minimum(p, [least_p.get(ledger, 1.0) for ledger in ledgers])
    found = find(p, alpha)
    shown = [
        SegmentEffect(
            segment=segment_of(ledger)[0],
            value=segment_of(ledger)[1],
            n=int(effects.n[at]),
            estimate=_finite(effects.values[at]),
            low=_finite(lows[at]),
            high=_finite(highs[at]),
            found=bool(found[at]),
        )
        for at, ledger in enumerate(ledgers)
    ]
    kept = {ledger: value for ledger, value in zip(ledgers, p.tolist(), strict=True) if value < 1.0}
    return shown, {**least_p, **kept}


def find(least_p: Floats, rate: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The segments whose effect is not zero, at a false discovery rate, whenever one looks; shape (segments,).

    The least p is the inverse of the running maximum of an e-value, the mixture martingale of `confidence.p_value`. A
    maximum over looks is no e-value, but A(x) = (x - 1 - ln x) / (ln x)^2 of it is: the mixture over k in (0, 1) of the
    adjusters k x^(1 - k), for each of which the integral of A(x) / x^2 from 1 on is 1. Source: Tavyrikov, Koning et
    al., arXiv 2501.19360; Shafer, Shen, Vereshchagin, Vovk, Test martingales, Bayes factors and p-values, 2011. The
    adjusted ones go through e-BH, which needs no independence of the segments: of m the k with the largest e-values are
    found where the least of these is at least m / (k rate), for the largest such k. Source: Wang and Ramdas, False
    discovery rate control with e-values, JRSS B 2022.
    """
    e = np.minimum(1.0 / np.maximum(least_p, 1.0 / _LARGEST_E), _LARGEST_E)
    adjusted = adjust(e)
    order = np.argsort(-adjusted)
    ranks = np.arange(1, len(order) + 1)
    passed = ranks[adjusted[order] * ranks * rate >= len(order)]
    found = np.zeros(len(order), dtype=np.bool_)
    found[order[: passed.max(initial=0)]] = True
    return found


def adjust(e: Floats) -> Floats:
    """The e-value that a running maximum of e-values, at least 1, leaves (see `find`)."""
    logs = np.log(e)
    near = logs < 1e-4  # noqa: PLR2004 - where the difference below is lost to rounding; the limit at 1 is 1/2
    squares = np.where(near, 1.0, np.square(logs))
    adjusted: Floats = np.where(near, 0.5, (e - 1.0 - logs) / squares)
    return adjusted


def harmed_segment(
    pairs: Sequence[tuple[Arm, Arm]], guardrail: tuple[Metric, float, str], alpha: float, tuning_n: int
) -> SegmentLook | None:
    """The segment in which the challenger is worse by more than the margin, and the most; None where none is.

    The values of the key share alpha, by Bonferroni: SEGMENT_VALUES and the rest together, or as many as there are
    where partitions tell different ones apart. Nothing is remembered: a look alone must show it.

    Args:
        pairs: champion and challenger by epoch.
        guardrail: its metric, its margin in the metric's unit, and the key of its segments.
        alpha: that of the guardrail, for one side.
        tuning_n: the rows at which the interval is tightest.
    """
    metric, margin, key = guardrail
    ledgers, effects = segment_effects(pairs, metric, [key])
    if not ledgers:
        return None
    each = alpha / max(limits.SEGMENT_VALUES + 1, len(ledgers))
    lows, highs, p = effects.sequence(2.0 * each, tuning_n)
    harms = lows if metric.lower_is_better else -highs
    worst = int(np.argmax(np.nan_to_num(harms, nan=-np.inf)))
    if not harms[worst] > margin:
        return None
    look = ConfidenceSequence(
        float(effects.values[worst]), float(lows[worst]), float(highs[worst]), float(p[worst]), int(effects.n[worst])
    )
    return SegmentLook(*segment_of(ledgers[worst]), look)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
