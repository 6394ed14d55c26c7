"""A ready ONNX file gets names, types, a task and a sample, whoever exported it."""

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from contender.contracts.inference_service import InputColumn, ModelVersion
from contender.errors import ExportError
from contender.registration import export_file, is_file
from services.inference_service.runtime import trial_of
from services.inference_service.settings import InferenceSettings
from services.inference_service.trial import run

ROWS = pd.DataFrame(
    {"width": np.linspace(-2, 2, 80, dtype=np.float32), "height": np.linspace(3, 1, 80, dtype=np.float32)}
)
YES = ROWS.width.to_numpy() > 0.3


def net(outputs: int, last: str, inputs: tuple[str, ...] = ()) -> Any:
    """What PyTorch writes of a small network: a matrix or a tensor per column, a product, and a last step."""
    chance = np.random.default_rng(outputs)
    shape = [None, 1] if inputs else [None, 2]
    inputs_info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs or ("input",)]
    weights = numpy_helper.from_array(chance.normal(0, 1, (2, outputs)).astype(np.float32), "weights")
    nodes = [helper.make_node("Concat", list(inputs), ["joined"], axis=1)] if inputs else []
    nodes.append(helper.make_node("MatMul", ["joined" if inputs else "input", "weights"], ["raw"]))
    nodes.append(helper.make_node(last, ["raw"], ["output"]))
    wanted = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, outputs])]
    graph = helper.make_graph(nodes, "net", inputs_info, wanted, [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def accepted(export: Any) -> dict[str, Any]:
    """The manifest, where the service's trial accepts the file with its sample."""
    manifest = export.manifest
    version = ModelVersion(
        model="net",
        version=export.version,
        task=manifest["task"],
        classes=manifest["classes"],
        inputs=[InputColumn(**column) for column in manifest["inputs"]],
        registered_at=0.0,
        score_output=manifest["score_output"],
        label_output=manifest["label_output"],
    )
    limits = InferenceSettings()
    finding, _ = run(trial_of(version, 1e-5, limits), export.onnx, msgspec.json.encode(export.sample))
    assert finding.kind == ""
    return manifest


@pytest.mark.parametrize(
    ("model", "labels", "wanted"),
    [
        (net(1, "Identity"), np.linspace(-1, 9, 80), [-1.0, 9.0]),
        (net(1, "Identity"), [np.nan, np.inf, 2, *range(77)], [0.0, 76.0]),
        (net(1, "Identity"), [str(number) + "%" for number in range(80)], None),
        (net(1, "Identity"), None, None),
        (net(1, "Sigmoid"), YES, None),
    ],
)
def test_the_range_of_a_regressions_targets_is_recorded(model, labels, wanted):
    assert export_file(model, ROWS, labels).manifest.get("target_range") == wanted


@pytest.mark.parametrize(
    ("model", "labels", "task", "classes"),
    [
        (net(1, "Sigmoid"), YES, "binary", [False, True]),
        (net(1, "Sigmoid"), np.where(YES, "yes", "no"), "binary", ["no", "yes"]),
        (net(2, "Softmax"), YES.astype(int), "binary", [0, 1]),
        (net(3, "Softmax"), np.arange(80) % 3, "multiclass", [0, 1, 2]),
        (net(3, "Softmax"), None, "multiclass", [0, 1, 2]),
        (net(1, "Identity"), np.linspace(0, 9, 80), "regression", []),
        (net(1, "Sigmoid"), np.linspace(0, 1, 80), "regression", []),
        (net(2, "Softmax", ("height", "width")), YES, "binary", [False, True]),
    ],
)
def test_what_a_network_means_is_found_out_from_its_outputs_and_the_labels(model, labels, task, classes):
    manifest = accepted(export_file(model, ROWS, labels))
    assert (manifest["task"], manifest["classes"]) == (task, classes)


def test_task_and_classes_may_be_told_outright():
    manifest = accepted(export_file(net(1, "Sigmoid"), ROWS, task="binary", classes=["stays", "leaves"]))
    assert manifest["classes"] == ["stays", "leaves"]
    assert export_file(net(1, "Sigmoid"), ROWS, YES, task="regression").manifest["task"] == "regression"


@pytest.mark.parametrize("labels", [YES.astype(int), np.where(YES, "big", "small")], ids=["numbers", "text"])
def test_maps_of_probabilities_become_a_tensor(labels):
    fitted = LogisticRegression().fit(ROWS.to_numpy(), labels)
    export = export_file(to_onnx(fitted, ROWS.to_numpy()[:1]), ROWS, labels)  # skl2onnx writes a ZipMap by itself
    manifest = accepted(export)
    assert manifest["classes"] == fitted.classes_.tolist()
    assert export.sample["labels"] == fitted.predict(ROWS.to_numpy()).tolist()
    assert export.sample["scores"] == pytest.approx(fitted.predict_proba(ROWS.to_numpy())[:, 1], abs=1e-6)


def test_a_path_bytes_and_a_model_are_files_and_a_pipeline_is_none(tmp_path):
    content = net(1, "Sigmoid").SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    files = [path, str(path), content, net(1, "Sigmoid")]
    assert [is_file(file) for file in [*files, LogisticRegression()]] == [True, True, True, True, False]
    assert {export_file(file, ROWS, YES).version for file in files[:3]} == {export_file(content, ROWS, YES).version}


REFUSED = {
    "no file": (lambda: export_file("nowhere.onnx", ROWS), "nowhere.onnx can't be read"),
    "no ONNX": (lambda: export_file(b"hello", ROWS), "is not an ONNX file|does not load"),
    "too few columns": (lambda: export_file(net(1, "Sigmoid"), ROWS[["width"]]), "takes a matrix of 2 columns"),
    "other names": (
        lambda: export_file(net(1, "Sigmoid", ("a", "b")), ROWS),
        "the file takes a, b, and the rows have height, width",
    ),
    "text for numbers": (lambda: export_file(net(1, "Sigmoid"), ROWS.astype(str)), "column width is string"),
    "too few classes": (lambda: export_file(net(3, "Softmax"), ROWS, YES), "distinguishes 3 classes, not 2"),
    "no such task": (lambda: export_file(net(1, "Sigmoid"), ROWS, task="ranking"), "task is 'ranking'"),
    "labels too short": (lambda: export_file(net(1, "Sigmoid"), ROWS, YES[:3]), "labels have 3 rows, columns have 80"),
}


@pytest.mark.parametrize(("call", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_with_what_to_do(call, said):
    with pytest.raises(ExportError, match=said):
        call()


def test_a_served_column_without_a_default_is_warned_of():
    export = export_file(net(1, "Sigmoid"), ROWS, YES, sources={"width": "shapes:mean_width_1h"})
    assert [message.startswith("fails for new entities: width") for message in export.warnings] == [True]
    filled = export_file(net(1, "Sigmoid"), ROWS, YES, sources={"width": "shapes:mean_width_1h"}, defaults={"width": 1})
    assert filled.warnings == []
