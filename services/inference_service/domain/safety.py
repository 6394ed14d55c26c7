"""Which ONNX files are run: self-contained graphs of standard operators within limits."""

from collections.abc import Iterator

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from services.inference_service.errors import UnsafeModelError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
PARTS_PER_NODE = 100
"""Attributes, tensors, types and the like per node that is allowed; exported trees have about 20."""


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
    nodes = 0
    for parts, part in enumerate(_parts(model), 1):
        if isinstance(part, onnx.NodeProto):
            nodes += 1
            _check_node(part)
        elif isinstance(part, onnx.TensorProto):
            _check_tensor(part)
        if nodes > node_limit or parts > PARTS_PER_NODE * node_limit:
            raise UnsafeModelError.at("onnx", f"has more than {node_limit} nodes, or too many parts for them")
    return model


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in DOMAINS:
        raise UnsafeModelError.at("onnx", f"uses {node.op_type} of the domain {node.domain}, only standard ones run")


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise UnsafeModelError.at("onnx", f"keeps the tensor {tensor.name or 'without a name'} outside the file")


def _parts(model: Message) -> Iterator[Message]:
    """The model and every message in it, so that no place is forgotten: subgraphs, functions, sparse tensors."""
    pending = [model]
    while pending:
        part = pending.pop()
        yield part
        for field, value in part.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                pending.extend([value] if isinstance(value, Message) else value)
