"""From a fitted pipeline to ONNX files that may answer as it does: exact ones first."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.pipeline import FeatureUnion, Pipeline

from contender.contracts.values import Dtype
from contender.errors import ExportError
from contender.registration import encoding, imputing, text, trees
from contender.registration.boosting import register_converters
from contender.registration.checks import check_steps
from contender.registration.failures import FOREIGN
from contender.registration.graph import Graph, Outputs
from contender.registration.preparing import prepare
from contender.registration.rows import Column
from contender.registration.tensors import Prepared, tensor_name

_ML = 3
"""skl2onnx writes this opset of ai.onnx.ml."""


@dataclass(frozen=True)
class Way:
    """A way to convert: in 64-bit floats with converters of our own, or in 32-bit floats with skl2onnx's."""

    name: str
    tensor: Any
    element: int
    opset: int
    converters: dict[type, Any]
    shapes: dict[type, Any]


EXACT = Way(
    "64-bit floats",
    DoubleTensorType,
    TensorProto.DOUBLE,
    text.OPSET,
    {**trees.CONVERTERS, **text.CONVERTERS, **imputing.CONVERTERS, **encoding.CONVERTERS},
    imputing.SHAPES,
)
SINGLE = Way(
    "32-bit floats",
    FloatTensorType,
    TensorProto.FLOAT,
    text.OPSET,
    {**text.CONVERTERS, **imputing.CONVERTERS, **encoding.CONVERTERS},
    imputing.SHAPES,
)


@dataclass(frozen=True)
class Converted:
    """An ONNX file, the names of its outputs, and the columns as callers send them."""

    onnx: bytes
    outputs: Outputs
    dtypes: dict[str, Dtype]
    way: str
    unused: frozenset[str] = frozenset()
    """Columns that no step takes: what is in them does not matter."""
    categories: dict[str, list[str]] = field(default_factory=dict)
    """The values that encoders know, by text column."""


def conversions(pipeline: Any, columns: Sequence[Column]) -> Iterator[Converted | ExportError]:
    """Files that may answer as the pipeline does, made one at a time; an error in place of one that can't be made.

    Raises:
        ExportError: no way of converting can help: a step or column is named, with what to do instead.
    """
    check_steps(_steps(pipeline))
    register_boosting(pipeline)
    for way in (EXACT, SINGLE):
        prepared = prepare(pipeline, columns)
        yield _attempt(pipeline, prepared, columns, way)


def register_boosting(pipeline: Any) -> None:
    """Register converters for the boosted trees among a pipeline's steps.

    Raises:
        ExportError: the extra that brings them is not installed.
    """
    for library in {type(step).__module__.partition(".")[0] for step in _steps(pipeline)} & {"lightgbm", "xgboost"}:
        try:
            register_converters(library)
        except ImportError as error:
            raise ExportError(f"{library} can't be imported: pip install 'contender-ml[boosting]'") from error


def _attempt(pipeline: Any, prepared: Prepared, columns: Sequence[Column], way: Way) -> Converted | ExportError:
    types = {"number": way.tensor, "whole": Int64TensorType, "text": StringTensorType}
    initial = [
        (tensor_name(number, kind), types[kind]([None, 1]))
        for number, kinds in prepared.kinds.items()
        for kind in sorted(kinds)
    ]
    if not initial:
        return ExportError("the pipeline uses none of its columns")
    estimator = prepared.estimator
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert_sklearn(
                estimator,
                name="contender",  # the default name is random, and would give every export another sha256
                initial_types=initial,
                options=options,
                target_opset={"": way.opset, "ai.onnx.ml": _ML},
                custom_conversion_functions=way.converters,
                custom_shape_calculators=way.shapes,
            )
    except ExportError as error:
        return error
    except FOREIGN as error:
        return refusal(pipeline, error)
    unused = frozenset(columns[number].name for number, kinds in prepared.kinds.items() if not kinds)
    outputs = Graph(model, way.element).finish(prepared, columns, getattr(pipeline, "classes_", None))
    return Converted(_bytes(model), outputs, _dtypes(prepared, columns), way.name, unused, prepared.categories)


def _bytes(model: ModelProto) -> bytes:
    model.doc_string = ""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _dtypes(prepared: Prepared, columns: Sequence[Column]) -> dict[str, Dtype]:
    """Types for callers: numbers are floats, except booleans and whole numbers that an encoder takes."""
    dtypes: dict[str, Dtype] = {}
    for number, column in enumerate(columns):
        if column.dtype in ("string", "boolean"):
            dtypes[column.name] = column.dtype
        else:
            dtypes[column.name] = "integer" if "whole" in prepared.kinds[number] else "float"
    return dtypes


def _steps(estimator: Any) -> Iterator[Any]:
    """An estimator and all that it is made of."""
    yield estimator
    inner: list[Any] = []
    if isinstance(estimator, Pipeline):
        inner = [step for _, step in estimator.steps]
    elif isinstance(estimator, FeatureUnion):
        inner = [step for _, step in estimator.transformer_list]
    elif hasattr(estimator, "transformers_"):
        inner = [step for _, step, _ in estimator.transformers_]
    else:
        for name in (
            "best_estimator_",
            "estimator_",
            "regressor_",
            "estimators_",
            "calibrated_classifiers_",
            "estimator",
        ):
            held = getattr(estimator, name, None)
            if held is not None and not isinstance(held, str):
                inner += list(np.ravel(np.array(held, dtype=object))) if isinstance(held, list | np.ndarray) else [held]
    for step in inner:
        if hasattr(step, "get_params") or hasattr(step, "estimator"):
            yield from _steps(step)


_ADVICE = {
    "FunctionTransformer": "apply the function to the columns before fit and predict, and leave the step out",
    "SplineTransformer": "use PolynomialFeatures, or KBinsDiscretizer(encode='ordinal')",
    "KBinsDiscretizer": "fit it with encode='onehot-dense' or 'ordinal'",
    "CalibratedClassifierCV": "fit it with method='sigmoid'",
    "PowerTransformer": "use QuantileTransformer or a scaler",
    "IterativeImputer": "use SimpleImputer",
    "HashingVectorizer": "use TfidfVectorizer",
    "DictVectorizer": "use OneHotEncoder in a ColumnTransformer",
    "CountVectorizer": "put the text columns into a ColumnTransformer, a vectorizer for each",
}


_BEHIND = ("Cannot extract a specific column", "Unexpect rank=0")
"""skl2onnx's messages where it can't take one column out of a matrix."""


def refusal(pipeline: Any, error: Exception) -> ExportError:
    """Why a pipeline is not exported, in our own words, naming the step at fault."""
    refused = _export_error(pipeline, str(error))
    refused.__cause__ = error
    return refused


def _export_error(pipeline: Any, reason: str) -> ExportError:
    names = [type(step).__name__ for step in _steps(pipeline) if getattr(step, "func", "") is not None]
    named = [name for name in names if name in reason]
    culprit = named[-1] if named else next((name for name in names if name in _ADVICE), "")
    if not culprit:
        culprit = names[0] if len(names) == 1 else f"one of {', '.join(dict.fromkeys(names))}"
    own = next(
        (
            type(step).__name__
            for step in _steps(pipeline)
            if type(step).__module__.partition(".")[0] not in ("sklearn", "lightgbm", "xgboost", "skl2onnx")
        ),
        "",
    )
    if own:
        return ExportError(
            f"{own} is a step of your own, which has no counterpart in ONNX: apply it to the columns before fit and "
            "predict, and leave the step out"
        )
    if any(part in reason for part in _BEHIND):
        return ExportError(
            "ColumnTransformer stands behind other steps and takes some of their columns, which has no counterpart in "
            "ONNX here: give each column its steps in one ColumnTransformer at the front"
        )
    advice = _ADVICE.get(culprit, "docs/models.md lists the steps that are exported")
    return ExportError(f"{culprit} has no exact counterpart in ONNX as it was fitted here: {advice}")
