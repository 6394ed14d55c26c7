"""The Open Inference Protocol in JSON: metadata, answers, and every error as `{"error": "..."}`."""

import json

import numpy as np
import pytest

DATATYPES = {"plan": "BYTES", "seats": "INT64", "usage": "FP64", "trial": "BOOL"}
INFER = "/v2/models/churn/infer"
LONG = 10**4000


@pytest.fixture(autouse=True)
async def kept(keep, churn):
    await keep("churn", churn.export)


def tensors(fitted, rows: int, *, nested: bool = False) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "datatype": DATATYPES[name],
            "shape": [rows, 1] if nested else [rows],
            "data": [[value] for value in values] if nested else values,
        }
        for name, values in fitted.inputs(rows).items()
    ]


def changed(fitted, **change: object) -> dict[str, object]:
    """A request for two rows whose column usage is changed."""
    return {"inputs": [{**tensor, **change} if tensor["name"] == "usage" else tensor for tensor in tensors(fitted, 2)]}


async def test_the_server_says_what_it_is_and_that_it_lives_and_is_ready(client):
    assert (await client.get("/v2")).json()["name"] == "contender"
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}


@pytest.mark.parametrize("by_version", [False, True])
async def test_a_model_and_its_version_are_ready_and_describe_themselves(client, churn, by_version):
    path = "/v2/models/churn" + (f"/versions/{churn.export.version}" if by_version else "")
    assert (await client.get(f"{path}/ready")).status_code == 200
    described = (await client.get(path)).json()
    assert (described["name"], described["versions"]) == ("churn", [churn.export.version])
    assert {tensor["name"]: tensor["datatype"] for tensor in described["inputs"]} == DATATYPES
    assert described["outputs"] == [{"name": "scores", "datatype": "FP64", "shape": [-1, 1]}]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("by_version", [False, True])
async def test_rows_are_answered_as_scikit_learn_answers_them(client, churn, nested, by_version):
    path = f"/v2/models/churn/versions/{churn.export.version}/infer" if by_version else INFER
    answer = (await client.post(path, json={"id": "17", "inputs": tensors(churn, 100, nested=nested)})).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("churn", churn.export.version, "17")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP64", [100, 1])
    wanted = churn.pipeline.predict_proba(churn.columns[:100])[:, 1]
    assert np.abs(np.array(output["data"]) - wanted).max() < 1e-5


async def test_a_multiclass_model_answers_with_a_row_of_probabilities_per_row(client, keep, tier):
    await keep("tier", tier.export)
    assert (await client.get("/v2/models/tier")).json()["outputs"][0]["shape"] == [-1, 3]
    (output,) = (await client.post("/v2/models/tier/infer", json={"inputs": tensors(tier, 20)})).json()["outputs"]
    assert output["shape"] == [20, 3]
    wanted = tier.pipeline.predict_proba(tier.columns[:20])
    assert np.abs(np.array(output["data"]).reshape(20, 3) - wanted).max() < 1e-5


async def test_whole_numbers_are_taken_for_a_float_column(client, churn):
    whole, real = changed(churn, datatype="INT64", data=[90, 110]), changed(churn, data=[90.0, 110.0])
    first, second = [(await client.post(INFER, json=body)).json()["outputs"] for body in (whole, real)]
    assert first == second


async def test_a_request_may_name_no_content_type(client, churn):
    answer = await client.post(INFER, content=json.dumps({"inputs": tensors(churn, 1)}))
    assert answer.status_code == 200


async def test_the_output_that_there_is_may_be_asked_for(client, churn):
    body = {"inputs": tensors(churn, 1), "outputs": [{"name": "scores", "parameters": {"binary_data": False}}]}
    assert (await client.post(INFER, json=body)).status_code == 200


def refused(answer, status: int, message: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"datatype": "BYTES"}, 400, "usage has datatype BYTES, not FP64"),
        ({"datatype": "BOOL"}, 400, "usage has datatype BOOL, not FP64"),
        ({"datatype": None}, 422, "datatype"),
        ({"data": 5}, 422, "data"),
        ({"data": {"0": 1.0}}, 422, "data"),
        ({"data": [{"value": 1.0}, 2.0]}, 400, "nested deeper"),
        ({"data": [[[1.0]], [[2.0]]]}, 400, "nested deeper"),
        ({"data": ["1.0", 2.0]}, 400, "row 0: inputs.usage is not a number"),
        ({"data": [1.0, None]}, 400, "row 1: inputs.usage is null"),
        ({"data": [1.0]}, 400, "usage has 1 values"),
        ({"data": [], "shape": [0]}, 422, "inputs.usage has 0 rows"),
        ({"shape": [3]}, 400, "usage has 2 values"),
        ({"shape": [-1]}, 400, "usage has a shape with a size below 0"),
        ({"shape": [1, 2]}, 400, "usage is not one column"),
        ({"shape": [2, 1, 1]}, 400, "usage is not one column: its shape has 3 dimensions"),
        ({"shape": [LONG] * 10}, 400, "usage is not one column: its shape has 10 dimensions"),
        ({"shape": [LONG, LONG]}, 413, "more rows than the 500 allowed"),
        ({"shape": [-LONG]}, 400, "usage has a shape with a size below 0"),
        ({"data": [LONG, 1.0]}, 400, "row 0: inputs.usage is outside 32-bit floats"),
        ({"name": "u" * 9000}, 422, "u… is not a column of this model"),
        ({"datatype": "F" * 9000}, 400, "F…, not FP64"),
        ({"shape": ["2"]}, 422, "shape"),
        ({"shape": None}, 422, "shape"),
        ({"name": "use"}, 422, "inputs.use is not a column of this model"),
        ({"name": "seats", "datatype": "INT64", "data": [1, 2]}, 400, "seats is given twice"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_tensor_that_does_not_fit_is_an_error_that_names_it(client, churn, change, status, message):
    refused(await client.post(INFER, json=changed(churn, **change)), status, message)


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"{", {}, 400, "not JSON"),
        (b'{"inputs": [{"name": "usage", "data": [NaN]}]}', {}, 400, "not JSON"),
        (b'{"parameters": {"x": ' + b"[" * 10_000, {}, 400, "not JSON"),
        (b"{}", {}, 422, "inputs"),
        (b'{"inputs": []}', {}, 422, "is missing"),
        (b'{"inputs": [], "outputs": [{"name": "label"}]}', {}, 400, "no output label"),
        (b'{"inputs": [], "outputs": [{"name": "' + b"l" * 9000 + b'"}]}', {}, 400, "l…, only scores"),
        (b'{"inputs": []}', {"content-type": "text/plain"}, 415, "text/plain"),
        (b'{"inputs": []}\x00\x00', {"inference-header-content-length": "14"}, 415, "binary_data=False"),
        (b'"' + b"x" * 70_000 + b'"', {}, 413, "longer than"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_body_that_can_not_be_read_is_an_error(client, content, headers, status, message):
    refused(
        await client.post(INFER, content=content, headers={"content-type": "application/json"} | headers),
        status,
        message,
    )


async def test_more_rows_than_the_limit_are_an_error(client, churn):
    body = {"inputs": [{**tensor, "data": tensor["data"] * 501, "shape": [501]} for tensor in tensors(churn, 1)]}
    refused(await client.post(INFER, json=body), 413, "more rows than the 500 allowed")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("GET", f"/v2/models/churn/versions/{'0' * 64}", 404),
        ("POST", "/v2/models/churn/versions/1/infer", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/repository/index", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2", 405),
    ],
)
async def test_what_is_not_there_is_an_error_of_the_protocol(client, method, path, status):
    refused(await client.request(method, path), status, "")


async def test_errors_outside_of_the_protocol_stay_problem_details(client):
    for path in ("/v2x", "/v1/models/none"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_file_that_is_gone_is_an_error_of_the_protocol_too(client, settings, churn):
    (settings.folder("inference_service") / "models" / f"{churn.export.version}.onnx").unlink()
    refused(await client.post(INFER, json={"inputs": tensors(churn, 1)}), 503, "is not there")
