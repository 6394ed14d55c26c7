"""Imputers as standard operators fill missing values: ONNX's own takes neither 64-bit floats nor null text."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.impute import SimpleImputer

from contender.errors import ExportError
from contender.registration.nodes import Converters, Nodes
from contender.registration.rows import null_text


def _impute(scope: Any, operator: Any, container: Any) -> None:
    imputer, nodes = operator.raw_operator, Nodes(scope, container)
    rows, kind = operator.inputs[0].full_name, operator.inputs[0].type
    output = operator.outputs[0].full_name
    if len(operator.inputs) > 1:
        rows = nodes.add("Concat", *(tensor.full_name for tensor in operator.inputs), axis=1)
    kept = _kept(imputer)
    if isinstance(kind, StringTensorType):
        texts = np.array([str(value) for value in imputer.statistics_[kept]]).reshape(1, -1)
        value = imputer.missing_values
        text = value if isinstance(value, str) else null_text(value)
        missing = nodes.add("Equal", rows, nodes.constant(text), op_version=19)
        nodes.add("Where", missing, nodes.constant(texts), rows, output=output)
        return
    if not isinstance(kind, DoubleTensorType | FloatTensorType):
        nodes.add("Identity", rows, output=output)  # whole numbers: none can be missing
        return
    rows = nodes.add("Cast", rows, to=TensorProto.DOUBLE)
    missing = _missing(nodes, imputer, rows)
    statistics = np.asarray(imputer.statistics_, dtype=np.float64)
    filled = nodes.add("Where", missing, nodes.constant(np.nan_to_num(statistics).reshape(1, -1)), rows)
    if len(kept) < len(statistics):
        filled = nodes.add("Gather", filled, nodes.constant(kept), axis=1)
    if imputer.add_indicator:
        shown = nodes.add("Gather", missing, nodes.constant(imputer.indicator_.features_.astype(np.int64)), axis=1)
        filled = nodes.add("Concat", filled, nodes.add("Cast", shown, to=TensorProto.DOUBLE), axis=1)
    nodes.hand_on(filled, operator.outputs[0])


def _missing(nodes: Nodes, imputer: SimpleImputer, rows: str) -> str:
    value = imputer.missing_values
    if not isinstance(value, int | float):  # None and pandas' NA are NaN among numbers
        value = np.nan
    return nodes.add("IsNaN", rows) if np.isnan(value) else nodes.add("Equal", rows, nodes.constant(float(value)))


def _kept(imputer: SimpleImputer) -> NDArray[np.int64]:
    """Places of the columns that come out: one without any value is left out."""
    statistics = imputer.statistics_
    empty = np.array([value is None or value != value for value in statistics])  # noqa: PLR0124 - NaN of any type
    return np.flatnonzero(~empty)


def shape(operator: Any) -> None:
    """Set the type and width of an imputer's output, as skl2onnx asks for it."""
    imputer = operator.raw_operator
    width = len(_kept(imputer)) + (len(imputer.indicator_.features_) if imputer.add_indicator else 0)
    kind = type(operator.inputs[0].type)
    if kind is StringTensorType and imputer.add_indicator:
        raise ExportError("SimpleImputer has add_indicator= over text, which has no counterpart in ONNX: leave it out")
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), width])


CONVERTERS: Converters = {SimpleImputer: _impute}
SHAPES: dict[type, Any] = {SimpleImputer: shape}
