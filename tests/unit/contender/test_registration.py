"""From a fitted pipeline to what is uploaded."""

import hashlib
import subprocess

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from contender.errors import ExportError
from contender.registration import SAMPLE_ROWS, TOLERANCE, Export, export_pipeline

ROWS = 700
ONE_HOT = OneHotEncoder(handle_unknown="ignore", sparse_output=False)


@pytest.fixture
def columns() -> pd.DataFrame:
    chance = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "plan": chance.choice(["free", "pro", "team"], ROWS),
            "seats": chance.integers(1, 50, ROWS),
            "usage": chance.normal(100, 30, ROWS),
            "trial": chance.random(ROWS) < 0.3,
        }
    )


@pytest.fixture
def amount(columns) -> pd.Series:
    return columns["seats"] * 3.0 + columns["usage"] + columns["trial"] * 20.0 + (columns["plan"] == "pro") * 10.0


def fitted(model, columns: pd.DataFrame, labels) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    encode = ColumnTransformer(
        [
            ("text", ONE_HOT, ["plan"]),
            ("number", numbers, ["usage"]),
            ("as it is", "passthrough", ["seats", "trial"]),
        ]
    )
    return Pipeline([("encode", encode), ("model", model)]).fit(columns, labels)


def classifier(columns: pd.DataFrame, labels) -> Pipeline:
    return fitted(LogisticRegression(max_iter=1000), columns, labels)


def answers(export: Export) -> list[np.ndarray]:
    """The labels and scores with which the ONNX file itself answers the sample."""
    session = onnxruntime.InferenceSession(export.onnx, providers=["CPUExecutionProvider"])
    tensors = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(string)": object}
    types = {tensor.name: tensors[tensor.type] for tensor in session.get_inputs()}
    feed = {
        column["tensor"]: np.array(export.sample["inputs"][column["name"]], dtype=types[column["tensor"]]).reshape(
            -1, 1
        )
        for column in export.manifest["inputs"]
    }
    label = export.manifest["label_output"]
    return session.run([*([label] if label else []), export.manifest["score_output"]], feed)


def test_a_binary_classifier_is_exported_with_the_probability_of_its_last_class(columns, amount):
    labels = np.where(amount > amount.median(), "stays", "leaves")
    export = export_pipeline(classifier(columns, labels), columns, labels)
    assert (export.manifest["task"], export.manifest["classes"]) == ("binary", ["leaves", "stays"])
    assert np.allclose(answers(export)[1][:, 1], export.sample["scores"], atol=TOLERANCE)
    assert min(export.sample["scores"]) < 0.1
    assert max(export.sample["scores"]) > 0.9


def test_a_multiclass_model_is_exported_with_all_its_probabilities(columns, amount):
    labels = np.digitize(amount, amount.quantile([0.3, 0.6]))
    export = export_pipeline(classifier(columns, labels), columns, labels)
    assert (export.manifest["task"], export.manifest["classes"]) == ("multiclass", [0, 1, 2])
    assert np.shape(export.sample["scores"]) == (SAMPLE_ROWS, 3)
    assert np.allclose(answers(export)[1], export.sample["scores"], atol=TOLERANCE)


def test_a_regression_is_exported_with_its_values_however_large_they_are(columns, amount):
    export = export_pipeline(fitted(LinearRegression(), columns, 1e6 * amount), columns, amount)
    assert (export.manifest["task"], export.manifest["classes"]) == ("regression", [])
    assert np.allclose(answers(export)[0][:, 0], export.sample["scores"], rtol=1e-5)
    assert np.mean(export.sample["scores"]) > 1e8


def test_a_bare_estimator_is_exported_with_its_columns_by_name(columns, amount):
    numbers = columns.select_dtypes("number").dropna(axis=1)
    export = export_pipeline(LogisticRegression(max_iter=1000).fit(numbers, amount > amount.median()), numbers)
    assert [column["name"] for column in export.manifest["inputs"]] == list(numbers.columns)
    assert len(numbers.columns) > 1


def test_every_column_has_its_own_type(columns, amount):
    export = export_pipeline(fitted(LinearRegression(), columns, amount), columns)
    types = {column["name"]: column["dtype"] for column in export.manifest["inputs"]}
    assert types == {"plan": "string", "seats": "float", "usage": "float", "trial": "boolean"}
    assert {name: type(values[0]) for name, values in export.sample["inputs"].items()} == {
        "plan": str,
        "seats": float,
        "usage": float,
        "trial": bool,
    }


def test_the_same_data_give_the_same_version_and_other_data_another(columns, amount):
    first, second = (export_pipeline(classifier(columns, amount > 170), columns) for _ in range(2))
    assert first.version == second.version == hashlib.sha256(first.onnx).hexdigest()
    assert export_pipeline(classifier(columns, amount > 171), columns).version != first.version


def test_trees_behind_a_scaler_answer_to_the_last_digit_as_scikit_learn_does():
    # Thresholds lie half-way between whole numbers, and 32-bit scaled values would fall on their other side.
    chance = np.random.default_rng(0)
    columns = pd.DataFrame({name: chance.integers(1000, 5000, 3000).astype(float) for name in "ab"})
    labels = ((columns["a"] + columns["b"]) > 6000) ^ (chance.random(3000) > 0.8)
    scale = ColumnTransformer([("number", StandardScaler(), ["a", "b"])])
    pipeline = make_pipeline(scale, RandomForestClassifier(50, random_state=0)).fit(columns, labels)
    parity = export_pipeline(pipeline, columns, labels).manifest["parity"]
    assert (parity["given"], parity["arithmetic"]) == (3000, "64-bit floats")
    assert parity["worst"] < 1e-7


def test_a_step_that_onnx_does_not_know_can_not_be_exported(columns, amount):
    numbers = columns[["usage", "seats"]]
    pipeline = make_pipeline(FunctionTransformer(lambda frame: frame[["usage"]]), LinearRegression())
    with pytest.raises(ExportError, match=r"FunctionTransformer has no exact counterpart .* leave the step out"):
        export_pipeline(pipeline.fit(numbers, amount), numbers)


def test_a_classifier_without_probabilities_can_not_be_exported(columns, amount):
    with pytest.raises(ExportError, match="predict_proba"):
        export_pipeline(fitted(RidgeClassifier(), columns, amount > 170), columns)


def test_a_column_of_a_type_that_onnx_does_not_know_can_not_be_exported(columns, amount):
    pipeline = classifier(columns, amount > 170)
    dated = columns.assign(plan=pd.Timestamp("2013-01-01"))
    with pytest.raises(ExportError, match=r"column plan holds times .* such as frame\['plan'\]\.dt\.hour"):
        export_pipeline(pipeline, dated)


def test_an_empty_frame_can_not_be_exported(columns, amount):
    with pytest.raises(ExportError, match="the frame is empty"):
        export_pipeline(classifier(columns, amount > 170), columns.iloc[:0])


def test_a_missing_number_is_null_in_the_sample_and_its_column_is_not_required(columns, amount):
    columns.loc[::3, "usage"] = np.nan
    export = export_pipeline(classifier(columns, amount > 170), columns)
    usage = export.sample["inputs"]["usage"]
    assert 0.2 < sum(value is None for value in usage) / SAMPLE_ROWS < 0.5
    assert all(np.isfinite(value) for value in usage if value is not None)
    required = {column["name"]: column.get("required", True) for column in export.manifest["inputs"]}
    assert required == {"plan": True, "seats": True, "usage": False, "trial": True}


def test_a_missing_text_is_null_in_the_sample(columns, amount):
    columns.loc[::3, "plan"] = None
    export = export_pipeline(classifier(columns, amount > 170), columns)
    assert set(export.sample["inputs"]["plan"]) == {None, "free", "pro", "team"}


def test_sources_and_defaults_are_in_the_inputs(columns, amount):
    export = export_pipeline(
        classifier(columns, amount > 170),
        columns,
        sources={"usage": "activity:usage_1h", "seats": "account:seats"},
        defaults={"usage": 100.0, "seats": np.int64(1)},
        description="who stays",
    )
    usage, seats = (
        next(column for column in export.manifest["inputs"] if column["name"] == name) for name in ("usage", "seats")
    )
    assert (usage["source"], usage["default"], usage["required"]) == ("activity:usage_1h", 100.0, False)
    assert (seats["source"], seats["default"], type(seats["default"])) == ("account:seats", 1, int)
    assert export.manifest["inputs"][0] == {"name": "plan", "dtype": "string", "tensor": "c0"}
    assert export.manifest["description"] == "who stays"


@pytest.mark.parametrize("given", [{"sources": {"usag": "activity:usage_1h"}}, {"defaults": {"usag": 1.0}}])
def test_a_source_or_default_of_no_column_is_refused(columns, amount, given):
    with pytest.raises(ExportError, match="usag"):
        export_pipeline(classifier(columns, amount > 170), columns, **given)


def test_the_manifest_says_what_data_parameters_environment_and_code_made_the_version(columns, amount):
    labels = amount > 170
    manifest = export_pipeline(classifier(columns, labels), columns, labels).manifest
    assert manifest["data"]["rows"] == ROWS
    assert manifest["data"]["columns"] == ["plan", "seats", "usage", "trial"]
    assert manifest["parameters"]["model__max_iter"] == "1000"
    assert manifest["environment"]["packages"]["onnxruntime"] == onnxruntime.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    assert manifest["code"]["commit"] == (commit or None)
    assert manifest["parity"]["given"] == ROWS < manifest["parity"]["rows"]
    assert manifest["parity"]["worst"] <= manifest["tolerance"] == TOLERANCE


def test_the_hash_of_the_data_changes_with_a_value_a_label_and_the_order_of_rows(columns, amount):
    pipeline, labels = classifier(columns, amount > 170), amount > 170

    def digest(columns: pd.DataFrame, labels) -> str:
        return export_pipeline(pipeline, columns, labels).manifest["data"]["sha256"]

    changed = columns.copy()
    changed.loc[0, "seats"] += 1
    other = labels.copy()
    other[0] = not other[0]
    digests = [digest(columns, labels), digest(changed, labels), digest(columns, other), digest(columns[::-1], labels)]
    assert len(set(digests)) == 4
    assert digest(columns, labels) == digests[0]
