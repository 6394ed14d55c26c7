"""OrdinalEncoder as ONNX's LabelEncoder: skl2onnx's converter loses what stands for missing text."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.preprocessing import OrdinalEncoder

from contender.registration.nodes import Converters, Nodes


def _encode(scope: Any, operator: Any, container: Any) -> None:
    encoder, nodes = operator.raw_operator, Nodes(scope, container)
    unknown = np.nan if encoder.unknown_value is None else float(encoder.unknown_value)
    columns = _columns(nodes, operator)
    encoded = []
    for (column, kind), categories, codes in zip(columns, encoder.categories_, _codes(encoder), strict=True):
        encoded.append(
            nodes.add(
                "LabelEncoder",
                column,
                op_domain="ai.onnx.ml",
                op_version=2,
                values_floats=codes,
                default_float=unknown,
                **_keys(kind, categories),
            )
        )
    whole = isinstance(operator.outputs[0].type, Int64TensorType)
    joined = nodes.add("Concat", *encoded, axis=1)
    nodes.add(
        "Cast", joined, to=TensorProto.INT64 if whole else TensorProto.FLOAT, output=operator.outputs[0].full_name
    )


def _codes(encoder: OrdinalEncoder) -> list[list[float]]:
    """What the encoder itself makes of each of its categories, by column."""
    most = max(len(categories) for categories in encoder.categories_)
    table = np.empty((most, len(encoder.categories_)), dtype=object)
    for number, categories in enumerate(encoder.categories_):
        table[:, number] = [categories[min(row, len(categories) - 1)] for row in range(most)]
    codes = np.asarray(encoder.transform(table), dtype=np.float64)
    return [codes[: len(categories), number].tolist() for number, categories in enumerate(encoder.categories_)]


def _keys(kind: Any, categories: NDArray[Any]) -> dict[str, Any]:
    if isinstance(kind, StringTensorType):
        return {"keys_strings": [str(category) for category in categories]}
    if isinstance(kind, FloatTensorType):
        return {"keys_floats": [float(category) for category in categories]}
    return {"keys_int64s": [int(category) for category in categories]}


def _columns(nodes: Nodes, operator: Any) -> list[tuple[str, Any]]:
    """Each column of the step's tensors, shape (rows, 1), and its type; 64-bit floats as 32-bit ones."""
    columns = []
    for tensor in operator.inputs:
        name, kind = tensor.full_name, tensor.type
        if isinstance(kind, DoubleTensorType):
            name, kind = nodes.add("Cast", name, to=TensorProto.FLOAT), FloatTensorType()
        width = tensor.type.shape[1]
        for index in range(width):
            column = name if width == 1 else nodes.add("Gather", name, nodes.constant([index]), axis=1)
            columns.append((column, kind))
    return columns


CONVERTERS: Converters = {OrdinalEncoder: _encode}
