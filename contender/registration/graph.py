"""Completes a converted graph: one input per column, casts, thresholds, guards, the target's inverse."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from contender.errors import ExportError
from contender.registration import text
from contender.registration.nodes import written
from contender.registration.rows import Column
from contender.registration.tensors import Guard, Prepared, Threshold, tensor_name
from contender.registration.trees import ML_OPSET

_TYPES = {"text": TensorProto.STRING, "whole": TensorProto.INT64}
_SCORE, _LABEL = "served_score", "served_label"
_GUARD_OPSET = 3
"""Of ai.onnx.ml: LabelEncoder maps to numbers from 2 on."""
_INVERSES = {
    "expm1": ("Exp", "minus one"),
    "exp": ("Exp", ""),
    "log": ("Log", ""),
    "log1p": ("Log", "plus one before"),
    "sqrt": ("Sqrt", ""),
    "square": ("square", ""),
    "negative": ("Neg", ""),
}


@dataclass(frozen=True)
class Outputs:
    """The names of a file's outputs; no label for a regression, or where the likeliest class is the label."""

    score: str
    label: str = ""
    is_own_rule: bool = False
    """Whether the label follows a threshold of the model's own, and never the likeliest class."""


class Graph:
    """A converted graph, to which nodes are added at its ends."""

    def __init__(self, model: ModelProto, number: int) -> None:
        self.model = model
        self._number = number
        self._count = 0
        self._label_kind: int = TensorProto.INT64

    def finish(self, prepared: Prepared, columns: Sequence[Column], classes: Any) -> Outputs:
        """Give the graph its inputs and outputs; returns which of them are scores and labels."""
        self._inputs(prepared, columns)
        outputs = [output.name for output in self.model.graph.output]
        score, label = outputs[-1], outputs[0] if len(outputs) > 1 else ""
        score = self.add("Cast", score, to=TensorProto.DOUBLE)
        if prepared.inverse is not None:
            score = self._inverted(prepared.inverse, score)
        for guard in prepared.guards:
            score = self.add("Add", score, self._guarded(guard, columns[guard.column], prepared))
        for odd in [name for node in self.model.graph.node for name in node.output if name.startswith(text.ODD)]:
            score = self.add("Add", score, odd)
        if prepared.threshold is not None:
            label = self._thresholded(prepared.threshold, score, classes)
        self._outputs(score, label)
        for node in self.model.graph.node:
            self._make_portable(node)
        return Outputs(_SCORE, _LABEL if label else "", prepared.threshold is not None)

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node at the end; the name of its output."""
        self._count += 1
        name = f"contender_{self._count}"
        self.model.graph.node.append(helper.make_node(kind, list(inputs), [name], name, domain=domain, **attributes))
        return name

    def constant(self, values: Any) -> str:
        """An initializer."""
        self._count += 1
        name = f"contender_{self._count}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _inputs(self, prepared: Prepared, columns: Sequence[Column]) -> None:
        """One input per column; a column that steps take as two types is cast from the type that callers send."""
        graph = self.model.graph
        converted = list(graph.node)
        del graph.input[:], graph.node[:]
        for number, column in enumerate(columns):
            kinds = prepared.kinds[number] or {"text" if column.dtype == "string" else "number"}
            kind = next(kind for kind in ("text", "whole", "number") if kind in kinds)
            shape = [None, 1]
            tensor = helper.make_tensor_value_info(f"c{number}", _TYPES.get(kind, self._number), shape)
            graph.input.append(tensor)
            for other in sorted(kinds - {"text"}):
                name = tensor_name(number, other)
                cast = helper.make_node("Cast", [f"c{number}"], [name], f"{name}_cast")
                cast.attribute.append(helper.make_attribute("to", _TYPES.get(other, self._number)))
                graph.node.append(cast)
        graph.node.extend(converted)

    def _outputs(self, score: str, label: str) -> None:
        graph = self.model.graph
        kinds = {output.name: output.type.tensor_type.elem_type for output in graph.output}
        del graph.output[:]
        graph.node.append(helper.make_node("Identity", [score], [_SCORE], _SCORE))
        graph.output.append(helper.make_tensor_value_info(_SCORE, TensorProto.DOUBLE, [None, None]))
        if label:
            kind = kinds.get(label, self._label_kind)
            graph.node.append(helper.make_node("Identity", [label], [_LABEL], _LABEL))
            graph.output.append(helper.make_tensor_value_info(_LABEL, kind, [None]))

    def _thresholded(self, threshold: Threshold, scores: str, classes: Any) -> str:
        positive = self.add("Gather", scores, self.constant(np.int64(threshold.positive)), axis=1)
        reached = self.add("GreaterOrEqual", positive, self.constant(np.float64(threshold.value)))
        labels = written(np.asarray(classes))
        self._label_kind = TensorProto.STRING if labels.dtype.kind == "U" else TensorProto.INT64
        other, own = (
            self.constant(self._label(labels[index])) for index in (1 - threshold.positive, threshold.positive)
        )
        return self.add("Where", reached, own, other)

    @staticmethod
    def _label(label: Any) -> Any:
        return np.array(str(label), dtype=object) if isinstance(label, str) else np.int64(label)

    def _guarded(self, guard: Guard, column: Column, prepared: Prepared) -> str:
        """Zero for a category that training had, NaN for another: shape (rows, 1)."""
        text = column.dtype == "string"
        keys: dict[str, Any] = (
            {"keys_strings": [str(category) for category in guard.categories]}
            if text
            else {"keys_int64s": [int(category) for category in guard.categories]}
        )
        tensor = f"c{guard.column}"
        if not text and "whole" not in prepared.kinds[guard.column]:
            tensor = self.add("Cast", tensor, to=TensorProto.INT64)
        zeros = [0.0] * len(guard.categories)
        guarded = self.add(
            "LabelEncoder", tensor, domain="ai.onnx.ml", values_floats=zeros, default_float=float("nan"), **keys
        )
        return self.add("Cast", guarded, to=TensorProto.DOUBLE)

    def _inverted(self, regressor: Any, values: str) -> str:
        """The values of a regressor whose target was transformed, in the target's own units."""
        function = regressor.inverse_func
        if function is None and regressor.transformer is not None:
            return self._rescaled(regressor.transformer_, values)
        if function is None:
            return values
        kind, more = _INVERSES.get(getattr(function, "__name__", ""), ("", ""))
        if not kind or getattr(np, getattr(function, "__name__", ""), None) is not function:
            known = ", ".join(f"numpy.{name}" for name in _INVERSES)
            raise ExportError(
                f"TransformedTargetRegressor has an inverse_func that has no counterpart in ONNX: {known} have one"
            )
        unit = self.constant(np.float64(1))
        if more == "plus one before":
            values = self.add("Add", values, unit)
        values = self.add("Mul", values, values) if kind == "square" else self.add(kind, values)
        return self.add("Sub", values, unit) if more == "minus one" else values

    def _rescaled(self, transformer: Any, values: str) -> str:
        """Undo a scaler: it is linear, so two of its values define it."""
        if type(transformer).__name__ not in ("StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler"):
            raise ExportError(
                f"TransformedTargetRegressor has the transformer {type(transformer).__name__}, which has no "
                "counterpart in ONNX: scalers have one, and func=numpy.log1p with inverse_func=numpy.expm1"
            )
        begin, end = transformer.inverse_transform(np.array([[0.0], [1.0]]))[:, 0]
        return self.add("Add", self.add("Mul", values, self.constant(end - begin)), self.constant(begin))

    def _make_portable(self, node: Any) -> None:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            # "en_US" is absent from slim images, and no request could be answered there.
            node.attribute.extend([*kept, helper.make_attribute("locale", "C")])
        if node.domain == "ai.onnx.ml":
            self._raise_opset(ML_OPSET if node.op_type == "TreeEnsemble" else _GUARD_OPSET)

    def _raise_opset(self, version: int) -> None:
        entry = next((opset for opset in self.model.opset_import if opset.domain == "ai.onnx.ml"), None)
        if entry is None:
            self.model.opset_import.append(helper.make_opsetid("ai.onnx.ml", version))
        else:
            entry.version = max(entry.version, version)
