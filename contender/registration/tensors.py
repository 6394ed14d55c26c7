"""The head of a pipeline, rewritten so that each of its transformers takes tensors of one type."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from contender.contracts import limits
from contender.errors import ExportError
from contender.registration.rows import Column, null_text

_ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)


@dataclass(frozen=True)
class Threshold:
    """The probability at which the label of a binary model changes, where it is not one half."""

    value: float
    positive: int

    @classmethod
    def of(cls, estimator: Any) -> "Threshold":
        """The threshold of a fitted model.

        Raises:
            ExportError: the threshold is not one of a probability.
        """
        name = type(estimator).__name__
        if estimator.response_method == "decision_function":
            raise ExportError(
                f"{name} has a threshold of the decision function: fit it with response_method='predict_proba'"
            )
        value = getattr(estimator, "best_threshold_", None)
        if value is None:
            value = 0.5 if estimator.threshold == "auto" else estimator.threshold
        label = getattr(estimator, "pos_label", None)
        curve = getattr(estimator, "_curve_scorer", None)
        if label is None and curve is not None:
            label = curve._get_pos_label() if hasattr(curve, "_get_pos_label") else None  # noqa: SLF001 - as predict does
        classes = list(estimator.classes_)
        return cls(float(value), 1 if label is None else classes.index(label))


@dataclass(frozen=True)
class Guard:
    """The categories that scikit-learn accepts in a column: the graph gives a row with another one no score."""

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
    categories: dict[str, list[str]] = field(default_factory=dict)
    """The values that encoders know, by the name of a text column."""


class Tensors:
    """Rewrites the head of a pipeline so that each of its transformers takes tensors of one type."""

    def __init__(self, columns: Sequence[Column], prepared: Prepared) -> None:
        self._columns = columns
        self._prepared = prepared

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
        return self._bare(estimator)

    def _bare(self, estimator: Any) -> Any:
        """An estimator that stands at the front itself."""
        if isinstance(estimator, ColumnTransformer):
            return self._transformer(estimator)
        if isinstance(estimator, FeatureUnion):
            copied = copy.copy(estimator)
            copied.transformer_list = [
                (name, self.head(step))
                for name, step in estimator.transformer_list
                if not (isinstance(step, str) and step == "drop")
            ]
            return copied
        if any(_takes_columns(member) for member in _members(estimator)):
            return self._ensemble(estimator)
        return Pipeline([*self._together(), ("model", _by_position(estimator))])

    def _ensemble(self, estimator: Any) -> Any:
        """An ensemble whose members take the columns themselves."""
        name = type(estimator).__name__
        if not name.startswith("Voting"):
            raise ExportError(
                f"{name} holds pipelines that each select columns: put the ColumnTransformer in front of all, "
                f"make_pipeline(ColumnTransformer([...]), {name}(...))"
            )
        copied = copy.copy(estimator)
        copied.estimators_ = [self.head(member) for member in estimator.estimators_]
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
        for name, transformer, selection in step.transformers_:
            numbers = self._numbers(step, selection)
            if (isinstance(transformer, str) and transformer == "drop") or not numbers:
                continue
            kind = self._kind(name, transformer, numbers)
            tensors = [self._named(number, kind or self._own_kind(number)) for number in numbers]
            rewritten = transformer if isinstance(transformer, str) else self._encoding(transformer, numbers)
            copied.transformers_.append((name, rewritten, tensors))
        return copied

    def _numbers(self, step: ColumnTransformer, selection: Any) -> list[int]:
        """The indices of a transformer's columns."""
        names = getattr(step, "feature_names_in_", [column.name for column in self._columns])
        return _indices(selection, list(map(str, names)))

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
        return "whole" if column.whole and not column.nulls else "number"

    def _named(self, number: int, kind: str) -> str:
        self._prepared.kinds[number].add(kind)
        return tensor_name(number, kind)

    def _encoding(self, transformer: Any, numbers: Sequence[int]) -> Any:
        """A transformer whose encoders know how the graph writes nulls; what they refuse is kept as guards."""
        if isinstance(transformer, Pipeline):
            kept = working(transformer)
            if not kept:
                return "passthrough"
            steps = [(name, _renamed(step)) for name, step in kept]
            imputes = any(isinstance(step, SimpleImputer) for _, step in kept)
            filled = [str(step.missing_values) for _, step in kept if isinstance(step, SimpleImputer)]
            for _, step in kept:
                self._guard(step, numbers, with_null=imputes, filled=filled)
            return Pipeline(steps)
        self._guard(transformer, numbers, with_null=False)
        return _renamed(transformer)

    def _check_encoder(self, step: Any, numbers: Sequence[int]) -> None:
        """Refuse categories that ONNX's own encoders confuse."""
        name = type(step).__name__
        if isinstance(step, OneHotEncoder) and any(
            rare is not None for rare in getattr(step, "infrequent_categories_", [])
        ):
            raise ExportError(
                f"{name} puts rare categories together (min_frequency=, max_categories=), which has no counterpart in "
                "ONNX: leave both out, or use OrdinalEncoder, which is exported with them"
            )
        odd = [self._columns[number].name for number in numbers if self._own_kind(number) == "number"]
        if odd and (isinstance(step, OneHotEncoder) or step.handle_unknown == "error"):
            raise ExportError(
                f"{name} takes the fractions or nulls of column {odd[0]} as categories, which has no counterpart in "
                f"ONNX: make them text before fit and predict, such as frame[{odd[0]!r}].astype(str)"
            )

    def _guard(self, step: Any, numbers: Sequence[int], *, with_null: bool, filled: Sequence[str] = ()) -> None:
        if isinstance(step, OneHotEncoder | OrdinalEncoder):
            self._check_encoder(step, numbers)
        self._note_categories(step, numbers)
        if not isinstance(step, OneHotEncoder | OrdinalEncoder) or step.handle_unknown != "error":
            return
        if len(step.categories_) != len(numbers):
            return
        for number, categories in zip(numbers, step.categories_, strict=True):
            known = [_written(category) for category in categories]
            known += (
                [self._columns[number].null_text, *filled] if with_null and self._own_kind(number) == "text" else []
            )
            self._prepared.guards.append(Guard(number, known))

    def _note_categories(self, step: Any, numbers: Sequence[int]) -> None:
        if not isinstance(step, _ENCODERS) or len(step.categories_) != len(numbers):
            return
        for number, categories in zip(numbers, step.categories_, strict=True):
            column = self._columns[number]
            known = sorted({category for category in categories if isinstance(category, str)})
            is_short = max(map(len, known), default=0) <= limits.CATEGORY_CHARACTERS
            if column.dtype == "string" and is_short and len(known) <= limits.CATEGORIES:
                self._prepared.categories.setdefault(column.name, known)


def _members(estimator: Any) -> list[Any]:
    """The models of an ensemble that see its own columns."""
    members = [calibrated.estimator for calibrated in getattr(estimator, "calibrated_classifiers_", [])]
    return members or list(np.ravel(np.array(getattr(estimator, "estimators_", []), dtype=object)))


def working(pipeline: Pipeline) -> list[tuple[str, Any]]:
    """The steps that do anything, of a pipeline and of those in it."""
    steps = []
    for name, step in pipeline.steps:
        inner = Pipeline(working(step)) if isinstance(step, Pipeline) else step
        if not (inner is None or (isinstance(inner, str) and inner == "passthrough")) and getattr(inner, "steps", True):
            steps.append((name, inner))
    return steps


def _takes_columns(estimator: Any) -> bool:
    return isinstance(estimator, ColumnTransformer) or (
        isinstance(estimator, Pipeline) and _takes_columns(estimator.steps[0][1])
    )


def tensor_name(number: int, kind: str) -> str:
    """The tensor that holds a column as numbers, whole numbers or text."""
    return f"c{number}" if kind == "text" else f"c{number}_{kind}"


def _first(transformer: Any) -> Any:
    """The first step other than an imputer."""
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
    """A step in the middle of a pipeline, whose columns are indices of a matrix."""
    if isinstance(step, Pipeline):
        return Pipeline([(name, _by_position(inner)) for name, inner in step.steps])
    if not isinstance(step, ColumnTransformer):
        return step
    names = list(map(str, getattr(step, "feature_names_in_", range(step.n_features_in_))))
    copied = copy.copy(step)
    copied.transformers_ = [
        (name, _by_position(inner), indices)
        for name, inner, columns in step.transformers_
        if not (isinstance(inner, str) and inner == "drop") and (indices := _indices(columns, names))
    ]
    return copied


def _indices(selection: Any, names: Sequence[str]) -> list[int]:
    """The indices of a transformer's columns among all names."""
    count = len(names)
    if isinstance(selection, slice) and not any(isinstance(end, str) for end in (selection.start, selection.stop)):
        return list(range(count))[selection]
    if isinstance(selection, slice):
        begin = names.index(selection.start) if selection.start is not None else 0
        end = names.index(selection.stop) + 1 if selection.stop is not None else count
        return list(range(begin, end))
    listed = [selection] if isinstance(selection, str | int | np.integer) else list(selection)
    if listed and all(isinstance(entry, bool | np.bool_) for entry in listed):
        return [number for number, chosen in enumerate(listed) if chosen]
    return [names.index(entry) if isinstance(entry, str) else int(entry) % count for entry in listed]
