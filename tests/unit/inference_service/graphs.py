"""Small ONNX graphs from x to y, both of shape [rows, 1], for tests: honest ones and greedy ones."""

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from contender.registration import Export

REGRESSION = {"task": "regression", "inputs": [{"name": "x", "dtype": "float"}]}
SAMPLE = {"inputs": {"x": [1.0, 2.0]}, "scores": [1.0, 2.0]}


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def value(name: str, shape: list[int | None], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def file(*nodes: NodeProto, initialisers: list[TensorProto] | None = None) -> bytes:
    graph: GraphProto = helper.make_graph(
        list(nodes), "g", [value("x", [None, 1])], [value("y", [None, 1])], initialisers or []
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = built.SerializeToString()
    return content


def export(*nodes: NodeProto) -> Export:
    """A regression whose sample says that y is x."""
    return Export(file(*nodes), REGRESSION, SAMPLE)


def small() -> Export:
    return export(helper.make_node("Identity", ["x"], ["y"]))


def whole_sum(*, most: bool = False) -> list[NodeProto]:
    """The rows' sum, or the largest of them, as the whole number `whole`."""
    gather = helper.make_node("ReduceMax" if most else "ReduceSum", ["x"], ["sum"], keepdims=0)
    return [gather, helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64)]


def filling(times: int) -> Export:
    """Fills as many numbers as the rows' sum times `times`, so that nothing can be worked out beforehand."""
    return export(
        constant("huge", np.array([times], dtype=np.int64)),
        *whole_sum(),
        helper.make_node("Mul", ["whole", "huge"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    )


def looping(times: int | None = None) -> Export:
    """Adds nothing to the rows so many times; without a number the largest row says how often."""
    names = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("before", [None, 1])]
    results = [value("on", [], TensorProto.BOOL), value("after", [None, 1])]
    steps = [
        helper.make_node("Identity", ["go"], ["on"]),
        constant("nothing", np.array([[0.0]], dtype=np.float32)),
        helper.make_node("Add", ["before", "nothing"], ["after"]),
    ]
    before = whole_sum(most=True) if times is None else [constant("whole", np.array(times, dtype=np.int64))]
    body = helper.make_graph(steps, "body", names, results)
    return export(
        *before, constant("true", np.array(True)), helper.make_node("Loop", ["whole", "true", "x"], ["y"], body=body)
    )
