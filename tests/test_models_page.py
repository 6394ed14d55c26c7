"""docs/models.md tells what is supported: every pipeline of its table is fitted, exported and answered here."""

import ctypes.util
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def supported():
    if ctypes.util.find_library("gomp") is None:
        pytest.skip("LightGBM's library needs libgomp: apt-get install libgomp1")
    return runpy.run_path(str(ROOT / "deploy" / "supported.py"))


@pytest.fixture(scope="module")
def outcomes(supported):
    return list(supported["outcomes"]())


def test_most_ordinary_pipelines_answer_as_scikit_learn_does(supported, outcomes):
    registered = [outcome for outcome in outcomes if not outcome.refusal]
    assert len(outcomes) >= 60
    assert len(registered) >= 50
    assert [outcome.case.name for outcome in registered if outcome.off > supported["TOLERANCE"] or outcome.labels] == []


def test_each_refusal_names_the_step_and_what_to_do(outcomes):
    foreign = ("skl2onnx", "sklearn-onnx", "ONNXRuntimeError", "shape calculator")
    refused = [outcome.refusal for outcome in outcomes if outcome.refusal]
    assert refused  # their advice was tried: outcomes would have raised where it does not work
    assert [refusal for refusal in refused if any(word in refusal for word in foreign)] == []


def test_the_page_is_what_came(supported, outcomes):
    assert (ROOT / "docs" / "models.md").read_text() == supported["page"](outcomes), "run `make docs`"
