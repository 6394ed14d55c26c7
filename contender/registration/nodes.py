"""Nodes that converters of our own add to a graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType

Converters = dict[type, Callable[[Any, Any, Any], None]]
"""The converter of a step, by its type; skl2onnx calls it with scope, operator and container."""


class Nodes:
    """Adds nodes to a graph and names their outputs."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def unique(self, name: str) -> str:
        """An unused name for a tensor."""
        unique: str = self._scope.get_unique_variable_name(name)
        return unique

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; the name of its output."""
        return self.several(
            kind, *inputs, outputs=[output or self._scope.get_unique_variable_name(kind.lower())], **attributes
        )[0]

    def pair(self, kind: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with two outputs; their names."""
        names = [self._scope.get_unique_variable_name(kind.lower()) for _ in range(2)]
        return self.several(kind, *inputs, outputs=names, **attributes)

    def several(self, kind: str, *inputs: str, outputs: list[str], **attributes: Any) -> list[str]:
        """Add a node with these outputs."""
        name = self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, list(inputs), outputs, name=name, **attributes)
        return outputs

    def constant(self, values: Any) -> str:
        """An initializer of 64-bit numbers or text."""
        array = np.asarray(values)
        name: str = self._scope.get_unique_variable_name("constant")
        kinds = {"f": TensorProto.DOUBLE, "i": TensorProto.INT64, "U": TensorProto.STRING}
        flat = [text.encode() for text in array.ravel()] if array.dtype.kind == "U" else array.ravel().tolist()
        self._container.add_initializer(name, kinds[array.dtype.kind], array.shape, flat)
        return name

    def hand_on(self, values: str, output: Any) -> None:
        """Make values, as floats of its type, the output that the next step takes."""
        kind = TensorProto.DOUBLE if isinstance(output.type, DoubleTensorType) else TensorProto.FLOAT
        self.add("Cast", values, to=kind, output=output.full_name)

    def label(self, scores: str, classes: NDArray[Any], output: str) -> None:
        """The likeliest class of each row, the first where several are."""
        index = self.add("ArgMax", scores, axis=1, keepdims=0)
        self.add("Gather", self.constant(written(classes)), index, output=output)


def written(classes: NDArray[Any]) -> NDArray[Any]:
    """Classes as a label tensor holds them: whole numbers, or text."""
    if classes.dtype.kind in "OUST":
        return np.array([str(value) for value in classes])
    return classes.astype(np.int64)
