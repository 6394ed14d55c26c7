"""Which ONNX files are run: self-contained graphs of standard operators within limits."""

import math
from collections.abc import Iterator

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from services.inference_service.errors import UnsafeModelError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
PARTS_PER_NODE = 100
"""Attributes, tensors, types and the like per node that is allowed; exported trees have about 20."""
DEPTH_LIMIT = 8
"""Graphs inside one another; exported pipelines have two at most."""
ELEMENT_LIMIT = 2**26
"""Numbers in a tensor, and the product of a shape's known sizes: what a file of the largest size could hold."""
_FLATBUFFER = (slice(4, 8), b"ORTM")
"""onnxruntime's own format, which it reads instead of protobuf if these bytes have this value."""


def parse_model(content: bytes, *, node_limit: int) -> onnx.ModelProto:
    """Parse an ONNX file from its bytes, never from a path, and refuse what must not run.

    The caller bounds memory and time: a file of empty parts takes more than a hundred times its size.
    What the model's `SerializeToString` gives holds nothing that was not checked here.

    Raises:
        UnsafeModelError: not ONNX, external data anywhere, an operator outside the standard domains, functions, or
            more nodes, parts, depth or numbers than allowed.
    """
    where, mark = _FLATBUFFER
    if content[where] == mark:
        raise UnsafeModelError.at(
            "onnx", "is a file of onnxruntime's own format: upload the ONNX file it was made from"
        )
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise UnsafeModelError.at("onnx", "is not an ONNX file") from error
    if not model.graph.node:
        raise UnsafeModelError.at("onnx", "has no nodes")
    if model.functions:
        raise UnsafeModelError.at("onnx", "has functions of its own: inline them (onnx.inliner) before the upload")
    _check_parts(model, node_limit)
    model.DiscardUnknownFields()
    return model


def _check_parts(model: onnx.ModelProto, node_limit: int) -> None:
    nodes = 0
    for parts, (part, depth) in enumerate(_parts(model), 1):
        if isinstance(part, onnx.NodeProto):
            nodes += 1
            _check_node(part)
        elif isinstance(part, onnx.TensorProto):
            _check_tensor(part)
        elif isinstance(part, onnx.SparseTensorProto):
            _check_size(part.dims, "a sparse tensor")
        elif isinstance(part, onnx.TensorShapeProto):
            _check_size([size.dim_value for size in part.dim if size.dim_value > 0], "a shape")
        if nodes > node_limit or parts > PARTS_PER_NODE * node_limit:
            raise UnsafeModelError.at("onnx", f"has more than {node_limit} nodes, or too many parts for them")
        if depth > DEPTH_LIMIT:
            raise UnsafeModelError.at("onnx", f"has more than {DEPTH_LIMIT} graphs inside one another")


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in DOMAINS:
        raise UnsafeModelError.at("onnx", f"uses {node.op_type} of the domain {node.domain}, only standard ones run")


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise UnsafeModelError.at("onnx", f"keeps the tensor {tensor.name or 'without a name'} outside the file")
    _check_size(tensor.dims, f"the tensor {tensor.name or 'without a name'}")


def _check_size(sizes: "onnx.TensorProto.dims | list[int]", owner: str) -> None:
    if any(size < 0 for size in sizes) or math.prod(sizes) > ELEMENT_LIMIT:
        raise UnsafeModelError.at("onnx", f"gives {owner} more than {ELEMENT_LIMIT} numbers, or a size below 0")


def _parts(model: Message) -> Iterator[tuple[Message, int]]:
    """The model and every message in it, whatever holds it, each with the number of graphs around it."""
    pending = [(model, 0)]
    while pending:
        part, depth = pending.pop()
        yield part, depth
        below = depth + isinstance(part, onnx.GraphProto)
        for field, value in part.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                pending.extend((inner, below) for inner in ([value] if isinstance(value, Message) else value))
