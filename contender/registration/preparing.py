"""A fitted pipeline, made ready for skl2onnx: searches and thresholds unwrapped, each column a tensor of its own."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline

from contender.registration.dummies import DUMMIES, constant_model
from contender.registration.rows import Column
from contender.registration.tensors import Prepared, Tensors, Threshold, working

_THRESHOLDS = (TunedThresholdClassifierCV, FixedThresholdClassifier)
_AROUND = {
    "best_estimator_": None,
    "estimator_": _THRESHOLDS,
    "regressor_": TransformedTargetRegressor,
    "estimator": FrozenEstimator,
}
"""The attributes that hold the model that answers, by the classes that have them; None: any class, for searches."""


def prepare(pipeline: Any, columns: Sequence[Column]) -> Prepared:
    """Make a fitted pipeline ready.

    Args:
        pipeline: as it was fitted.
        columns: the columns of its rows.

    Raises:
        ExportError: a step can't be served; it is named, with what to do instead.
    """
    prepared = Prepared(None, {number: set() for number in range(len(columns))})
    estimator = _unwrapped(pipeline, prepared)
    prepared.estimator = Tensors(columns, prepared).head(estimator)
    return prepared


def _unwrapped(estimator: Any, prepared: Prepared) -> Any:
    """The estimator without searches, thresholds and target transformers around it, and dummies as models."""
    if isinstance(estimator, Pipeline):
        steps = working(estimator)
        name, last = steps[-1]
        return Pipeline([*steps[:-1], (name, _unwrapped(last, prepared))])
    if isinstance(estimator, _THRESHOLDS):
        prepared.threshold = Threshold.of(estimator)
    elif isinstance(estimator, TransformedTargetRegressor):
        prepared.inverse = estimator
    for name, kind in _AROUND.items():
        if hasattr(estimator, name) and (kind is None or isinstance(estimator, kind)):
            return _unwrapped(getattr(estimator, name), prepared)
    if isinstance(estimator, DUMMIES):
        return constant_model(estimator)
    if isinstance(estimator, VotingClassifier | VotingRegressor):
        copied = copy.copy(estimator)
        copied.flatten_transform = False  # it shapes the result of transform alone, which a served model never runs
        if estimator.weights is not None:  # skl2onnx takes an array of them
            pairs = zip(estimator.estimators, estimator.weights, strict=True)
            copied.weights = np.array([weight for (_, member), weight in pairs if not isinstance(member, str)], float)
        return copied
    return estimator
