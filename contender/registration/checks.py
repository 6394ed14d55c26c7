"""Refuses what can't be registered, before any work: pipelines, their steps, labels, and names of columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from contender.contracts.columns import fault_of
from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import TEXT_CHARACTERS
from contender.errors import ExportError

_NAMES_SHOWN = 5


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


def check_scored(pipeline: Any) -> None:
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
            f"{name} has no predict_proba, so it gives no scores: fit CalibratedClassifierCV({name}(...)) in its "
            "place, or a classifier such as LogisticRegression"
        )


def check_labels(labels: Any, rows: int) -> None:
    """Refuse labels of another length than the rows, or of several columns.

    Raises:
        ExportError: both lengths are named.
    """
    if labels is None:
        return
    try:
        shape = np.shape(labels)
    except ValueError:  # of lists that are not equally long
        shape = ()
    if not shape:
        raise ExportError(f"labels are a {type(labels).__name__}: give a list, an array or a Series, one label a row")
    if len(shape) > 1 and shape[1] > 1:
        raise ExportError(
            f"labels have {shape[1]} columns: a version has one target, so fit and register a model for each column"
        )
    if shape[0] != rows:
        raise ExportError(f"labels have {shape[0]} rows, columns have {rows}: give the labels of the same rows")


def check_named(names: Sequence[str], **by_column: Mapping[str, Any]) -> None:
    """Refuse sources and defaults of columns that the rows do not have.

    Raises:
        ExportError: they are named.
    """
    for what, values in by_column.items():
        if unknown := sorted(set(map(str, values)) - set(names)):
            raise ExportError(
                f"{what} name columns that the rows do not have: {', '.join(unknown)}; there are "
                f"{', '.join(names[:_NAMES_SHOWN])}{' …' if len(names) > _NAMES_SHOWN else ''}"
            )


def check_default(column: InputColumn) -> None:
    """Refuse a default that the column itself could not hold.

    Raises:
        ExportError: the default and its fault are named.
    """
    if column.default is not None and (fault := fault_of(column, column.default, TEXT_CHARACTERS)):
        raise ExportError(f"the default of column {column.name}, {column.default!r}, {fault}: give a {column.dtype}")
