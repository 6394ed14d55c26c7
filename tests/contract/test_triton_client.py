"""NVIDIA's own client of the Open Inference Protocol against the service as it is run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from contender.errors import RefusedError
from contender.registration import Export, RegisteredVersion, export_pipeline, register
from contender.transport import Transport
from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings

START_S = 60
MODEL = "churn"
DATATYPES = {"plan": "BYTES", "seats": "FP64", "usage": "FP64", "trial": "BOOL"}
ARRAYS = {"plan": object, "seats": np.float64, "usage": np.float64, "trial": np.bool_}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, nobody = free_ports(2)
    folder: Path = tmp_path_factory.mktemp("stack")
    settings = StackSettings(home=folder, inference_service_port=port, kafka_port=nobody)
    service = Service(ServiceProcess("inference_service", "web"), settings)
    service.start()
    try:
        service.wait_ready(START_S)
        yield f"127.0.0.1:{port}"
    finally:
        service.kill()


@pytest.fixture(scope="module")
def columns() -> pd.DataFrame:
    chance = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "plan": chance.choice(["free", "pro", "müßig"], 200),
            "seats": chance.integers(1, 50, 200),
            "usage": chance.normal(0, 1, 200).astype(np.float32),
            "trial": chance.random(200) < 0.3,
        }
    )


@pytest.fixture(scope="module")
def pipeline(columns) -> Pipeline:
    encode = ColumnTransformer(
        [
            ("text", OneHotEncoder(sparse_output=False), ["plan"]),
            ("number", "passthrough", ["seats", "usage", "trial"]),
        ]
    )
    labels = columns["seats"] / 10 + columns["usage"] > 2.5
    return make_pipeline(encode, LogisticRegression(max_iter=1000)).fit(columns, labels)


def upload(url: str, model: str, export: Export) -> RegisteredVersion:
    with Transport({"inference_service": f"http://{url}"}) as transport:
        return register(transport, model, export)


@pytest.fixture(scope="module")
def version(url, pipeline, columns) -> str:
    return upload(url, MODEL, export_pipeline(pipeline, columns)).version


@pytest.fixture
def client(url, version) -> Iterator[InferenceServerClient]:
    client = InferenceServerClient(url)
    yield client
    client.close()


def inputs(columns: pd.DataFrame, *, binary: bool = False) -> list[InferInput]:
    tensors = []
    for name, datatype in DATATYPES.items():
        tensor = InferInput(name, [len(columns), 1], datatype)
        tensor.set_data_from_numpy(columns[name].to_numpy().astype(ARRAYS[name]).reshape(-1, 1), binary_data=binary)
        tensors.append(tensor)
    return tensors


SCORES = [InferRequestedOutput("scores", binary_data=False)]


def test_the_server_lives_and_the_model_is_ready(client, version):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, version)
    assert not client.is_model_ready("none")
    assert not client.is_model_ready(MODEL, "0" * 64)


def test_the_server_and_the_model_describe_themselves(client, version):
    assert client.get_server_metadata()["name"] == "contender"
    described = client.get_model_metadata(MODEL)
    assert described["versions"] == [version]
    assert {column["name"]: column["datatype"] for column in described["inputs"]} == DATATYPES
    assert described["outputs"] == [{"name": "scores", "datatype": "FP64", "shape": [-1, 1]}]


@pytest.mark.parametrize("by_version", [False, True])
def test_the_client_gets_the_answers_of_scikit_learn(client, version, pipeline, columns, by_version):
    named = {"model_version": version} if by_version else {}
    answer = client.infer(MODEL, inputs(columns), outputs=SCORES, request_id="17", **named)
    scores = answer.as_numpy("scores")
    assert (scores.dtype, scores.shape) == (np.float64, (200, 1))
    assert np.abs(scores[:, 0] - pipeline.predict_proba(columns)[:, 1]).max() < 1e-5
    assert answer.get_response()["id"] == "17"


def test_the_client_is_told_what_is_wrong_with_a_row(client, columns):
    with pytest.raises(InferenceServerException, match=r"inputs\.trial is missing") as caught:
        client.infer(MODEL, inputs(columns)[:3], outputs=SCORES)
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no model none") as caught:
        client.infer("none", inputs(columns), outputs=SCORES)
    assert caught.value.status() == "404"


def test_binary_tensors_are_refused_with_what_to_do(client, columns):
    with pytest.raises(InferenceServerException, match="binary_data=False") as caught:
        client.infer(MODEL, inputs(columns, binary=True))
    assert caught.value.status() == "415"


def test_an_answer_that_may_be_binary_comes_in_json(client, pipeline, columns):
    answer = client.infer(MODEL, inputs(columns))
    assert np.abs(answer.as_numpy("scores")[:, 0] - pipeline.predict_proba(columns)[:, 1]).max() < 1e-5


def test_a_notebook_is_told_why_a_version_is_refused(url, pipeline, columns):
    export = export_pipeline(pipeline, columns)
    export.sample["scores"][3] += 0.25
    with pytest.raises(RefusedError, match=r"differs in row 3 .* by 0\.25") as caught:
        upload(url, "other", export)
    assert caught.value.status == 422
    assert [error.field for error in caught.value.errors] == ["sample.scores"]


def test_a_notebook_is_told_when_a_name_does_not_fit(url, pipeline, columns):
    with pytest.raises(RefusedError) as caught:
        upload(url, "a/b c?", export_pipeline(pipeline, columns))
    assert caught.value.status == 404
