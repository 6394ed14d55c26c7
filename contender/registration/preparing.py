"""A fitted pipeline, made ready for skl2onnx: searches and thresholds unwrapped, each column a tensor of its own."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from contender.errors import ExportError
from contender.registration.rows import Column
from contender.registration.tensors import Prepared, Tensors, Threshold, working

_THRESHOLDS = (TunedThresholdClassifierCV, FixedThresholdClassifier)
_AROUND = {
    "best_estimator_": None,
    "estimator_": _THRESHOLDS,
    "regressor_": TransformedTargetRegressor,
    "estimator": FrozenEstimator,
}
"""The attributes that hold the model that answers, and whose they are; None for searches, which are many."""
_SURE = 1e3
"""Logits of a class that a dummy always or never predicts."""


def check_fitted(pipeline: Any, names: Sequence[str]) -> None:
    """Refuse what is not fitted, or was fitted to other columns.

    Raises:
        ExportError: what is wrong, and what to do.
    """
    if not hasattr(pipeline, "predict"):
        what = type(pipeline).__name__
        raise ExportError(
            f"{what} has no predict: register a fitted classifier, regressor or pipeline that ends in one"
        )
    if not isinstance(pipeline, BaseEstimator):
        raise ExportError(
            f"{type(pipeline).__name__} is not a scikit-learn estimator: register a fitted classifier, regressor or "
            "pipeline, such as LGBMClassifier or XGBClassifier in place of a Booster, or an ONNX file"
        )
    try:
        check_is_fitted(pipeline)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"{type(pipeline).__name__} is not fitted: call fit(columns, labels) before register"
        ) from error
    fitted = [str(name) for name in getattr(pipeline, "feature_names_in_", [])]
    if not fitted or fitted == list(names) or fitted == [name.replace(" ", "_") for name in names]:
        return  # LightGBM writes blanks as underscores
    if sorted(fitted) == sorted(names):
        first = next(name for name, other in zip(names, fitted, strict=True) if name != other)
        raise ExportError(
            f"the columns are in another order than at fit, from {first} on: give the columns as columns[{fitted}]"
        )
    missing, more = sorted(set(fitted) - set(names)), sorted(set(names) - set(fitted))
    faults = [f"lack {', '.join(missing)}"] if missing else []
    faults += [f"have {', '.join(more)}, which the pipeline was not fitted to"] if more else []
    raise ExportError(f"columns {' and '.join(faults)}: give the columns as columns[{fitted}]")


def prepare(pipeline: Any, columns: Sequence[Column], *, as_whole: bool = True) -> Prepared:
    """Make a fitted pipeline ready.

    Args:
        pipeline: as it was fitted.
        columns: the columns of its rows.
        as_whole: whether encoders take columns of whole numbers as such.

    Raises:
        ExportError: a step can't be served; it is named, with what to do instead.
    """
    prepared = Prepared(None, {number: set() for number in range(len(columns))})
    estimator = _unwrapped(pipeline, prepared)
    prepared.estimator = Tensors(columns, prepared, as_whole=as_whole).head(estimator)
    return prepared


def _unwrapped(estimator: Any, prepared: Prepared) -> Any:
    """The estimator without searches, thresholds and target transformers around it, and dummies as models."""
    if isinstance(estimator, Pipeline):
        steps = working(estimator)
        name, last = steps[-1]
        return Pipeline([*steps[:-1], (name, _unwrapped(last, prepared))])
    if isinstance(estimator, _THRESHOLDS):
        prepared.threshold = _threshold(estimator)
    elif isinstance(estimator, TransformedTargetRegressor):
        prepared.inverse = estimator
    for name, kind in _AROUND.items():
        if hasattr(estimator, name) and (kind is None or isinstance(estimator, kind)):
            return _unwrapped(getattr(estimator, name), prepared)
    if isinstance(estimator, DummyClassifier | DummyRegressor):
        return _constant(estimator)
    if isinstance(estimator, VotingClassifier | VotingRegressor):
        copied = copy.copy(estimator)
        copied.flatten_transform = False  # of the shape of transform alone, which nobody asks a served model for
        if estimator.weights is not None:  # skl2onnx takes an array of them
            pairs = zip(estimator.estimators, estimator.weights, strict=True)
            copied.weights = np.array([weight for (_, member), weight in pairs if not isinstance(member, str)], float)
        return copied
    return estimator


def _threshold(estimator: Any) -> Threshold:
    name = type(estimator).__name__
    if estimator.response_method == "decision_function":
        raise ExportError(f"{name} cuts at a decision function: fit it with response_method='predict_proba'")
    value = getattr(estimator, "best_threshold_", None)
    if value is None:
        value = 0.5 if estimator.threshold == "auto" else estimator.threshold
    label = getattr(estimator, "pos_label", None)
    curve = getattr(estimator, "_curve_scorer", None)
    if label is None and curve is not None:
        label = curve._get_pos_label() if hasattr(curve, "_get_pos_label") else None  # noqa: SLF001 - as predict does
    classes = list(estimator.classes_)
    return Threshold(float(value), 1 if label is None else classes.index(label))


def _constant(dummy: Any) -> Any:
    """A linear model that answers as a dummy does, whatever its columns."""
    width = getattr(dummy, "n_features_in_", 1)
    if isinstance(dummy, DummyRegressor):
        model: Any = LinearRegression()
        model.coef_, model.intercept_ = np.zeros(width), np.ravel(dummy.constant_)[:1].astype(float)
    else:
        if dummy.strategy in ("stratified", "uniform"):
            raise ExportError(
                f"DummyClassifier answers at random (strategy={dummy.strategy!r}): fit it with strategy='prior'"
            )
        shares = dummy.predict_proba(np.zeros((1, width)))[0]
        logits = np.where(shares > 0, np.log(np.maximum(shares, 1e-300)), -_SURE)
        if len(shares) == 2:  # noqa: PLR2004 - a binary model has one row of coefficients
            logits = logits[1:] - logits[:1]
        model = LogisticRegression()
        model.classes_, model.coef_, model.intercept_ = dummy.classes_, np.zeros((len(logits), width)), logits
        model.n_iter_ = np.array([0])
    model.n_features_in_ = width
    return model


def check_steps(steps: Iterable[Any]) -> None:
    """Refuse steps whose conversion is known to answer otherwise.

    Raises:
        ExportError: the step, and what to do instead.
    """
    for step in steps:
        if getattr(step, "method", "") == "isotonic" and type(step).__name__ == "CalibratedClassifierCV":
            raise ExportError(
                "CalibratedClassifierCV has method='isotonic', which has no exact counterpart in ONNX: fit it with "
                "method='sigmoid'"
            )
        categorical = getattr(step, "is_categorical_", None)
        if categorical is not None and np.any(categorical):
            names = np.asarray(getattr(step, "feature_names_in_", range(len(categorical))))[np.asarray(categorical) > 0]
            raise ExportError(
                f"{type(step).__name__} treats columns as categories of its own ({', '.join(map(str, names))}), which "
                "has no counterpart in ONNX: leave categorical_features out, and put an OrdinalEncoder in a "
                "ColumnTransformer in front"
            )


def is_scored(pipeline: Any) -> None:
    """Refuse classifiers that give no probabilities, and what is neither a classifier nor a regressor.

    Raises:
        ExportError: what to wrap around it.
    """
    if not is_classifier(pipeline) and not is_regressor(pipeline):
        last = pipeline.steps[-1][1] if isinstance(pipeline, Pipeline) else pipeline
        raise ExportError(
            f"{type(last).__name__} is neither a classifier nor a regressor: register one, such as LogisticRegression "
            "or Ridge fitted to what it is to predict"
        )
    if is_classifier(pipeline) and not hasattr(pipeline, "predict_proba"):
        last = pipeline
        while isinstance(last, Pipeline):
            last = last.steps[-1][1]
        name = type(last).__name__
        if name == "VotingClassifier":
            raise ExportError("VotingClassifier has no predict_proba with voting='hard': fit it with voting='soft'")
        raise ExportError(
            f"{name} has no predict_proba, so that it gives no scores: fit CalibratedClassifierCV({name}(...)) in its "
            "place, or a classifier such as LogisticRegression"
        )
