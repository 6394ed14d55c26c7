"""Which ONNX files are refused before anything runs them."""

import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from services.inference_service.domain.safety import DEPTH_LIMIT, PARTS_PER_NODE, parse_model
from services.inference_service.errors import UnsafeModelError

LIMIT = 20


def refusal(model: ModelProto | bytes) -> str:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(UnsafeModelError) as caught:
        parse_model(content, node_limit=LIMIT)
    assert [error.field for error in caught.value.errors] == ["onnx"]
    return caught.value.detail


def tensor(name: str = "w") -> TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])


def outside() -> TensorProto:
    """A tensor that says its values are in a file of the machine."""
    away = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    away.external_data.add(key="location", value="/etc/passwd")
    return away


def graph(nodes: list[NodeProto], initialisers: list[TensorProto] | None = None) -> GraphProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    return helper.make_graph(nodes, "g", [x], [value], initialisers or [])


def model(*nodes: NodeProto, initialisers: list[TensorProto] | None = None) -> ModelProto:
    return helper.make_model(graph(list(nodes), initialisers))


IDENTITY = helper.make_node("Identity", ["x"], ["y"])


def branch(*nodes: NodeProto, initialisers: list[TensorProto] | None = None) -> GraphProto:
    return helper.make_graph(
        list(nodes), "branch", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)], initialisers or []
    )


def conditional(then: GraphProto) -> NodeProto:
    other = branch(helper.make_node("Identity", ["x"], ["b"]))
    return helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)


def loop(body: GraphProto) -> NodeProto:
    return helper.make_node("Loop", ["n", "c"], ["y"], body=body)


def with_function(inner: NodeProto, *attributes: AttributeProto) -> ModelProto:
    opsets = [helper.make_opsetid("", 20)]
    function = helper.make_function("", "Mine", ["x"], ["y"], [inner], opsets, attribute_protos=list(attributes))
    return helper.make_model(
        graph([helper.make_node("Mine", ["x"], ["y"])]), functions=[function], opset_imports=opsets
    )


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def with_sparse_initialiser(values: TensorProto, indices: TensorProto) -> ModelProto:
    built = model(IDENTITY)
    built.graph.sparse_initializer.append(sparse(values, indices))
    return built


def with_training(tensors: list[TensorProto]) -> ModelProto:
    built = model(IDENTITY)
    built.training_info.add().algorithm.CopyFrom(graph([IDENTITY], tensors))
    return built


def test_a_plain_graph_with_subgraphs_and_tensors_of_its_own_is_taken():
    constant = helper.make_node("Constant", [], ["b"], value=tensor())
    built = model(conditional(branch(constant, initialisers=[tensor("v")])), initialisers=[tensor()])
    assert parse_model(built.SerializeToString(), node_limit=LIMIT) == built


@pytest.mark.parametrize("content", [b"", b"not ONNX", b"\x08", b'{"ir_version": 8}', b"\x00" * 100])
def test_bytes_that_are_no_onnx_file_are_refused(content):
    assert refusal(content) in {"onnx is not an ONNX file", "onnx has no nodes"}


def test_a_graph_without_nodes_is_refused():
    assert "has no nodes" in refusal(model())


OWN = helper.make_node("Run", ["x"], ["b"], domain="com.example")


@pytest.mark.parametrize(
    "built",
    [
        model(OWN),
        model(helper.make_node("Inverse", ["x"], ["y"], domain="com.microsoft")),
        model(conditional(branch(OWN))),
        model(loop(branch(conditional(branch(OWN))))),
    ],
    ids=["top", "runtime's own", "branch", "branch in a loop"],
)
def test_an_operator_outside_the_standard_domains_is_refused_wherever_it_is(built):
    assert "of the domain com." in refusal(built)


HOLDS_OUTSIDE = helper.make_node("Constant", [], ["b"], value=outside())


@pytest.mark.parametrize(
    "built",
    [
        model(IDENTITY, initialisers=[tensor(), outside()]),
        model(HOLDS_OUTSIDE),
        model(helper.make_node("Mine", ["x"], ["y"], tensors=[tensor(), outside()])),
        model(helper.make_node("Constant", [], ["y"], sparse_value=sparse(outside(), tensor()))),
        model(helper.make_node("Mine", ["x"], ["y"], tensors=[sparse(tensor(), outside())])),
        model(conditional(branch(IDENTITY, initialisers=[outside()]))),
        model(conditional(branch(HOLDS_OUTSIDE))),
        model(loop(branch(conditional(branch(IDENTITY, initialisers=[outside()]))))),
        model(helper.make_node("Mine", ["x"], ["y"], graphs=[branch(HOLDS_OUTSIDE)])),
        with_sparse_initialiser(outside(), tensor()),
        with_sparse_initialiser(tensor(), outside()),
        with_training([outside()]),
    ],
    ids=[
        "initialiser",
        "attribute",
        "list attribute",
        "sparse attribute",
        "list of sparse tensors",
        "branch's initialiser",
        "branch's attribute",
        "branch in a loop",
        "list of graphs",
        "sparse values",
        "sparse indices",
        "training graph",
    ],
)
def test_a_tensor_outside_the_file_is_refused_wherever_it_is(built):
    assert refusal(built) == "onnx keeps the tensor w outside the file"


def test_a_tensor_that_names_a_file_is_refused_even_where_it_claims_to_be_inside():
    named = tensor()
    named.external_data.add(key="location", value="weights.bin")
    assert "outside the file" in refusal(model(IDENTITY, initialisers=[named]))


def test_as_many_nodes_as_the_limit_are_taken_and_one_more_is_not():
    assert parse_model(model(*[IDENTITY] * LIMIT).SerializeToString(), node_limit=LIMIT)
    assert "more than 20 nodes" in refusal(model(*[IDENTITY] * (LIMIT + 1)))


def test_nodes_of_subgraphs_count():
    half = [IDENTITY] * (LIMIT // 2)
    assert "more than 20 nodes" in refusal(model(*half, conditional(branch(*half))))


def test_functions_are_refused_with_what_to_do():
    assert "onnx.inliner" in refusal(with_function(IDENTITY))


def test_graphs_inside_one_another_are_refused_beyond_the_limit():
    def nested(depth: int) -> ModelProto:
        inner = branch(IDENTITY)
        for _ in range(depth - 2):
            inner = branch(helper.make_node("Loop", ["n", "c"], ["b"], body=inner))
        return model(loop(inner))

    assert parse_model(nested(DEPTH_LIMIT).SerializeToString(), node_limit=LIMIT)
    assert "inside one another" in refusal(nested(DEPTH_LIMIT + 1))


HUGE = 2**14


@pytest.mark.parametrize(
    "built",
    [
        model(IDENTITY, initialisers=[TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUGE, HUGE])]),
        model(IDENTITY, initialisers=[TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1, 4])]),
        model(helper.make_node("Constant", [], ["y"], value=TensorProto(data_type=1, dims=[2**62, 2**62]))),
        model(helper.make_node("Constant", [], ["y"], sparse_value=onnx.SparseTensorProto(dims=[HUGE, HUGE]))),
        helper.make_model(
            helper.make_graph(
                [IDENTITY],
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, HUGE, HUGE])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
            )
        ),
    ],
    ids=["initialiser", "below 0", "product beyond 64 bits", "sparse", "input"],
)
def test_tensors_and_shapes_of_too_many_numbers_are_refused(built):
    assert "numbers" in refusal(built)


def test_a_file_that_onnxruntime_reads_as_its_own_format_is_refused_whatever_protobuf_reads_in_it():
    whole = model(IDENTITY).SerializeToString()
    size = len(b"ORTM") + 2
    shifted = bytes([0x08, 0x08, 0x7A, size]) + b"ORTM" + b"xx" + whole  # field 15, which holds the four bytes
    assert onnx.load_model_from_string(shifted).graph.node[0].op_type == "Identity"
    assert "own format" in refusal(shifted)


def test_fields_that_nobody_checks_are_left_out_of_what_runs():
    whole = model(IDENTITY).SerializeToString()
    unknown = whole + b"\xfa\x7f\x03abc"  # field 2047
    assert parse_model(unknown, node_limit=LIMIT).SerializeToString() == whole


def test_more_parts_than_so_many_nodes_can_have_are_refused():
    built = model(IDENTITY, initialisers=[tensor()] * (PARTS_PER_NODE * LIMIT))
    assert "too many parts" in refusal(built)
