"""Checks of the demo: served features against the training-set builder, live log loss against scikit-learn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from sklearn.metrics import log_loss

from contender.features import FeatureView
from contender.training import build_training_set
from examples.flights.replay import Label, Served

FLOAT_TOLERANCE = 1e-9
_EXAMPLES = 5


@dataclass(frozen=True)
class Comparison:
    """How many served values were compared with offline ones, and how many differ."""

    compared: int
    different: int
    examples: list[str]


def compare_features(
    served: Sequence[Served], rows: pl.DataFrame, events: Mapping[str, pl.DataFrame], views: Sequence[FeatureView]
) -> Comparison:
    """Compare every feature of a served prediction with the builder's value for the same row and time.

    Integers must be equal, floats within 1e-9, and a missing value equals only a missing value.
    """
    offline = build_training_set(views, rows, events)
    columns = [name for name in offline.columns if name not in rows.columns]
    expected = offline.select(columns).rows(named=True)
    compared, different = 0, 0
    examples: list[str] = []
    for prediction in served:
        for name in columns:
            if name not in prediction.inputs:
                continue
            compared += 1
            offline_value, served_value = expected[prediction.row][name], prediction.inputs[name]
            if not is_same(offline_value, served_value):
                different += 1
                if len(examples) < _EXAMPLES:
                    examples.append(
                        f"{prediction.prediction_id} {name}: served {served_value}, offline {offline_value}"
                    )
    return Comparison(compared, different, examples)


def is_same(offline: Any, served: Any) -> bool:
    """Whether two values of a feature are the same."""
    if offline is None or served is None:
        return offline is served
    if isinstance(offline, int):
        return bool(offline == served)
    return math.isclose(offline, served, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)


def offline_log_loss(
    served: Sequence[Served], labels: Mapping[str, Label], variant: str, window_s: float
) -> float | None:
    """scikit-learn's log loss of a variant's predictions whose label came within the window; None without labels."""
    known = [
        (label.late, prediction.score)
        for prediction in served
        if prediction.variant == variant
        and (label := labels.get(prediction.prediction_id)) is not None
        and label.after_s <= window_s
    ]
    if not known:
        return None
    outcomes, scores = zip(*known, strict=True)
    return float(log_loss(outcomes, scores, labels=[False, True]))
