"""Which ONNX files are run: self-contained graphs of standard operators within limits."""

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

from services.inference_service.errors import UnsafeModelError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def parse_model(content: bytes, *, node_limit: int) -> onnx.ModelProto:
    """Parse an ONNX file from its bytes, never from a path, and refuse what must not run.

    Raises:
        UnsafeModelError: not ONNX, external data anywhere, an operator outside the standard domains, or too many nodes.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise UnsafeModelError.at("onnx", "is not an ONNX file") from error
    if not model.graph.node:
        raise UnsafeModelError.at("onnx", "has no nodes")
    for number, node in enumerate(_nodes(model), 1):
        if number > node_limit:
            raise UnsafeModelError.at("onnx", f"has more than {node_limit} nodes")
        if node.domain not in DOMAINS:
            raise UnsafeModelError.at(
                "onnx", f"uses {node.op_type} of the domain {node.domain}, only standard ones run"
            )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise UnsafeModelError.at("onnx", "keeps tensors outside the file")
    return model


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    pending = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                pending.extend(graph.node)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for node in _nodes(model):
        for attribute in node.attribute:
            yield attribute.g
            yield from attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
