"""ONNX sessions: which inputs and outputs fit, and what is told of rows that have no score."""

import numpy as np
import pandas as pd
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from contender.contracts.inference_service import InputColumn
from contender.registration import export_pipeline
from services.inference_service.errors import AnswerError, ManifestError
from services.inference_service.session import Session

A, B = InputColumn("a", "float"), InputColumn("b", "float")
ROWS = {"a": np.array([1, 2, 3], dtype=np.float32), "b": np.array([10, 20, 30], dtype=np.float32)}
COPY = helper.make_node("Identity", ["x"], ["y"])


def tensor(name: str, width: int | None = 1, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None, width])


def graph(nodes: list[NodeProto], inputs: list[ValueInfoProto], answers: list[ValueInfoProto]) -> bytes:
    built = helper.make_model(
        helper.make_graph(nodes, "g", inputs, answers), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    content: bytes = built.SerializeToString()
    return content


def test_a_model_of_one_matrix_gets_its_columns_in_the_order_of_the_schema():
    first = helper.make_node("ArgMax", ["x"], ["index"], axis=1)
    content = graph([first, helper.make_node("Cast", ["index"], ["y"], to=1)], [tensor("x", 2)], [tensor("y")])
    assert Session(content, [A, B], "regression", []).answer(ROWS).scores == [1.0, 1.0, 1.0]
    assert Session(content, [B, A], "regression", []).answer(ROWS).scores == [0.0, 0.0, 0.0]


def test_the_score_of_a_regression_with_several_outputs_is_the_first_of_real_numbers():
    whole = helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64)
    half = helper.make_node("Mul", ["x", "x"], ["square"])
    answers = [tensor("whole", kind=TensorProto.INT64), tensor("square"), tensor("y")]
    session = Session(graph([whole, half, COPY], [tensor("x")], answers), [A], "regression", [])
    assert session.answer({"a": ROWS["a"]}).scores == [1.0, 4.0, 9.0]


def test_a_regression_with_several_values_a_row_answers_nothing():
    session = Session(graph([COPY], [tensor("x", 2)], [tensor("y", 2)]), [A, B], "regression", [])
    with pytest.raises(AnswerError, match=r"3 rows, and the model answers with the shape \(3, 2\)"):
        session.answer(ROWS)


@pytest.mark.parametrize("width", [1, None])
def test_a_binary_model_may_give_the_probability_of_its_last_class_alone(width):
    session = Session(graph([COPY], [tensor("x", width)], [tensor("y", width)]), [A], "binary", ["no", "yes"])
    answers = session.answer({"a": np.array([0.0, 0.5, 0.75, 1.0000001])})
    assert answers.scores == [0.0, 0.5, 0.75, 1.0]
    assert answers.labels == ["no", "no", "yes", "yes"]


def test_a_score_that_is_no_probability_is_refused():
    session = Session(graph([COPY], [tensor("x")], [tensor("y")]), [A], "binary", ["no", "yes"])
    with pytest.raises(AnswerError, match="answers with -3, which is not a probability"):
        session.answer({"a": np.array([0.5, -3.0])})


def labelled(cut: float, labels: list[int]) -> bytes:
    """A model whose score is x, and whose label is the second one from a cut on."""
    nodes = [
        COPY,
        helper.make_node("Constant", [], ["cut"], value=numpy_helper.from_array(np.float32([cut]))),
        helper.make_node("GreaterOrEqual", ["x", "cut"], ["reached"]),
        helper.make_node("Cast", ["reached"], ["place"], to=TensorProto.INT64),
        helper.make_node("Constant", [], ["labels"], value=numpy_helper.from_array(np.array(labels))),
        helper.make_node("Gather", ["labels", "place"], ["both"]),
        helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Reshape", ["both", "flat"], ["label"]),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    return graph(nodes, [tensor("x")], [tensor("y"), label])


@pytest.mark.parametrize(("classes", "labels"), [([3, 7], [3, 7]), ([False, True], [0, 1]), ([1.0, 2.0], [1, 2])])
def test_the_label_is_the_models_own_where_the_manifest_names_its_output(classes, labels):
    session = Session(labelled(0.2, labels), [A], "binary", classes, score_output="y", label_output="label")
    answers = session.answer({"a": np.array([0.1, 0.2, 0.3, 0.9])})
    assert answers.labels == [classes[0], classes[1], classes[1], classes[1]]
    assert [type(label) for label in answers.labels] == [type(classes[0])] * 4


def test_a_label_that_is_none_of_the_classes_is_refused():
    session = Session(labelled(0.2, [3, 8]), [A], "binary", [3, 7], label_output="label")
    with pytest.raises(AnswerError, match="labels 8, which is not one of its classes"):
        session.answer({"a": np.array([0.9])})


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ({"score_output": "z"}, "manifest.score_output"),
        ({"score_output": "label"}, "manifest.score_output"),
        ({"label_output": "z"}, "manifest.label_output"),
        ({"label_output": "y"}, "manifest.label_output"),
    ],
)
def test_outputs_that_the_file_does_not_give_are_refused_by_name(outputs, field):
    with pytest.raises(ManifestError) as refused:
        Session(labelled(0.2, [0, 1]), [A], "binary", [0, 1], **outputs)
    assert [error.field for error in refused.value.errors] == [field]


def test_a_column_is_fed_to_the_tensor_that_the_manifest_names():
    swapped = [InputColumn("a", "float", tensor="t1"), InputColumn("b", "float", tensor="t0")]
    minus = helper.make_node("Sub", ["t0", "t1"], ["y"])
    session = Session(graph([minus], [tensor("t0"), tensor("t1")], [tensor("y")]), swapped, "regression", [])
    assert session.answer({"a": np.array([1.0]), "b": np.array([10.0])}).scores == [9.0]


def test_a_model_without_real_numbers_has_no_score():
    whole = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)
    content = graph([whole], [tensor("x")], [tensor("y", kind=TensorProto.INT64)])
    with pytest.raises(ManifestError, match="no output of floats"):
        Session(content, [A], "regression", [])


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("string", TensorProto.FLOAT), ("float", TensorProto.INT64), ("float", TensorProto.STRING), ("integer", 10)],
)
def test_a_column_whose_values_the_tensor_can_not_hold_does_not_fit(dtype, kind):
    content = graph([COPY], [tensor("x", kind=kind)], [tensor("y", kind=kind)])
    with pytest.raises(ManifestError, match=rf"x as {dtype}, ONNX as tensor"):
        Session(content, [InputColumn("x", dtype)], "regression", [])


def test_columns_that_the_file_does_not_have_are_named():
    content = graph([helper.make_node("Add", ["a", "c"], ["y"])], [tensor("a"), tensor("c")], [tensor("y")])
    with pytest.raises(ManifestError, match="differ in: b, c"):
        Session(content, [A, B], "regression", [])


def test_rows_that_the_model_fails_on_are_an_answer_error():
    columns = pd.DataFrame({"plan": ["free", "pro"] * 10})
    pipeline = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(columns, [0, 1] * 10)
    content = export_pipeline(pipeline, columns).onnx
    session = Session(content, [InputColumn("plan", "string")], "binary", [0, 1])
    assert session.answer({"plan": np.array(["pro"], dtype=object)}).labels == [1]
    with pytest.raises(AnswerError, match="can't be answered by the model"):
        session.answer({"plan": np.array(["team"], dtype=object)})


def test_a_row_without_finite_score_is_named():
    session = Session(graph([COPY], [tensor("x")], [tensor("y")]), [A], "regression", [])
    with pytest.raises(AnswerError, match="row 1"):
        session.answer({"a": np.array([1.0, np.nan], dtype=np.float32)})
