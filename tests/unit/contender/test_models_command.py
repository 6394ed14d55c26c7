"""`contender models`: a file and its rows from the command line, and what is registered as text."""

import json

import httpx
import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from contender.cli import app
from contender.client import Client
from contender.commands import calls

RUN = CliRunner()
VERSION = {
    "model": "iris",
    "version": "ab" * 32,
    "task": "binary",
    "classes": ["no", "yes"],
    "inputs": [{"name": "width", "dtype": "float", "source": "shapes:mean_width_1h"}],
    "registered_at": 1.0,
    "champion": True,
    "description": "first\x1b[2J",
    "manifest": {"behaviour": {"width": {"null": "is refused"}}, "warnings": ["fails for new entities: width"]},
}


class Service:
    """Keeps what is uploaded, and answers with one version."""

    def __init__(self) -> None:
        self.uploads: list[bytes] = []
        self.status = 200

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.uploads.append(request.read())
        if request.url.path == "/v1/definitions":
            return httpx.Response(200, json={"views": []})
        whole = request.url.path == "/v1/models"
        return httpx.Response(self.status, json={"versions": [VERSION]} if whole else VERSION)


@pytest.fixture
def service(monkeypatch) -> Service:
    service = Service()
    transport = httpx.MockTransport(service.answer)
    monkeypatch.setattr(calls, "Client", lambda: Client("http://127.0.0.1:8400", transport=transport))
    return service


@pytest.fixture
def files(tmp_path):
    rows = pd.DataFrame({"width": np.linspace(0, 1, 40), "height": np.linspace(1, 0, 40)}).astype(np.float32)
    labels = np.where(rows.width > 0.4, "yes", "no")
    fitted = LogisticRegression().fit(rows.to_numpy(), labels)
    content = to_onnx(fitted, rows.to_numpy()[:1], options={"zipmap": False}).SerializeToString()
    (tmp_path / "iris.onnx").write_bytes(content)
    rows.assign(species=labels).to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


def register(files, *more: str):
    arguments = ["models", "register", "iris", str(files / "iris.onnx"), "--sample", str(files / "rows.csv")]
    return RUN.invoke(app, [*arguments, *more])


def test_a_file_that_does_not_fit_its_rows_is_refused_in_one_line(files, service):
    result = register(files)
    assert (result.exit_code, service.uploads) == (1, [])
    assert "takes a matrix of 2 columns, and the rows have 3" in result.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--label", "kind"], "has no column 'kind'; there are width, height, species"),
        (["--label", "species", "--source", "width"], "--source width: give COLUMN=VALUE"),
        (["--label", "species", "--task", "ranking"], "task is 'ranking'"),
        (["--label", "species", "--source", "width=shapes:width"], "there is no feature shapes:width"),
    ],
)
def test_what_can_not_be_registered_says_why(files, service, more, said):
    result = register(files, *more)
    assert (result.exit_code, service.uploads) == (1, [])
    assert said in result.output


def test_versions_are_listed_and_shown_as_text(service):
    listed = RUN.invoke(app, ["models", "list"])
    assert (listed.exit_code, "\x1b[2J" in listed.output) == (0, False)
    assert "abababababab" in listed.output
    shown = RUN.invoke(app, ["models", "show", "iris"])
    assert "width: float from shapes:mean_width_1h; null is refused" in shown.output
    assert "Note: fails for new entities: width" in shown.output
    as_json = RUN.invoke(app, ["models", "show", "iris", "abab", "--json"])
    assert json.loads(as_json.output)["classes"] == ["no", "yes"]
    assert "no version that begins with 'ff'" in RUN.invoke(app, ["models", "show", "iris", "ff"]).output
    assert "there is no model tulips" in RUN.invoke(app, ["models", "show", "tulips"]).output


def test_a_service_that_refuses_is_told_of(service):
    service.status = 503
    assert RUN.invoke(app, ["models", "list"]).exit_code == 1
