"""What rows are worth by the formula that an experiment declares, and what they would be worth at other thresholds."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contender.contracts.feedback_service import CurvePoint
from contender.contracts.formula import SCORE, Formula, FormulaError
from contender.contracts.values import Scalar
from services.feedback_service.domain.snapshots import GroupSnapshot
from services.feedback_service.domain.sums.fixed_point import to_fixed_point
from services.feedback_service.domain.sums.metric_sums import dense

CURVE, ASSUMED_CURVE = "value curve", "assumed value curve"
"""The ledgers of the curve: rows with a label, and those whose missing label counts as negative."""

THRESHOLDS = tuple(step / 20 for step in range(21))

LARGEST_VALUE = 1e75
"""The largest value of a row in size: the square of its square is still a number."""

Floats = NDArray[np.float64]
CurveStep = tuple[int, int]
"""The index of a threshold, and by how much a row is worth more from there on, in units of `to_fixed_point`."""


@lru_cache(maxsize=256)
def formula_of(text: str) -> Formula:
    """The formula that a text spells, whatever names it uses.

    Raises:
        FormulaError: it is no formula.
    """
    return Formula.parse(text)


def row_value(text: str, values: Mapping[str, Scalar]) -> float | None:
    """What a row with these values by name is worth by a formula; None where it can't be computed."""
    return _value(formula_of(text), values)


def curve_steps(text: str, values: Mapping[str, Scalar], value: float) -> list[CurveStep]:
    """What a row adds to the curve: its value at the first threshold, and each change of it at a later one.

    A threshold is only ever compared with the score, so the value may change at the score alone, and is `value` at
    every threshold on the same side of it as that of the formula. Empty for a formula without a threshold, and where
    a value can't be computed.
    """
    declared, score = formula_of(text).threshold, values[SCORE]
    if declared is None or not isinstance(score, float):
        return []
    curve, side = _curve_of(text), _side(declared, score)
    changes = {0, bisect_left(THRESHOLDS, score), bisect_right(THRESHOLDS, score)} - {len(THRESHOLDS)}
    steps: list[CurveStep] = []
    before = 0
    for index in sorted(changes):
        there = value if _side(THRESHOLDS[index], score) == side else _value(curve[index], values)
        if there is None:
            return []
        units = to_fixed_point(there)
        steps.append((index, units - before))
        before = units
    return steps


def value_curves(groups: Sequence[GroupSnapshot]) -> dict[str, list[CurvePoint]]:
    """By variant the mean value of its matured rows at each threshold; without those that have no such rows."""
    rows: Counter[str] = Counter()
    steps: dict[str, Floats] = {}
    for group in groups:
        names = (CURVE, ASSUMED_CURVE) if group.missing == "negative" else (CURVE,)
        for sums in (cohort.ledgers.get(name) for cohort in group.cohorts if cohort.is_matured for name in names):
            if sums is not None:
                rows[group.variant] += sum(sums.rows.values())
                known = steps.setdefault(group.variant, np.zeros(len(THRESHOLDS)))
                known += dense(sums.totals.get(CURVE, {}), len(THRESHOLDS))
    return {
        variant: [
            CurvePoint(threshold, mean)
            for threshold, mean in zip(THRESHOLDS, (np.cumsum(of_variant) / rows[variant]).tolist(), strict=True)
        ]
        for variant, of_variant in steps.items()
        if rows[variant]
    }


def _side(threshold: float, score: float) -> int:
    """Whether a threshold is below (-1), at (0) or above (1) a score."""
    return (threshold > score) - (threshold < score)


@lru_cache(maxsize=256)
def _curve_of(text: str) -> tuple[Formula, ...]:
    """The formula at each threshold."""
    return tuple(map(formula_of(text).with_threshold, THRESHOLDS))


def _value(formula: Formula, values: Mapping[str, Scalar]) -> float | None:
    try:
        value = formula.value(values)
    except FormulaError:
        return None
    return value if abs(value) <= LARGEST_VALUE else None
