"""A trial run ends within its limits, and the service answers on."""

import numpy as np
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from contender.registration import Export
from services.inference_service.errors import UnsafeModelError
from services.inference_service.settings import InferenceSettings
from services.inference_service.trial import Sample, Trial, try_model
from shared.events import InputColumn

HUGE = 2**28  # numbers of four bytes; the sample asks for three times as many
ENDLESS = 2**40


@pytest.fixture
def settings(tmp_path) -> InferenceSettings:
    # A thread of onnxruntime or numpy reserves address space, so that a small model needs most of this.
    return InferenceSettings(data=tmp_path, trial_seconds=2, trial_bytes=3 * 1024**3)


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def value(name: str, shape: list[int | None], kind: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def export(*nodes: NodeProto) -> Export:
    """A regression that takes x and answers y, and whose sample says that y is x."""
    graph: GraphProto = helper.make_graph(list(nodes), "g", [value("x", [None, 1])], [value("y", [None, 1])])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = {"task": "regression", "inputs": [{"name": "x", "dtype": "float"}]}
    return Export(built.SerializeToString(), manifest, {"inputs": {"x": [1.0, 2.0]}, "scores": [1.0, 2.0]})


def small() -> Export:
    return export(helper.make_node("Identity", ["x"], ["y"]))


def hungry() -> Export:
    """Fills as many numbers as the rows' sum times HUGE, so that nothing can be worked out beforehand."""
    return export(
        constant("huge", np.array([HUGE], dtype=np.int64)),
        constant("one", np.array([1], dtype=np.int64)),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mul", ["whole", "huge"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    )


def endless() -> Export:
    """Adds nothing to the rows, ENDLESS times."""
    names = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("before", [None, 1])]
    results = [value("on", [], TensorProto.BOOL), value("after", [None, 1])]
    steps = [
        helper.make_node("Identity", ["go"], ["on"]),
        constant("nothing", np.array([[0.0]], dtype=np.float32)),
        helper.make_node("Add", ["before", "nothing"], ["after"]),
    ]
    return export(
        constant("times", np.array(ENDLESS, dtype=np.int64)),
        constant("true", np.array(True)),
        helper.make_node("Loop", ["times", "true", "x"], ["y"], body=helper.make_graph(steps, "body", names, results)),
    )


@pytest.mark.parametrize(
    ("greedy", "slug", "said"),
    [(hungry, "answer", "alloc"), (endless, "unsafe-model", "limits of time and memory")],
)
async def test_a_model_that_needs_more_than_it_may_is_refused_and_the_service_answers_on(
    client, upload, greedy, slug, said
):
    answer = await upload(greedy())
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["type"].endswith(f"/{slug}")
    assert said in answer.json()["detail"]
    assert (await client.get("/v1/models")).json() == {"versions": []}
    assert (await upload(small())).status_code == 201
    predicted = await client.post("/v1/models/churn/versions/champion/predict", json={"inputs": {"x": [3.5]}})
    assert predicted.json()["scores"] == [3.5]


async def test_a_trial_that_may_have_hardly_any_memory_is_a_refusal(settings):
    described = small()
    trial = Trial(
        onnx=described.onnx,
        schema=[InputColumn("x", "float")],
        task="regression",
        classes=[],
        sample=Sample(**described.sample),
        tolerance=1e-5,
        row_limit=10,
        text_limit=10,
        node_limit=10,
    )
    assert await try_model(trial, settings) == 0.0
    with pytest.raises(UnsafeModelError):
        await try_model(trial, settings.model_copy(update={"trial_bytes": 1024**2}))
