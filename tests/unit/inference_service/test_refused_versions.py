"""Versions that are not registered: each refusal names the field, and nothing of the upload is kept."""

from dataclasses import replace

import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from contender.registration import Export

X_ONLY = [{"name": "x", "dtype": "float"}]


def one_column(*nodes: NodeProto) -> bytes:
    """A model that takes x and answers y, both of shape [rows, 1]; without nodes y is x."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(list(nodes) or [helper.make_node("Identity", ["x"], ["y"])], "g", [x], [wanted])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = built.SerializeToString()
    return content


def regression(content: bytes) -> Export:
    return Export(
        content, {"task": "regression", "inputs": X_ONLY}, {"inputs": {"x": [1.0, 2.0]}, "scores": [1.0, 2.0]}
    )


@pytest.fixture
def refused(client, upload, state, settings):
    """Upload and expect a problem with one field and no trace of the version."""

    async def post(export: Export, status: int, slug: str, field: str, *, model: str = "churn", **changed) -> str:
        answer = await upload(export, model, **changed)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["type"].endswith(f"/{slug}")
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert (await client.get("/v1/models")).json() == {"versions": []}
        assert list((settings.folder("inference_service") / "models").iterdir()) == []
        return answer.json()["errors"][0]["message"]

    return post


async def test_a_sample_that_the_file_does_not_answer_is_a_parity_problem(refused, churn):
    scores = [*churn.export.sample["scores"]]
    scores[7] += 1e-3
    message = await refused(
        churn.export, 422, "parity", "sample.scores", sample={**churn.export.sample, "scores": scores}
    )
    assert "in row 7 from" in message
    assert "0.001" in message


async def test_a_label_that_is_not_the_models_own_is_a_parity_problem(refused, churn):
    labels = [*churn.export.sample["labels"]]
    labels[3] = "leaves" if labels[3] == "stays" else "stays"
    message = await refused(
        churn.export, 422, "parity", "sample.labels", sample={**churn.export.sample, "labels": labels}
    )
    assert f"has '{labels[3]}' in row 3," in message


async def test_labels_of_another_length_than_the_scores_are_a_parity_problem(refused, churn):
    sample = {**churn.export.sample, "labels": churn.export.sample["labels"][:9]}
    assert "has 9 rows" in await refused(churn.export, 422, "parity", "sample.labels", sample=sample)


async def test_a_large_tolerance_is_accepted_with_a_reason_that_is_kept(client, upload, churn):
    reason = "prices are rounded to ten afterwards"
    manifest = {**churn.export.manifest, "tolerance": 0.05, "tolerance_reason": reason}
    assert (await upload(churn.export, manifest=manifest)).status_code == 201
    kept = (await client.get("/v1/models/churn/versions/champion")).json()
    assert kept["manifest"]["tolerance_reason"] == reason


@pytest.mark.parametrize("scores", [[], [0.5], [[0.5, 0.5], [0.5, 0.5]], [[0.5], [0.5, 0.5]]])
async def test_scores_of_another_shape_are_a_parity_problem(refused, scores):
    sample = {"inputs": {"x": [1.0, 2.0]}, "scores": scores}
    await refused(regression(one_column()), 422, "parity", "sample.scores", sample=sample)


@pytest.mark.parametrize(
    ("inputs", "slug", "field"),
    [
        ({}, "invalid-field", "sample.inputs.x"),
        ({"x": []}, "invalid-field", "sample.inputs"),
        ({"x": ["one", 2.0]}, "invalid-field", "sample.inputs.x[0]"),
    ],
)
async def test_a_sample_that_does_not_fit_the_columns_is_refused(refused, inputs, slug, field):
    await refused(regression(one_column()), 422, slug, field, sample={"inputs": inputs, "scores": [1.0, 2.0]})


async def test_a_sample_of_more_rows_than_a_call_may_have_is_too_large(refused):
    sample = {"inputs": {"x": [1.0] * 501}, "scores": [1.0] * 501}
    await refused(regression(one_column()), 413, "too-large", "sample.inputs", sample=sample)


async def test_a_model_without_finite_scores_is_refused(refused):
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    sample = {"inputs": {"x": [1.0, -1.0]}, "scores": [0.0, 0.0]}
    assert "row 1" in await refused(regression(one_column(*nodes)), 422, "answer", "sample.inputs", sample=sample)


@pytest.mark.parametrize("content", [b"not ONNX", b""])
async def test_what_is_no_onnx_file_is_refused(refused, churn, content):
    await refused(churn.export, 422, "unsafe-model", "onnx", onnx=content)


async def test_an_operator_of_ones_own_is_refused(refused, churn):
    built = ModelProto.FromString(churn.export.onnx)
    built.graph.node[0].domain = "com.example"
    await refused(churn.export, 422, "unsafe-model", "onnx", onnx=built.SerializeToString())


async def test_a_file_that_onnxruntime_does_not_load_is_refused(refused):
    message = await refused(
        regression(one_column(helper.make_node("Add", ["x", "nowhere"], ["y"]))), 422, "unsafe-model", "onnx"
    )
    assert "is refused by onnxruntime" in message


def _inputs(churn, **changed: object) -> list[dict[str, object]]:
    return [
        {**column, **changed} if column["name"] == "seats" else column for column in churn.export.manifest["inputs"]
    ]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"classes": ["leaves"]}, "manifest.classes"),
        ({"classes": ["leaves", "leaves"]}, "manifest.classes"),
        ({"classes": ["a", "b", "c"], "task": "multiclass"}, "manifest.classes"),
        ({"task": "regression"}, "manifest.classes"),
        ({"task": "clustering"}, "manifest"),
        ({"inputs": []}, "manifest.inputs"),
        ({"inputs": 1}, "manifest"),
        ({"inputs": X_ONLY * 2}, "manifest.inputs"),
        ({"inputs": [*X_ONLY, {"name": "z", "dtype": "float"}]}, "manifest.inputs"),
        ({"inputs": {"name": "seats", "dtype": "complex"}}, "manifest"),
        ({"inputs": {"tensor": "c9"}}, "manifest.inputs"),
        ({"label_output": "labels"}, "manifest.label_output"),
        ({"score_output": "scores"}, "manifest.score_output"),
        ({"target_range": [0.0, 1.0]}, "manifest.target_range"),
        ({"target_range": [1.0]}, "manifest"),
        ({"tolerance": 1e308}, "manifest.tolerance"),
        ({"tolerance": 0.01, "tolerance_reason": " "}, "manifest.tolerance"),
        ({"inputs": {"dtype": "string"}}, "manifest.inputs"),
        ({"inputs": {"dtype": "float"}}, "manifest.inputs"),
        ({"inputs": {"required": False}}, "manifest.inputs.seats.default"),
        ({"inputs": {"default": "many"}}, "manifest.inputs.seats.default"),
        ({"inputs": {"default": 1.5}}, "manifest.inputs.seats.default"),
    ],
    ids=str,
)
async def test_a_manifest_that_does_not_fit_the_file_is_refused(refused, churn, changed, field):
    if isinstance(changed.get("inputs"), dict):
        changed = {"inputs": _inputs(churn, **changed["inputs"])}
    slug = "invalid-field" if field == "manifest" else "manifest"
    await refused(churn.export, 422, slug, field, manifest={**churn.export.manifest, **changed})


@pytest.mark.parametrize(
    ("categories", "field"),
    [
        ({"plan": "free"}, "manifest"),
        ({"x" * 10_000: ["y" * 101]}, "manifest.categories." + "x" * 99 + "…"),
        ({"plan": [str(number) for number in range(201)]}, "manifest.categories.plan"),
        ({str(number): [] for number in range(2_001)}, "manifest.categories"),
    ],
    ids=["no list", "too long", "too many", "too many columns"],
)
async def test_categories_beyond_their_limits_are_refused(refused, churn, categories, field):
    await refused(
        churn.export, 422, "invalid-field", field, manifest={**churn.export.manifest, "categories": categories}
    )


async def test_a_range_of_targets_whose_ends_are_exchanged_is_refused(refused, price):
    manifest = {**price.export.manifest, "target_range": [3.0, 1.0]}
    await refused(price.export, 422, "manifest", "manifest.target_range", manifest=manifest)


@pytest.mark.parametrize("part", ["manifest", "sample"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"x": ' + b"[" * 50_000])
async def test_a_manifest_or_sample_that_is_not_the_json_that_is_read_is_refused(refused, churn, part, content):
    await refused(churn.export, 422, "invalid-field", part, **{part: content})


@pytest.mark.parametrize("part", ["onnx", "manifest", "sample"])
async def test_an_upload_without_one_of_its_parts_is_refused(refused, churn, part):
    await refused(churn.export, 422, "invalid-field", part, **{part: None})


@pytest.mark.parametrize("part", ["onnx", "manifest", "sample"])
async def test_a_part_larger_than_the_limit_is_too_large(refused, churn, part):
    await refused(churn.export, 413, "too-large", part, **{part: b"x" * (64 * 1024 + 1)})


async def test_a_body_larger_than_its_parts_may_be_is_given_up(refused, churn):
    await refused(churn.export, 413, "too-large", "body", onnx=b"x" * 1024**2)


@pytest.mark.parametrize("name", [".hidden", "a%20b", "x" * 101, "preis%E2%82%AC", "-x"])
async def test_a_name_that_is_none_is_refused(refused, churn, name):
    await refused(churn.export, 422, "invalid-field", "model", model=name)


@pytest.mark.parametrize("content_type", ["application/json", ""])
async def test_a_body_that_is_not_multipart_is_refused(client, content_type):
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post("/v1/models/churn/versions", content=b"{}", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/problem+json")


async def test_a_multipart_body_without_boundary_is_refused(client):
    headers = {"content-type": "multipart/form-data"}
    answer = await client.post("/v1/models/churn/versions", content=b"{}", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


async def test_the_same_file_with_other_inputs_is_a_conflict_and_the_first_stays(client, upload, state, churn):
    await upload(churn.export)
    inputs = _inputs(churn, source="account:seats")
    answer = await upload(replace(churn.export, manifest={**churn.export.manifest, "inputs": inputs}))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "manifest")
    kept = (await client.get("/v1/models/churn/versions/champion")).json()
    assert {column.get("source", "request") for column in kept["inputs"]} == {"request"}
