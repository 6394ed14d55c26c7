"""The values that a model's input columns may have, and the arrays and tensors that they become, for all who run it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import FLOAT32_MAX, INTEGERS
from contender.contracts.values import Scalar

_TENSOR_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}
"""The numpy type of an ONNX file's input, by its type there."""


def fault_of(column: InputColumn, value: Scalar, text_limit: int) -> str:
    """The fault of a value of a column; empty for a valid value."""
    if value is None:
        return "is null, and the column is required" if column.required and column.default is None else ""
    if column.dtype == "string":
        return _text_fault(value, text_limit)
    if column.dtype == "boolean":
        return "" if isinstance(value, bool) else "is not true or false"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    return _number_fault(column, value)


def _text_fault(value: Scalar, text_limit: int) -> str:
    if not isinstance(value, str):
        return "is not a string"
    return f"is longer than {text_limit} characters" if len(value) > text_limit else ""


def _number_fault(column: InputColumn, value: float) -> str:
    if not -math.inf < value < math.inf:  # math.isfinite fails on an integer that is too long for a float
        return "is not a finite number"
    if column.dtype == "integer":
        if value != int(value):
            return "is not a whole number"
        return "is outside 64 bits" if abs(value) >= INTEGERS else ""
    return "is outside 32-bit floats" if abs(value) > FLOAT32_MAX else ""


def array_of(column: InputColumn, values: Sequence[Scalar]) -> NDArray[Any]:
    """A column's values as its model gets them, shape (rows,): float64, int64, bool or object (str).

    The default stands in for every null. Without one a null is NaN in a float column and `null_text` in a text column;
    integer and boolean columns have no null (`fault_of` and the caller's own check refuse it before).
    """
    missing: Scalar = column.default
    if missing is None:
        nulls: dict[str, Scalar] = {"float": math.nan, "string": column.null_text}
        missing = nulls.get(column.dtype)
    filled = [missing if value is None else value for value in values]
    if column.dtype == "integer":
        return np.array([int(value) for value in filled if value is not None], dtype=np.int64)
    kinds: dict[str, Any] = {"float": np.float64, "boolean": np.bool_, "string": object}
    return np.array(filled, dtype=kinds[column.dtype])


@dataclass(frozen=True, slots=True)
class TensorFeed:
    """How columns become the inputs of an ONNX file.

    Attributes:
        columns: in the order of a matrix.
        types: the numpy type of each input whose type is served.
        flat: the inputs of shape (rows,); the others have the shape (rows, 1).
        matrix: the input that takes all columns; empty where each column has an input of its own.
    """

    columns: Sequence[InputColumn]
    types: Mapping[str, Any]
    flat: frozenset[str]
    matrix: str

    @classmethod
    def of(cls, columns: Sequence[InputColumn], inputs: Sequence[Any]) -> Self:
        """The feed of a file whose inputs are as onnxruntime describes them."""
        names = [column.tensor or column.name for column in columns]
        return cls(
            columns,
            {tensor.name: _TENSOR_TYPES[tensor.type] for tensor in inputs if tensor.type in _TENSOR_TYPES},
            frozenset(tensor.name for tensor in inputs if len(tensor.shape) == 1),
            inputs[0].name if len(inputs) == 1 and names != [inputs[0].name] else "",
        )

    def tensors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs for rows; `arrays` holds one array of shape (rows,) per column."""
        if self.matrix:
            stacked = np.column_stack([arrays[column.name] for column in self.columns])
            return {self.matrix: stacked.astype(self.types[self.matrix])}
        tensors = {}
        for column in self.columns:
            name = column.tensor or column.name
            array = arrays[column.name].astype(self.types[name])
            tensors[name] = array if name in self.flat else array.reshape(-1, 1)
        return tensors
