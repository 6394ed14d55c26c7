"""A fitted pipeline, made ready for skl2onnx: searches and thresholds unwrapped, each column a tensor of its own."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.utils.validation import check_is_fitted

from contender.errors import ExportError
from contender.registration.imputing import null_text
from contender.registration.rows import Column

_ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)
_THRESHOLDS = (TunedThresholdClassifierCV, FixedThresholdClassifier)
_AROUND = {
    "best_estimator_": None,
    "estimator_": _THRESHOLDS,
    "regressor_": TransformedTargetRegressor,
    "estimator": FrozenEstimator,
}
"""What holds the model that answers, by the attribute that holds it and whose it is; searches are many."""
_SURE = 1e3
"""Logits of a class that a dummy always or never predicts."""


@dataclass(frozen=True)
class Threshold:
    """Where the label of a binary model changes, when that is not at one half."""

    value: float
    positive: int


@dataclass(frozen=True)
class Guard:
    """Categories outside of which scikit-learn refuses a row: the graph gives such a row no score."""

    column: int
    categories: list[Any]


@dataclass
class Prepared:
    """What is converted: an estimator over tensors, `kinds` by column (numbers, whole numbers, text), and the rest."""

    estimator: Any
    kinds: dict[int, set[str]]
    threshold: Threshold | None = None
    inverse: Any = None
    guards: list[Guard] = field(default_factory=list)


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
    try:
        check_is_fitted(pipeline)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"{type(pipeline).__name__} is not fitted: call fit(columns, labels) before register"
        ) from error
    wanted = [str(name) for name in getattr(pipeline, "feature_names_in_", [])]
    if not wanted or wanted == list(names) or wanted == [name.replace(" ", "_") for name in names]:
        return  # LightGBM writes blanks as underscores
    if sorted(wanted) == sorted(names):
        first = next(name for name, other in zip(names, wanted, strict=True) if name != other)
        raise ExportError(
            f"column {first} stands elsewhere than when the pipeline was fitted: give the columns as columns[{wanted}]"
        )
    missing, more = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    told = [f"lack {', '.join(missing)}"] if missing else []
    told += [f"have {', '.join(more)}, which the pipeline was not fitted to"] if more else []
    raise ExportError(f"columns {' and '.join(told)}: give the columns as columns[{wanted}]")


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
    prepared.estimator = _Tensors(columns, prepared, as_whole=as_whole).head(estimator)
    return prepared


def _unwrapped(estimator: Any, prepared: Prepared) -> Any:
    """The estimator without searches, thresholds and target transformers around it, and dummies as models."""
    if isinstance(estimator, Pipeline):
        steps = [(name, step) for name, step in estimator.steps if step is not None and step != "passthrough"]
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
    if isinstance(estimator, VotingClassifier):
        copied = copy.copy(estimator)
        copied.flatten_transform = False  # of the shape of transform alone, which nobody asks a served model for
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


class _Tensors:
    """Rewrites the head of a pipeline so that each of its transformers takes tensors of one type."""

    def __init__(self, columns: Sequence[Column], prepared: Prepared, *, as_whole: bool) -> None:
        self._columns = columns
        self._prepared = prepared
        self._as_whole = as_whole

    def head(self, estimator: Any) -> Any:
        """The estimator over tensors, behind a step that puts all columns together where it has none of its own."""
        if isinstance(estimator, Pipeline):
            (name, first), rest = estimator.steps[0], estimator.steps[1:]
            rest = [(called, _by_position(step)) for called, step in rest]
            if isinstance(first, ColumnTransformer):
                return Pipeline([(name, self._transformer(first)), *rest])
            if isinstance(first, Pipeline | FeatureUnion):
                return Pipeline([(name, self.head(first)), *rest])
            if rest:
                return Pipeline([*self._together(), (name, _by_position(first)), *rest])
            estimator = first
        if isinstance(estimator, ColumnTransformer):
            return self._transformer(estimator)
        if isinstance(estimator, FeatureUnion):
            copied = copy.copy(estimator)
            copied.transformer_list = [(name, self.head(one)) for name, one in estimator.transformer_list]
            return copied
        if any(_takes_columns(one) for one in _members(estimator)):
            return self._ensemble(estimator)
        return Pipeline([*self._together(), ("model", _by_position(estimator))])

    def _ensemble(self, estimator: Any) -> Any:
        """An ensemble whose members take the columns themselves."""
        name = type(estimator).__name__
        if not name.startswith("Voting"):
            raise ExportError(
                f"{name} holds pipelines that take the columns each for itself: put the ColumnTransformer in front of "
                f"all, make_pipeline(ColumnTransformer([...]), {name}(...))"
            )
        copied = copy.copy(estimator)
        copied.estimators_ = [self.head(one) for one in estimator.estimators_]
        return copied

    def _together(self) -> list[tuple[str, Any]]:
        """A step that hands all columns on as one matrix; none where one column is all there is."""
        everything = list(range(len(self._columns)))
        texts = [column.name for column in self._columns if column.dtype == "string"]
        if texts and len(texts) < len(everything):
            raise ExportError(
                f"the first step takes text ({', '.join(texts)}) and numbers together: put a ColumnTransformer in "
                "front that encodes the text, make_pipeline(ColumnTransformer([...], remainder='passthrough'), model)"
            )
        names = [self._named(number, "text" if texts else "number") for number in everything]
        if len(names) == 1:
            return []
        step = ColumnTransformer([("columns", "passthrough", names)])
        step.transformers_ = [("columns", "passthrough", names)]
        step.n_features_in_ = len(names)
        return [("together", step)]

    def _transformer(self, step: ColumnTransformer) -> ColumnTransformer:
        copied = copy.copy(step)
        copied.transformers_ = []
        for name, transformer, given in step.transformers_:
            numbers = self._numbers(step, given)
            if (isinstance(transformer, str) and transformer == "drop") or not numbers:
                continue
            kind = self._kind(name, transformer, numbers)
            tensors = [self._named(number, kind or self._own_kind(number)) for number in numbers]
            rewritten = transformer if isinstance(transformer, str) else self._encoding(transformer, numbers)
            copied.transformers_.append((name, rewritten, tensors))
        return copied

    def _numbers(self, step: ColumnTransformer, given: Any) -> list[int]:
        """Places of a transformer's columns."""
        count = len(self._columns)
        if isinstance(given, slice) and not any(isinstance(end, str) for end in (given.start, given.stop)):
            return list(range(count))[given]
        names = list(map(str, getattr(step, "feature_names_in_", [column.name for column in self._columns])))
        if isinstance(given, slice):
            begin = names.index(given.start) if given.start is not None else 0
            end = names.index(given.stop) + 1 if given.stop is not None else count
            return list(range(begin, end))
        listed = [given] if isinstance(given, str | int | np.integer) else list(given)
        if listed and all(isinstance(one, bool | np.bool_) for one in listed):
            return [number for number, chosen in enumerate(listed) if chosen]
        return [names.index(one) if isinstance(one, str) else int(one) % count for one in listed]

    def _kind(self, name: str, transformer: Any, numbers: Sequence[int]) -> str:
        """The type of a transformer's tensors; empty where it takes each column in its own."""
        texts = [self._columns[number].name for number in numbers if self._columns[number].dtype == "string"]
        encodes = isinstance(_first(transformer), _ENCODERS)
        if encodes and not isinstance(transformer, Pipeline):
            return ""
        if texts and len(texts) < len(numbers):
            raise ExportError(
                f"the transformer {name!r} takes text ({', '.join(texts)}) and numbers together: give text columns and "
                "number columns transformers of their own"
            )
        return "text" if texts else ("" if encodes else "number")

    def _own_kind(self, number: int) -> str:
        column = self._columns[number]
        if column.dtype == "string":
            return "text"
        return "whole" if self._as_whole and column.whole and not column.nulls else "number"

    def _named(self, number: int, kind: str) -> str:
        self._prepared.kinds[number].add(kind)
        return tensor_name(number, kind)

    def _encoding(self, transformer: Any, numbers: Sequence[int]) -> Any:
        """A transformer whose encoders know how the graph writes nulls; what they refuse is kept as guards."""
        if isinstance(transformer, Pipeline):
            steps = [(name, _renamed(step)) for name, step in transformer.steps]
            imputes = any(isinstance(step, SimpleImputer) for _, step in transformer.steps)
            for _, step in transformer.steps:
                self._guard(step, numbers, with_null=imputes)
            return Pipeline(steps)
        self._guard(transformer, numbers, with_null=False)
        return _renamed(transformer)

    def _guard(self, step: Any, numbers: Sequence[int], *, with_null: bool) -> None:
        if not isinstance(step, OneHotEncoder | OrdinalEncoder) or step.handle_unknown != "error":
            return
        if len(step.categories_) != len(numbers):
            return
        for number, categories in zip(numbers, step.categories_, strict=True):
            if self._own_kind(number) != "number":
                known = [_written(category) for category in categories]
                known += [self._columns[number].null_text] if with_null and self._own_kind(number) == "text" else []
                self._prepared.guards.append(Guard(number, known))


def _members(estimator: Any) -> list[Any]:
    """The models of an ensemble that see its own columns."""
    members = [one.estimator for one in getattr(estimator, "calibrated_classifiers_", [])]
    return members or list(np.ravel(np.array(getattr(estimator, "estimators_", []), dtype=object)))


def _takes_columns(estimator: Any) -> bool:
    return isinstance(estimator, ColumnTransformer) or (
        isinstance(estimator, Pipeline) and _takes_columns(estimator.steps[0][1])
    )


def tensor_name(number: int, kind: str) -> str:
    """The tensor that holds a column as numbers, whole numbers or text."""
    return f"c{number}" if kind == "text" else f"c{number}_{kind}"


def _first(transformer: Any) -> Any:
    """The first step that is no imputer."""
    if not isinstance(transformer, Pipeline):
        return transformer
    steps = [step for _, step in transformer.steps if not isinstance(step, SimpleImputer)]
    return steps[0] if steps else transformer


def _written(category: Any) -> Any:
    """A category as the graph writes it."""
    missing = category is None or category != category  # noqa: PLR0124 - NaN of any type
    return null_text(category) if missing else category


def _renamed(step: Any) -> Any:
    """An encoder whose null categories are written as the graph writes them."""
    if not isinstance(step, _ENCODERS):
        return _by_position(step)
    copied = copy.copy(step)
    copied.categories_ = [
        np.array([_written(category) for category in categories], dtype=object)
        if categories.dtype.kind in "OUT"
        else categories
        for categories in step.categories_
    ]
    if isinstance(step, OneHotEncoder) and step.handle_unknown == "error":
        copied.handle_unknown = "ignore"  # a guard refuses the row alone, where the encoder would end the whole run
    return copied


def _by_position(step: Any) -> Any:
    """A step in the middle of a pipeline, whose columns are places in a matrix."""
    if isinstance(step, Pipeline):
        return Pipeline([(name, _by_position(one)) for name, one in step.steps])
    if not isinstance(step, ColumnTransformer):
        return step
    names = {str(name): number for number, name in enumerate(getattr(step, "feature_names_in_", []))}
    copied = copy.copy(step)
    copied.transformers_ = [(name, one, _places(columns, names)) for name, one, columns in step.transformers_]
    return copied


def _places(columns: Any, names: Mapping[str, int]) -> Any:
    listed = [columns] if isinstance(columns, str) else columns
    if isinstance(listed, list | np.ndarray) and all(isinstance(one, str) for one in listed):
        return [names[one] for one in listed]
    return listed


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
            raise ExportError(
                f"{type(step).__name__} treats columns as categories of its own, which has no counterpart in ONNX: "
                "leave categorical_features out, and put an OrdinalEncoder in a ColumnTransformer in front"
            )


def is_scored(pipeline: Any) -> None:
    """Refuse classifiers that give no probabilities.

    Raises:
        ExportError: what to wrap around it.
    """
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
