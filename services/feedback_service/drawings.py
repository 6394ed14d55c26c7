"""What the pages draw: the axis of effects, and curves over days and thresholds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contender.contracts.feedback_service import CurvePoint, DayPoint, Effect, SegmentEffect

_WIDTH, _MARGIN = 240.0, 8.0
_CURVE = 640.0, 180.0
_BELOW = 16.0
"""The space below a curve, for its dates."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The axis that the effects in one metric share: from `-reach` to `reach`, zero in the middle.

    `better_left` says that the challenger is better left of zero.
    """

    reach: float
    better_left: bool
    width: float = _WIDTH

    def x(self, value: float) -> float:
        """Where a value lies, in units of the drawing."""
        return self.width / 2 + (self.width / 2 - _MARGIN) * max(-1.0, min(1.0, value / self.reach))


def axis(effects: Iterable[Effect | SegmentEffect], *, lower_is_better: bool) -> Axis | None:
    """The axis of several effects in one metric; None while none has an interval."""
    known = [effect for effect in effects if effect.low is not None and effect.high is not None]
    if not known:
        return None
    ends = [abs(end) for effect in known for end in (effect.low, effect.high, effect.estimate) if end is not None]
    return Axis(max(ends) or 1.0, lower_is_better)


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawing of an effect over days: points as SVG has them, where zero lies, and where whole cycles end."""

    line: str
    band: str
    zero: float
    cycles: list[float]
    top: float
    bottom: float
    width: float = _CURVE[0]
    height: float = _CURVE[1]


def curve(points: Sequence[DayPoint], cycle_days: int) -> Curve | None:
    """The drawing of an effect day by day; None below two days."""
    if len(points) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    values = [0.0, *(end for point in points for end in (point.estimate, point.low, point.high) if end is not None)]
    bottom, top = min(values), max(values)
    height = _CURVE[1] - _BELOW

    def at(index: int, value: float) -> str:
        return f"{_CURVE[0] * index / (len(points) - 1):.1f},{height * (top - value) / ((top - bottom) or 1.0):.1f}"

    bounded = [(index, point) for index, point in enumerate(points) if point.low is not None and point.high is not None]
    band = [at(index, point.high or 0.0) for index, point in bounded]
    band += [at(index, point.low or 0.0) for index, point in reversed(bounded)]
    ends = range(cycle_days - 1, len(points), cycle_days) if cycle_days else ()
    return Curve(
        " ".join(at(index, point.estimate) for index, point in enumerate(points)),
        " ".join(band),
        round(height * top / ((top - bottom) or 1.0), 1),
        [round(_CURVE[0] * end / (len(points) - 1), 1) for end in ends],
        top,
        bottom,
    )


@dataclass(frozen=True, slots=True)
class ValueCurves:
    """The value of each variant at every threshold: lines by name as SVG has them, and the ends of both axes."""

    lines: dict[str, str]
    first: float
    last: float
    top: float
    bottom: float
    width: float = _CURVE[0]
    height: float = _CURVE[1]


def value_curves(curves: Mapping[str, Sequence[CurvePoint]]) -> ValueCurves | None:
    """The drawing of what a formula would give at other thresholds; None without any."""
    known = {name: points for name, points in curves.items() if len(points) > 1}
    if not known:
        return None
    values = [point.value for points in known.values() for point in points]
    thresholds = [point.threshold for points in known.values() for point in points]
    (bottom, top), (first, last) = (min(values), max(values)), (min(thresholds), max(thresholds))

    def at(point: CurvePoint) -> str:
        x = _CURVE[0] * (point.threshold - first) / ((last - first) or 1.0)
        return f"{x:.1f},{(_CURVE[1] - _BELOW) * (top - point.value) / ((top - bottom) or 1.0):.1f}"

    lines = {name: " ".join(map(at, points)) for name, points in known.items()}
    return ValueCurves(lines, first, last, top, bottom)
