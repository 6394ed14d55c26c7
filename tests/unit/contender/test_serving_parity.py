"""What is exported answers as the pipeline does, on rows that training had none of, or is refused in our own words."""

import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from contender.contracts.inference_service import InputColumn
from contender.errors import ExportError
from contender.registration import Export, export_pipeline
from services.inference_service.domain.columns import check_columns
from services.inference_service.errors import AnswerError
from services.inference_service.session import Session
from shared.errors import InvalidField

ROWS = 300


def served(export: Export, rows: dict[str, list[Any]]) -> tuple[np.ndarray, list[Any]]:
    """What the service's session answers."""
    manifest = export.manifest
    inputs = msgspec.convert(manifest["inputs"], list[InputColumn])
    names = {name: manifest[name] for name in ("score_output", "label_output")}
    session = Session(export.onnx, inputs, manifest["task"], manifest["classes"], **names)
    answers = session.answer(check_columns(inputs, rows, row_limit=10_000, text_limit=1000))
    return np.array(answers.scores), answers.labels


def lists(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): [None if pd.isna(value) else value for value in frame[name].tolist()] for name in frame}


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(23)


@pytest.fixture
def trips(chance) -> pd.DataFrame:
    whole = {"stops": chance.integers(0, 5, ROWS), "minutes": chance.integers(5, 90, ROWS).astype(float)}
    return pd.DataFrame({"express": chance.random(ROWS) < 0.5, **whole})


@pytest.fixture
def late(trips, chance) -> pd.Series:
    return (trips.minutes + 9 * trips.stops - 20 * trips.express + chance.normal(0, 9, ROWS) > 50).astype(int)


# Numbers


@pytest.mark.parametrize("order", [["stops", "minutes"], ["express", "minutes"], ["minutes", "express", "stops"]])
def test_fractions_are_served_where_training_had_whole_numbers(trips, late, order):
    frame = trips[order]
    pipeline = make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=1000)).fit(frame, late)
    live = frame.assign(minutes=frame.minutes + 0.4)
    live = live.assign(stops=live.stops + 0.6) if "stops" in order else live
    scores, labels = served(export_pipeline(pipeline, frame, late), lists(live))
    assert np.abs(scores - pipeline.predict_proba(live)[:, 1]).max() < 1e-12
    assert labels == pipeline.predict(live).tolist()


@pytest.mark.parametrize("scale", [1, 10**6])
def test_account_numbers_and_milliseconds_fall_on_their_own_side_of_every_split(chance, scale):
    frame = pd.DataFrame(
        {"account": 40_000_000 * scale + chance.integers(0, 5000, 2000), "cents": chance.integers(0, 10**9, 2000)}
    )
    labels = ((frame.account // 3) % 5 < 2) ^ (frame.cents % 7 == 0)
    trees = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=60, early_stopping=False).fit(frame, labels)
    export = export_pipeline(trees, frame, labels)
    assert (export.manifest["parity"]["given"], len(export.sample["scores"])) == (2000, 500)
    scores, served_labels = served(export, lists(frame))
    assert np.abs(scores - trees.predict_proba(frame)[:, 1]).max() < 1e-12
    assert served_labels == trees.predict(frame).tolist()


def test_a_column_that_an_encoder_and_a_scaler_take_is_whole_for_one_and_exact_for_the_other(trips, late):
    columns = ColumnTransformer(
        [("kind", OrdinalEncoder(), ["stops"]), ("size", StandardScaler(), ["stops", "minutes"])],
        remainder="passthrough",
    )
    pipeline = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(trips, late)
    export = export_pipeline(pipeline, trips, late)
    assert {column["name"]: column["dtype"] for column in export.manifest["inputs"]}["stops"] == "integer"
    live = trips.assign(minutes=trips.minutes + 0.75)
    assert np.abs(served(export, lists(live))[0] - pipeline.predict_proba(live)[:, 1]).max() < 1e-6
    with pytest.raises(InvalidField, match="is not a whole number"):
        served(export, lists(trips.assign(stops=1.5)))


# Labels


@pytest.mark.parametrize(
    "model",
    [
        TunedThresholdClassifierCV(LogisticRegression(max_iter=1000), scoring="balanced_accuracy", cv=3),
        FixedThresholdClassifier(LogisticRegression(max_iter=1000), threshold=0.83),
        FixedThresholdClassifier(LogisticRegression(max_iter=1000), threshold=0.3, pos_label="late"),
        RandomForestClassifier(6, max_depth=2, random_state=1),
        ExtraTreesClassifier(10, max_depth=1, random_state=1, bootstrap=True),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("classes", [("late", "on time"), (False, True), (1.0, 2.0), (-1, 1)], ids=str)
def test_the_label_is_the_pipelines_own(trips, late, model, classes):
    if getattr(model, "pos_label", None) is not None and "late" not in classes:
        model = FixedThresholdClassifier(model.estimator, threshold=0.3, pos_label=classes[0])
    labels = np.array(classes)[late]
    coarse = trips.assign(minutes=trips.minutes.round(-1))
    pipeline = make_pipeline(StandardScaler(), model).fit(coarse, labels)
    scores, answered = served(export_pipeline(pipeline, coarse, labels), lists(coarse))
    assert answered == pipeline.predict(coarse).tolist()
    assert {type(label) for label in answered} == {type(classes[0])}
    assert ((scores >= 0) & (scores <= 1)).all()


def test_evenly_split_trees_name_the_first_class_as_scikit_learn_does():
    even = pd.DataFrame({"shelf": np.repeat(np.arange(6.0), 30)})
    labels = np.where(np.tile([0, 1], 90) == 1, "right", "left")
    forest = RandomForestClassifier(7, max_depth=2, bootstrap=False, random_state=0).fit(even, labels)
    assert set(served(export_pipeline(forest, even, labels), lists(even))[1]) == {"left"}


# Nulls and categories


def catalogue(encoder: Any) -> Any:
    return make_column_transformer((encoder, ["brand"]), ("passthrough", ["price"]))


@pytest.fixture
def goods(chance) -> pd.DataFrame:
    return pd.DataFrame(
        {"brand": pd.Series(chance.choice(["nan", "None", "x"], ROWS), dtype=object), "price": chance.gamma(2, 9, ROWS)}
    )


@pytest.mark.parametrize("missing", [None, math.nan], ids=str)
def test_a_null_brand_is_none_of_the_texts_that_look_like_it(goods, missing):
    goods.loc[::4, "brand"] = missing
    labels = goods.price > 15
    pipeline = make_pipeline(catalogue(OneHotEncoder()), LogisticRegression(max_iter=1000)).fit(goods, labels)
    export = export_pipeline(pipeline, goods, labels)
    scores, _ = served(export, lists(goods))
    assert np.abs(scores - pipeline.predict_proba(goods)[:, 1]).max() < 1e-9
    assert export.manifest["behaviour"]["brand"] == {
        "null": "is scored as the pipeline scores it",
        "unseen category": "is refused",
    }


@pytest.mark.parametrize("number", [200, 201])
def test_the_categories_of_an_encoder_are_on_record_unless_there_are_too_many(goods, number):
    goods["brand"] = [f"brand {at % number:03}" for at in range(len(goods))]
    pipeline = make_pipeline(catalogue(OrdinalEncoder()), LogisticRegression()).fit(goods, goods.price > 15)
    manifest = export_pipeline(pipeline, goods).manifest
    known = [f"brand {at:03}" for at in range(number)]
    assert manifest.get("categories") == ({"brand": known} if number == 200 else None)


def test_two_kinds_of_null_in_one_column_are_refused_by_name(goods):
    goods.loc[0, "brand"], goods.loc[1, "brand"] = None, math.nan
    pipeline = make_pipeline(catalogue(OneHotEncoder()), LogisticRegression()).fit(goods, goods.price > 15)
    with pytest.raises(ExportError, match="column brand holds both None and NaN"):
        export_pipeline(pipeline, goods)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()], ids=lambda encoder: type(encoder).__name__)
def test_an_unseen_brand_is_refused_and_registration_says_so(goods, encoder):
    pipeline = make_pipeline(catalogue(encoder), LogisticRegression(max_iter=1000)).fit(goods, goods.price > 15)
    export = export_pipeline(pipeline, goods)
    assert [warning.split(":")[0] for warning in export.warnings] == ["refuses unseen categories"]
    with pytest.raises(AnswerError, match="no finite score in row 1"):
        served(export, {"brand": ["x", "y"], "price": [1.0, 1.0]})


SOURCES = {"price": "goods:mean_price_7d"}


@pytest.mark.parametrize(
    ("imputes", "options", "outcome", "warned"),
    [
        (False, {}, "is refused", True),
        (True, {}, "is scored as the pipeline scores it", False),
        (False, {"defaults": {"price": 9.5}}, "is scored with the default", False),
        (False, {"never_null": ["price"]}, "is refused", False),
    ],
)
def test_what_a_new_entity_gets_is_tried_and_told(goods, imputes, options, outcome, warned):
    numbers = goods[["price"]].assign(weight=goods.price * 2)
    steps = [SimpleImputer()] if imputes else []
    pipeline = make_pipeline(*steps, StandardScaler(), LogisticRegression()).fit(numbers, goods.price > 15)
    export = export_pipeline(pipeline, numbers, sources=SOURCES, **options)
    assert export.manifest["behaviour"]["price"]["null"] == outcome
    assert [message.startswith("fails for new entities: price") for message in export.warnings] == [True] * warned
    new = {"price": [None], "weight": [20.0]}
    if outcome == "is refused":
        with pytest.raises(InvalidField, match=r"price.*is null, and the column is required"):
            served(export, new)
        return
    filled = pd.DataFrame({"price": [options.get("defaults", {}).get("price", math.nan)], "weight": [20.0]})
    assert served(export, new)[0] == pytest.approx(pipeline.predict_proba(filled)[:, 1])


# Rows as people hold them


def test_rows_of_any_kind_are_served_alike(goods):
    numbers = goods[["price"]].assign(weight=goods.price**2)
    kinds = {"pandas": numbers, "numpy": numbers.to_numpy(), "polars": pl.DataFrame(lists(numbers))}
    labels = goods.price > 15
    for kind, rows in kinds.items():
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
        export = export_pipeline(pipeline, rows, labels)
        names = [column["name"] for column in export.manifest["inputs"]]
        assert names == (["x0", "x1"] if kind == "numpy" else ["price", "weight"])
        live = dict(zip(names, lists(numbers).values(), strict=True))
        assert served(export, live)[0] == pytest.approx(pipeline.predict_proba(rows)[:, 1])


def test_texts_with_accents_punctuation_and_nothing_are_counted_as_scikit_learn_counts_them(chance):
    words = ["Größe", "naïve", "e-mail", "don't", "“quoted”", "10%", "x_y", "a", "été,", "(weiß)", "a.b.c"]
    texts = [" ".join(chance.choice(words, chance.integers(0, 6))) for _ in range(ROWS)] + ["", "!!!", "größe größe"]
    labels = np.array(["weiß" in text for text in texts])
    vectorizer = TfidfVectorizer(lowercase=False, ngram_range=(1, 3), sublinear_tf=True)
    pipeline = make_pipeline(vectorizer, LogisticRegression()).fit(texts, labels)
    scores, _ = served(export_pipeline(pipeline, texts, labels), {"x0": texts})
    assert np.abs(scores - pipeline.predict_proba(texts)[:, 1]).max() < 1e-6


class Doubled(TransformerMixin, BaseEstimator):
    """A step of one's own."""

    def fit(self, columns, labels=None):
        self.fitted_ = True
        return self

    def transform(self, columns):
        return np.asarray(columns) * 2


BROKEN = {
    "a step of one's own": (lambda frame: (make_pipeline(Doubled(), Ridge()), frame), "Doubled is a step of your own"),
    "two names alike": (lambda frame: (Ridge(), frame.set_axis(["a", "a"], axis=1)), "several columns are called a"),
    "a list of lists": (lambda frame: (Ridge(), frame.to_numpy().tolist()), "columns are a list"),
    "no rows": (lambda frame: (Ridge(), frame.iloc[:0]), "the frame is empty"),
    "nothing but nulls": (lambda frame: (Ridge(), frame.assign(weight=None)), "column weight holds nothing but nulls"),
    "durations": (lambda frame: (Ridge(), frame.assign(weight=pd.Timedelta("1h"))), "column weight holds times"),
    "mixed values": (
        lambda frame: (Ridge(), frame.assign(weight=["a", 1] * (ROWS // 2))),
        "column weight has dtype object with mixed",
    ),
    "another column": (lambda frame: (Ridge(), frame.rename(columns={"weight": "kilos"})), "columns lack weight"),
    "a transformer": (lambda frame: (StandardScaler(), frame), "StandardScaler has no predict"),
}


@pytest.mark.parametrize(("make", "said"), BROKEN.values(), ids=BROKEN)
def test_what_can_not_be_served_is_refused_in_our_own_words(goods, make, said):
    numbers = goods[["price"]].assign(weight=goods.price * 2)
    model, rows = make(numbers)
    with pytest.raises(ExportError, match=said):
        export_pipeline(model.fit(numbers, numbers.price), rows)


def test_labels_of_another_length_are_refused_with_both_lengths(goods):
    numbers = goods[["price"]]
    with pytest.raises(ExportError, match="labels have 7 rows, columns have 300"):
        export_pipeline(LinearRegression().fit(numbers, goods.price), numbers, goods.price[:7])


def test_other_sources_or_defaults_make_another_version_of_the_same_pipeline(goods):
    numbers = goods[["price"]].assign(weight=goods.price * 2)
    model = HistGradientBoostingClassifier(max_iter=3).fit(numbers, goods.price > 15)
    options = [{}, {"sources": SOURCES}, {"sources": SOURCES, "defaults": {"price": 1.0}}, {"description": "told anew"}]
    first, second, third, fourth = (export_pipeline(model, numbers, **option).version for option in options)
    assert len({first, second, third}) == 3
    assert fourth == first
