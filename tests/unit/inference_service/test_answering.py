"""Every row gets its own answer: its score, or the column at fault."""

import msgspec
import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace
from onnx import NodeProto, TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from contender.contracts.inference_service import InputColumn, RowFault, ScoredRows
from contender.registration import Export, export_pipeline
from services.inference_service.answering import Answering, Limits, halves, joined
from services.inference_service.session import RUN_ROWS, Session
from services.inference_service.watchdog import Watchdog
from shared.errors import InvalidField, TooLarge
from tests.unit.inference_service.graphs import file, looping

LIMITS = Limits(row_limit=2_000, text_limit=20, run_seconds=60.0, answer_seconds=120.0)
IMPATIENT = replace(LIMITS, run_seconds=1.0)
X = [InputColumn("x", "float", required=False)]
PLENTY = 120.0


@pytest.fixture(scope="module")
def watchdog() -> Watchdog:
    return Watchdog()


@pytest.fixture(scope="module")
def shop(watchdog) -> Answering:
    """Two columns of known categories and one of numbers; a category that was never seen makes the whole run fail."""
    chance = np.random.default_rng(5)
    columns = pd.DataFrame(
        {
            "size": chance.choice(["S", "M", "L"], 300),
            "colour": chance.choice(["red", "blue"], 300),
            "price": chance.normal(10, 2, 300),
        }
    )
    encode = ColumnTransformer([("one hot", OneHotEncoder(), ["size", "colour"])], remainder="passthrough")
    pipeline = make_pipeline(encode, LogisticRegression()).fit(columns, columns["price"] > 10)
    export = export_pipeline(pipeline, columns)
    size, colour, price = columns_of(export)
    schema = [replace(size, required=False), colour, replace(price, required=False)]
    session = Session(export.onnx, schema, "binary", [False, True])
    return Answering(session, schema, {"size": "M", "colour": "red", "price": 10.0}, LIMITS, watchdog)


def columns_of(export: Export) -> list[InputColumn]:
    return msgspec.convert(export.manifest["inputs"], list[InputColumn])


def rows(count: int, **changed: dict[int, object]) -> dict[str, list[object]]:
    inputs = {"size": ["S", "L"] * count, "colour": ["red"] * count, "price": [9.0, 11.0] * count}
    inputs = {name: values[:count] for name, values in inputs.items()}
    for name, values in changed.items():
        for row, value in values.items():
            inputs[name][row] = value
    return inputs


def faults(answers: ScoredRows) -> dict[int, str]:
    assert {fault.status for fault in answers.errors} <= {422}
    return {fault.row: fault.field for fault in answers.errors}


def check_others(answers: ScoredRows, whole: ScoredRows) -> None:
    """Every row without a fault has the score that it has among good rows, every other row none."""
    bad = {fault.row for fault in answers.errors}
    for row, (score, label) in enumerate(zip(answers.scores, answers.labels, strict=True)):
        assert (score is None, label is None) == (row in bad, row in bad)
        if score is not None:
            assert score == pytest.approx(whole.scores[row], abs=1e-6)
            assert label == whole.labels[row]


def test_a_category_that_was_never_seen_is_named_and_all_other_rows_are_answered(shop):
    whole = shop.answer(rows(700), PLENTY)
    assert whole.errors == []
    unseen = {3: "XXL", 255: "XS", 256: "XXL", 699: "huge"}
    answers = shop.answer(rows(700, size=unseen), PLENTY)
    assert faults(answers) == dict.fromkeys(unseen, "inputs.size")
    assert "'XS'" in next(fault.message for fault in answers.errors if fault.row == 255)
    check_others(answers, whole)


def test_bad_values_in_several_columns_and_of_the_wrong_type_are_each_the_fault_of_their_own_row(shop):
    inputs = rows(40, size={0: "XXL", 7: 5}, colour={1: "green", 2: None}, price={3: None, 4: "ten"})
    answers = shop.answer(inputs, PLENTY)
    columns = {0: "size", 1: "colour", 2: "colour", 3: "price", 4: "price", 7: "size"}
    assert faults(answers) == {row: f"inputs.{name}" for row, name in columns.items()}
    assert "add an imputer" in next(fault.message for fault in answers.errors if fault.row == 3)
    check_others(answers, shop.answer(rows(40), PLENTY))


def test_of_two_bad_columns_in_one_row_one_is_named(shop):
    answers = shop.answer(rows(3, size={1: "XXL"}, colour={1: "green"}), PLENTY)
    assert faults(answers)[1] in {"inputs.size", "inputs.colour"}


def test_where_all_rows_are_bad_each_is_refused(shop):
    answers = shop.answer(rows(600, colour=dict.fromkeys(range(600), "green")), PLENTY)
    fields = faults(answers)
    assert sorted(fields) == list(range(600))
    assert fields[0] == "inputs.colour"
    assert set(fields.values()) <= {"inputs.colour", "inputs"}  # the time for naming may end before the rows do
    assert set(answers.scores) == {None}


def test_without_a_known_row_a_null_is_named_or_nothing(shop, watchdog):
    blind = Answering(shop.session, shop.schema, {}, LIMITS, watchdog)
    answers = blind.answer(rows(4, size={1: "XXL"}, price={2: None}), PLENTY)
    assert faults(answers) == {1: "inputs", 2: "inputs.price"}


def test_a_value_too_large_for_a_finite_score_is_named(watchdog):
    columns = pd.DataFrame({"a": np.linspace(0, 1, 50), "b": np.linspace(5, 1, 50) ** 2})
    export = export_pipeline(LinearRegression().fit(columns, columns["a"] * 1e9 + columns["b"]), columns)
    schema = columns_of(export)
    session = Session(export.onnx, schema, "regression", [])
    answering = Answering(session, schema, {"a": 0.5, "b": 2.0}, LIMITS, watchdog)
    answers = answering.answer({"a": [0.5, 3e38, 0.5], "b": [1.0, 1.0, 2.0]}, PLENTY)
    assert faults(answers) == {1: "inputs.a"}
    assert answers.scores[0] == pytest.approx(5e8, rel=1e-3)


def test_a_score_beyond_32_bits_is_refused_even_where_the_model_computes_in_64(watchdog):
    content = file64(helper.make_node("Mul", ["x", "x"], ["y"]))
    answering = Answering(Session(content, X, "regression", []), X, {"x": 1.0}, LIMITS, watchdog)
    answers = answering.answer({"x": [1e10, 1e20, -1e20, 0.0]}, PLENTY)
    assert answers.scores == [pytest.approx(1e20), None, None, 0.0]
    assert faults(answers) == {1: "inputs.x", 2: "inputs.x"}


def file64(*nodes: NodeProto) -> bytes:
    """A graph from x to y in 64-bit floats."""
    ends = [[helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1])] for name in "xy"]
    opsets = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(
        helper.make_graph(list(nodes), "g", *ends), opset_imports=opsets, ir_version=8
    ).SerializeToString()
    return content


def test_a_model_that_answers_another_number_of_rows_answers_none(watchdog):
    content = file(helper.make_node("Concat", ["x", "x"], ["y"], axis=0))
    answering = Answering(Session(content, X, "regression", []), X, {}, LIMITS, watchdog)
    assert faults(answering.answer({"x": [1.0, 2.0]}, PLENTY)) == {0: "inputs", 1: "inputs"}


def test_a_row_that_takes_too_long_alone_is_its_own_fault(watchdog):
    answering = Answering(Session(looping().onnx, X, "regression", []), X, {}, IMPATIENT, watchdog)
    answers = answering.answer({"x": [1e12]}, PLENTY)
    assert [(fault.row, fault.status) for fault in answers.errors] == [(0, 422)]
    assert "longer than 1 s" in answers.errors[0].message


def test_quick_rows_are_answered_beside_one_that_takes_for_ever(watchdog):
    answering = Answering(Session(looping().onnx, X, "regression", []), X, {}, IMPATIENT, watchdog)
    answers = answering.answer({"x": [1.0, 1e12, 3.0, 4.0]}, PLENTY)
    assert answers.scores == [1.0, None, 3.0, 4.0]
    assert [(fault.row, fault.status) for fault in answers.errors] == [(1, 422)]


def test_rows_that_the_others_leave_no_time_are_told_to_come_again(watchdog):
    answering = Answering(Session(looping().onnx, X, "regression", []), X, {}, IMPATIENT, watchdog)
    answers = answering.answer({"x": [1e12, 1e12]}, 0.8)
    assert [(fault.row, fault.status) for fault in answers.errors] == [(0, 503), (1, 503)]


def test_a_question_that_is_malformed_is_refused_as_a_whole(shop):
    with pytest.raises(InvalidField, match=r"inputs\.colour is missing"):
        shop.answer({"size": ["S"], "price": [1.0]}, PLENTY)
    with pytest.raises(TooLarge):
        shop.answer(rows(2_001), PLENTY)


def test_no_run_has_more_rows_than_a_trial_measures(watchdog):
    """A model that counts the rows of its run says how many they were."""
    content = file(
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Cast", ["shape"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "count"], ["y"]),
    )
    answering = Answering(Session(content, X, "regression", []), X, {}, LIMITS, watchdog)
    answers = answering.answer({"x": [1.0] * (2 * RUN_ROWS + 3)}, PLENTY)
    assert answers.scores == [float(RUN_ROWS)] * 2 * RUN_ROWS + [3.0] * 3


def test_answers_of_halves_are_joined_with_the_numbers_of_their_rows():
    first, second = halves({"x": [1.0, 2.0, 3.0]})
    assert (first, second) == ({"x": [1.0]}, {"x": [2.0, 3.0]})
    fault = RowFault(1, 422, "inputs.x", "is odd")
    whole = joined(ScoredRows([1.0], [1.0]), ScoredRows([2.0, None], [2.0, None], [fault]))
    assert whole == ScoredRows([1.0, 2.0, None], [1.0, 2.0, None], [RowFault(2, 422, "inputs.x", "is odd")])
