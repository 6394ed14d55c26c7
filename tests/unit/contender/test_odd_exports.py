"""Rows, labels and steps that are rarely seen: answered as scikit-learn answers, or refused in our own words."""

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from onnx import TensorProto, helper
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestRegressor, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from xgboost import XGBClassifier

from contender.contracts.inference_service import InputColumn
from contender.errors import ExportError, ParityError
from contender.registration import Export, export_file, export_pipeline
from services.inference_service.domain.columns import check_columns
from services.inference_service.errors import AnswerError
from services.inference_service.session import Session

COUNT = 60
CHANCE = np.random.default_rng(5)
ROWS = pd.DataFrame({"size": CHANCE.normal(0, 1, COUNT), "rooms": CHANCE.integers(1, 6, COUNT)})
DEAR = (ROWS["size"] + ROWS.rooms / 3 > 1).astype(int)
SHARES = ROWS.assign(share=CHANCE.choice([0.25, 0.5, 0.75], COUNT))


def served(export: Export, rows: dict[str, list[Any]]) -> list[Any]:
    inputs = msgspec.convert(export.manifest["inputs"], list[InputColumn])
    outputs = {name: export.manifest[name] for name in ("score_output", "label_output")}
    session = Session(export.onnx, inputs, export.manifest["task"], export.manifest["classes"], **outputs)
    return session.answer(check_columns(inputs, rows, row_limit=500, text_limit=1000)).scores


def same(pipeline: Any, rows: Any, labels: Any = DEAR) -> Export:
    """The export of a pipeline, whose sample the service answers as it must."""
    export = export_pipeline(pipeline.fit(rows, labels), rows, labels)
    assert served(export, export.sample["inputs"]) == pytest.approx(export.sample["scores"], abs=1e-5)
    return export


def refused(pipeline: Any, rows: Any, match: str, labels: Any = DEAR) -> None:
    with pytest.raises(ExportError, match=match):
        export_pipeline(pipeline, rows, labels)


def encoded(encoder: Any, column: str, model: Any = None) -> Pipeline:
    head = make_column_transformer((encoder, [column]), remainder="passthrough")
    return make_pipeline(head, LogisticRegression() if model is None else model)


# Rows


def test_whole_numbers_beyond_64_bits_are_refused_where_an_encoder_takes_them():
    ids = ROWS.assign(rooms=ROWS.rooms.astype("uint64") + np.uint64(2**63))
    refused(encoded(OneHotEncoder(handle_unknown="ignore"), "rooms").fit(ids, DEAR), ids, "no exact counterpart")
    same(HistGradientBoostingClassifier(max_iter=3), pl.from_pandas(ids))


def test_a_float_column_of_nulls_alone_is_compared_like_others():
    same(make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression()), ROWS.assign(empty=np.nan))


def test_numbers_that_no_service_takes_are_refused_by_column():
    rows = ROWS.assign(size=ROWS["size"] * 1e39)
    refused(HistGradientBoostingClassifier(max_iter=3).fit(rows, DEAR), rows, "size holds numbers beyond")


def test_texts_that_are_all_too_long_are_refused():
    rows = ROWS.assign(text="a" * 1200)
    refused(encoded(OneHotEncoder(handle_unknown="ignore"), "text").fit(rows, DEAR), rows, "more than 1000 characters")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
def test_null_text_of_polars_is_the_null_that_the_pipeline_was_fitted_to(kind):
    town = pl.Series(["Graz", None, "Linz"] * 20).cast(kind)
    export = same(encoded(OneHotEncoder(handle_unknown="ignore"), "town"), pl.from_pandas(ROWS).with_columns(town=town))
    assert export.manifest["behaviour"]["town"]["null"] == "is scored as the pipeline scores it"


@pytest.mark.parametrize("missing", [np.nan, -2.0])
def test_missing_text_gets_what_the_ordinal_encoder_gives_it(missing):
    town = pd.Series(["Graz", np.nan, "Linz", "Wels"] * 15, dtype="str")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=missing)
    same(encoded(encoder, "town", HistGradientBoostingClassifier(max_iter=5)), ROWS.assign(town=town))


def test_a_null_does_not_matter_in_a_column_that_no_step_takes():
    rows = ROWS.assign(note="x")
    head = make_column_transformer(("passthrough", ["size", "rooms"]))
    pipeline = make_pipeline(head, LogisticRegression())
    export = same(pipeline, rows)
    wanted = pipeline.predict_proba(rows.iloc[:1])[0, 1]
    row = {"size": [ROWS["size"][0]], "rooms": [int(ROWS.rooms[0])], "note": [None]}
    assert served(export, row) == pytest.approx([wanted])


@pytest.mark.parametrize("columns", [np.zeros((2, 2, 2)), ROWS.to_records()])
def test_arrays_that_are_no_table_are_refused(columns):
    refused(LogisticRegression().fit(ROWS, DEAR), columns, "shape")


# Labels


@pytest.mark.parametrize("labels", [[[1], [1, 2]], 3, (label for label in DEAR)])
def test_labels_that_are_no_list_are_refused(labels):
    refused(LogisticRegression().fit(ROWS, DEAR), ROWS, "one label a row", labels)


def test_labels_in_a_sparse_matrix_are_counted_by_rows():
    labels = csr_matrix(DEAR.to_numpy()[:5].reshape(-1, 1))
    refused(LogisticRegression().fit(ROWS, DEAR), ROWS, "labels have 5 rows", labels)


def test_a_model_of_several_targets_is_refused_without_labels_too():
    model = RandomForestRegressor(3).fit(ROWS, np.column_stack([DEAR, -DEAR]))
    refused(model, ROWS, "predicts several targets", None)


@pytest.mark.parametrize(("labels", "classes"), [([1, None] * 30, None), (DEAR, ["a", "a"])])
def test_classes_of_a_ready_file_are_scalars_and_differ(labels, classes):
    row = helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 2])
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([helper.make_node("Softmax", ["input"], ["output"])], "net", [row], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert export_file(model, ROWS, DEAR, classes=np.array([0, 1])).manifest["classes"] == [0, 1]
    with pytest.raises(ExportError, match=r"labels hold None|class twice"):
        export_file(model, ROWS, labels, classes=classes)


# Models and steps


def test_a_number_that_xgboost_takes_for_missing_is_missing_though_training_had_none():
    pipeline = XGBClassifier(n_estimators=5, missing=-999, n_jobs=1)
    export = same(pipeline, ROWS)
    wanted = pipeline.predict_proba(pd.DataFrame({"size": [-999.0], "rooms": [3]}))[:, 1]
    assert served(export, {"size": [-999.0], "rooms": [3]}) == pytest.approx(wanted, abs=1e-5)


def test_a_text_that_stands_for_missing_is_imputed():
    rows = ROWS.assign(town=pd.Series(["Graz", "?", "Linz", "Graz"] * 15, dtype=object))
    fill = SimpleImputer(missing_values="?", strategy="most_frequent")
    same(encoded(make_pipeline(fill, OneHotEncoder()), "town"), rows)


def test_what_predicts_no_target_is_refused():
    for model in (KMeans(2, n_init=1), IsolationForest(n_estimators=3)):
        refused(model.fit(ROWS), ROWS, f"{type(model).__name__} is neither a classifier nor a regressor", None)


def test_what_is_no_estimator_is_refused():
    class Foreign:
        def predict(self, rows: Any) -> Any:
            return np.zeros(len(rows))

    refused(Foreign(), ROWS, "Foreign is not a scikit-learn estimator")


def test_weighed_votes_count_as_they_are_weighed():
    members = [("a", LogisticRegression()), ("none", "drop"), ("b", GaussianNB())]
    same(VotingClassifier(members, voting="soft", weights=[1, 5, 3]), ROWS)


def test_steps_that_do_nothing_are_left_out():
    inner = Pipeline([("nothing", "passthrough"), ("fill", SimpleImputer()), ("none", None)])
    head = Pipeline([("nothing", "passthrough"), ("columns", make_column_transformer((inner, ["size", "rooms"])))])
    same(make_pipeline(head, LogisticRegression()), ROWS)
    union = FeatureUnion([("a", make_column_transformer((StandardScaler(), ["size"]))), ("b", "drop")])
    same(make_pipeline(union, LogisticRegression()), ROWS)


@pytest.mark.parametrize("encoder", [OrdinalEncoder(), OneHotEncoder(), OneHotEncoder(handle_unknown="ignore")])
def test_fractions_as_categories_are_refused_and_the_advice_works(encoder):
    refused(encoded(encoder, "share").fit(SHARES, DEAR), SHARES, "fractions or nulls of column share")
    same(encoded(encoder, "share"), SHARES.assign(share=SHARES.share.astype(str)))


def test_rare_categories_put_together_are_refused_and_the_advice_works():
    encoder = OneHotEncoder(max_categories=3, handle_unknown="ignore")
    refused(encoded(encoder, "rooms").fit(ROWS, DEAR), ROWS, "OneHotEncoder puts rare categories together")
    ordinal = OrdinalEncoder(max_categories=3, handle_unknown="use_encoded_value", unknown_value=-1)
    same(encoded(ordinal, "rooms"), ROWS)


def test_a_warning_tells_that_unseen_whole_numbers_are_refused():
    (warning,) = same(encoded(OneHotEncoder(), "rooms"), ROWS).warnings
    assert warning.startswith("refuses unseen categories: a row with a new value of rooms")


@pytest.mark.parametrize("vectorizer", [TfidfVectorizer(), CountVectorizer(ngram_range=(1, 2))])
def test_texts_whose_words_onnx_does_not_find_are_refused_and_not_scored_otherwise(vectorizer):
    texts = pd.DataFrame({"text": [" ".join(CHANCE.choice(["öl", "gut", "teuer"], 3)) for _ in range(COUNT)]})
    labels = texts.text.str.contains("öl").astype(int)
    pipeline = make_pipeline(make_column_transformer((vectorizer, "text")), LogisticRegression())
    export = same(pipeline, texts, labels)
    assert any(warning.startswith("refuses some texts") for warning in export.warnings)
    plain = ["öl, gut!", "öl \N{GRINNING FACE} gut", ""]
    wanted = pipeline.predict_proba(pd.DataFrame({"text": plain}))[:, 1]
    assert served(export, {"text": plain}) == pytest.approx(wanted, abs=1e-5)
    for odd in ("ÖL gut", "öl\N{GRINNING FACE}gut", "gut\N{RIGHTWARDS ARROW}öl"):
        with pytest.raises(AnswerError, match="no finite score"):
            served(export, {"text": [odd]})


def test_texts_of_training_that_onnx_does_not_split_are_refused_and_the_advice_works():
    texts = pd.DataFrame({"text": ["ÖL gut", "gut\N{GRINNING FACE}teuer", "teuer öl"] * 20})
    pipeline = make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), LogisticRegression())
    with pytest.raises(ParityError, match="40 rows no score for a text of text"):
        export_pipeline(pipeline.fit(texts, DEAR), texts, DEAR)
    cured = texts.text.str.lower().str.replace(r"\W+", " ", regex=True)
    same(pipeline, texts.assign(text=cured))
