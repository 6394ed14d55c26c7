"""Writes the table of docs/models.md: what registers, and what is refused with which advice. Run with `make docs`.

Every pipeline is fitted, exported and answered by the service's own session, beside scikit-learn, on rows that it was
not fitted on; where one is refused, what the refusal advises is tried as well.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

from contender.contracts.inference_service import InputColumn
from contender.contracts.tasks import task_named
from contender.errors import ExportError, ParityError
from contender.registration import Export, export_pipeline
from services.inference_service.domain.columns import check_columns
from services.inference_service.session import Session

PATH = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- written by `make docs` -->\n", "<!-- end -->\n"
TOLERANCE = 1e-5
ROWS, LIVE = 160, 60
Make = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A pipeline as people have it: its data by name, and what its refusal advises, where it is refused."""

    name: str
    group: str
    make: Make
    data: str
    instead: Make | None = None
    data_instead: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case: how far scores are off, how many labels differ, or why it was refused."""

    case: Case
    off: float = 0.0
    labels: int = 0
    refusal: str = ""


@dataclass(frozen=True)
class Data:
    """Rows to fit on with their labels, and rows that come live."""

    rows: pd.DataFrame
    labels: Any
    live: pd.DataFrame


def _frames() -> dict[str, Data]:
    chance = np.random.default_rng(7)
    count = ROWS + LIVE
    numbers = pd.DataFrame(
        {
            "visits": chance.integers(0, 60, count),
            "spend in EUR": np.round(chance.gamma(2, 40, count), 2),
            "score": chance.normal(0, 1, count),
            "since": 1_700_000_000 + chance.integers(0, 30_000_000, count),
        }
    )
    mixed = numbers.drop(columns="since").assign(
        plan=pd.Series(chance.choice(["free", "pro", "team"], count), dtype=object),
        country=pd.Series(chance.choice(["at", "de", None], count, p=[0.5, 0.4, 0.1]), dtype=object),
        member=chance.random(count) < 0.4,
        age=np.where(chance.random(count) < 0.1, np.nan, chance.integers(18, 90, count)),
    )
    words = ["refund", "broken", "love", "great", "slow", "Invoice", "login,", "password!"]
    texts = pd.DataFrame({"text": [" ".join(chance.choice(words, chance.integers(3, 8))) for _ in range(count)]})
    amount = numbers.visits + numbers["spend in EUR"] / 20 + 5 * numbers.score + chance.normal(0, 2, count)
    binary = (amount > amount.median()).astype(int).to_numpy()
    several = np.array(["low", "middle", "high"])[np.digitize(amount, amount.quantile([0.3, 0.6]))]
    late = texts.text.str.contains("refund|broken").astype(int).to_numpy()
    small = numbers.drop(columns="since")
    labelled = {
        "numbers, binary": (small, binary),
        "numbers, bool": (small, binary == 1),
        "numbers, several": (small, several),
        "numbers, amount": (small, np.abs(amount.to_numpy()) + 1),
        "times, binary": (numbers, binary),
        "mixed, binary": (mixed, binary),
        "mixed, several": (mixed, several),
        "texts": (texts, late),
    }
    return {name: Data(rows[:ROWS], labels[:ROWS], rows[ROWS:]) for name, (rows, labels) in labelled.items()}


def _columns(encoder: Any, rest: str = "passthrough") -> Any:
    return make_column_transformer(
        (encoder, ["plan", "country"]),
        (SimpleImputer(), ["age"]),
        (StandardScaler(), ["visits", "spend in EUR"]),
        remainder=rest,
    )


def _logistic() -> Any:
    return LogisticRegression(max_iter=3000)


def _pair() -> list[tuple[str, Any]]:
    return [("a", _logistic()), ("b", RandomForestClassifier(8, random_state=0))]


def _words(vectorizer: Any, last: Any = None) -> Any:
    return make_pipeline(make_column_transformer((vectorizer, "text")), last or _logistic())


IGNORE = OneHotEncoder(handle_unknown="ignore")
LINEAR, TREES, OTHER = "linear models", "trees and boosting", "other models"
BEFORE, AROUND, TEXT = "steps before a model", "around a model", "text"
CASES = [
    Case("LogisticRegression", LINEAR, lambda: make_pipeline(StandardScaler(), _logistic()), "numbers, several"),
    Case("LogisticRegression, bool classes", LINEAR, _logistic, "numbers, bool"),
    Case(
        "SGDClassifier, log loss",
        LINEAR,
        lambda: make_pipeline(RobustScaler(), SGDClassifier(loss="log_loss", random_state=0)),
        "numbers, binary",
    ),
    Case("LinearDiscriminantAnalysis", LINEAR, LinearDiscriminantAnalysis, "numbers, several"),
    Case("LinearRegression", LINEAR, LinearRegression, "numbers, amount"),
    Case("Ridge", LINEAR, lambda: make_pipeline(StandardScaler(), Ridge()), "numbers, amount"),
    Case("Lasso", LINEAR, Lasso, "numbers, amount"),
    Case("ElasticNet", LINEAR, ElasticNet, "numbers, amount"),
    Case("HuberRegressor", LINEAR, lambda: make_pipeline(StandardScaler(), HuberRegressor()), "numbers, amount"),
    Case("PoissonRegressor", LINEAR, lambda: make_pipeline(StandardScaler(), PoissonRegressor()), "numbers, amount"),
    Case("GammaRegressor", LINEAR, lambda: make_pipeline(StandardScaler(), GammaRegressor()), "numbers, amount"),
    Case(
        "TweedieRegressor",
        LINEAR,
        lambda: make_pipeline(StandardScaler(), TweedieRegressor(power=1.5)),
        "numbers, amount",
    ),
    Case(
        "RidgeClassifier", LINEAR, RidgeClassifier, "numbers, binary", lambda: CalibratedClassifierCV(RidgeClassifier())
    ),
    Case(
        "DecisionTreeClassifier",
        TREES,
        lambda: DecisionTreeClassifier(max_leaf_nodes=20, random_state=0),
        "times, binary",
    ),
    Case("DecisionTreeRegressor", TREES, lambda: DecisionTreeRegressor(max_depth=4, random_state=0), "numbers, amount"),
    Case("RandomForestClassifier", TREES, lambda: RandomForestClassifier(10, random_state=0), "numbers, several"),
    Case(
        "RandomForestClassifier behind a scaler",
        TREES,
        lambda: make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)),
        "times, binary",
    ),
    Case("RandomForestRegressor", TREES, lambda: RandomForestRegressor(10, random_state=0), "numbers, amount"),
    Case("ExtraTreesClassifier", TREES, lambda: ExtraTreesClassifier(10, random_state=0), "numbers, several"),
    Case("GradientBoostingClassifier", TREES, lambda: GradientBoostingClassifier(n_estimators=10), "numbers, several"),
    Case("GradientBoostingRegressor", TREES, lambda: GradientBoostingRegressor(n_estimators=10), "numbers, amount"),
    Case("HistGradientBoostingClassifier", TREES, lambda: HistGradientBoostingClassifier(max_iter=10), "times, binary"),
    Case(
        "HistGradientBoostingRegressor, quantile",
        TREES,
        lambda: HistGradientBoostingRegressor(loss="quantile", quantile=0.8, max_iter=10),
        "numbers, amount",
    ),
    Case("AdaBoostClassifier", TREES, lambda: AdaBoostClassifier(n_estimators=5, random_state=0), "numbers, several"),
    Case("BaggingClassifier", TREES, lambda: BaggingClassifier(n_estimators=5, random_state=0), "numbers, several"),
    Case(
        "LightGBM classifier (extra `boosting`)",
        TREES,
        lambda: LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1),
        "times, binary",
    ),
    Case(
        "LightGBM regressor behind a scaler",
        TREES,
        lambda: make_pipeline(StandardScaler(), LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1)),
        "numbers, amount",
    ),
    Case(
        "XGBoost classifier (extra `boosting`)",
        TREES,
        lambda: XGBClassifier(n_estimators=10, n_jobs=1),
        "numbers, binary",
    ),
    Case(
        "XGBoost regressor behind a scaler",
        TREES,
        lambda: make_pipeline(StandardScaler(), XGBRegressor(n_estimators=10, n_jobs=1)),
        "numbers, amount",
    ),
    Case(
        "HistGradientBoosting with categories of its own",
        TREES,
        lambda: HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]),
        "numbers, binary",
        lambda: make_pipeline(
            make_column_transformer(
                (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["visits"]),
                remainder="passthrough",
            ),
            HistGradientBoostingClassifier(max_iter=5),
        ),
    ),
    Case(
        "SVC with probabilities",
        OTHER,
        lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
        "numbers, several",
    ),
    Case("SVR", OTHER, lambda: make_pipeline(StandardScaler(), SVR()), "numbers, amount"),
    Case(
        "LinearSVC",
        OTHER,
        lambda: make_pipeline(StandardScaler(), LinearSVC()),
        "numbers, binary",
        lambda: make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC())),
    ),
    Case(
        "KNeighborsClassifier",
        OTHER,
        lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(4)),
        "numbers, binary",
    ),
    Case(
        "KNeighborsRegressor", OTHER, lambda: make_pipeline(StandardScaler(), KNeighborsRegressor()), "numbers, amount"
    ),
    Case(
        "MLPClassifier",
        OTHER,
        lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=80, random_state=0)),
        "numbers, several",
    ),
    Case(
        "MLPRegressor",
        OTHER,
        lambda: make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=80, random_state=0)),
        "numbers, amount",
    ),
    Case("GaussianNB", OTHER, GaussianNB, "numbers, several"),
    Case("BernoulliNB", OTHER, BernoulliNB, "numbers, binary"),
    Case("QuadraticDiscriminantAnalysis", OTHER, QuadraticDiscriminantAnalysis, "numbers, several"),
    Case("DummyClassifier", OTHER, DummyClassifier, "numbers, several"),
    Case("DummyRegressor", OTHER, DummyRegressor, "numbers, amount"),
    Case("OneHotEncoder", BEFORE, lambda: make_pipeline(_columns(IGNORE), _logistic()), "mixed, binary"),
    Case(
        "OneHotEncoder that refuses what it never saw",
        BEFORE,
        lambda: make_pipeline(_columns(OneHotEncoder()), _logistic()),
        "mixed, several",
    ),
    Case(
        "OneHotEncoder behind an imputer of text",
        BEFORE,
        lambda: make_pipeline(
            _columns(make_pipeline(SimpleImputer(missing_values=None, strategy="constant", fill_value="none"), IGNORE)),
            _logistic(),
        ),
        "mixed, binary",
    ),
    Case(
        "OrdinalEncoder",
        BEFORE,
        lambda: make_pipeline(
            _columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
            HistGradientBoostingClassifier(max_iter=5),
        ),
        "mixed, binary",
    ),
    Case(
        "TargetEncoder",
        BEFORE,
        lambda: make_pipeline(_columns(TargetEncoder(random_state=0)), _logistic()),
        "mixed, binary",
    ),
    Case(
        "columns by selector",
        BEFORE,
        lambda: make_pipeline(
            make_column_transformer(
                (IGNORE, make_column_selector(dtype_include=object)),
                (SimpleImputer(), make_column_selector(dtype_include="number")),
            ),
            RandomForestClassifier(5, random_state=0),
        ),
        "mixed, several",
    ),
    Case(
        "SimpleImputer with an indicator",
        BEFORE,
        lambda: make_pipeline(
            make_column_transformer((SimpleImputer(add_indicator=True), ["age", "visits"])), _logistic()
        ),
        "mixed, binary",
    ),
    Case(
        "KNNImputer",
        BEFORE,
        lambda: make_pipeline(make_column_transformer((KNNImputer(), ["age", "visits", "score"])), _logistic()),
        "mixed, binary",
    ),
    Case("MinMaxScaler", BEFORE, lambda: make_pipeline(MinMaxScaler(), _logistic()), "times, binary"),
    Case(
        "MaxAbsScaler, Normalizer",
        BEFORE,
        lambda: make_pipeline(MaxAbsScaler(), Normalizer(), _logistic()),
        "numbers, binary",
    ),
    Case(
        "PolynomialFeatures",
        BEFORE,
        lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge()),
        "numbers, amount",
    ),
    Case(
        "QuantileTransformer",
        BEFORE,
        lambda: make_pipeline(QuantileTransformer(n_quantiles=20), _logistic()),
        "numbers, binary",
    ),
    Case("PowerTransformer", BEFORE, lambda: make_pipeline(PowerTransformer(), _logistic()), "numbers, binary"),
    Case(
        "KBinsDiscretizer",
        BEFORE,
        lambda: make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), _logistic()),
        "numbers, binary",
        lambda: make_pipeline(
            KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), _logistic()
        ),
    ),
    Case(
        "SplineTransformer",
        BEFORE,
        lambda: make_pipeline(SplineTransformer(), Ridge()),
        "numbers, amount",
        lambda: make_pipeline(PolynomialFeatures(2), Ridge()),
    ),
    Case(
        "FunctionTransformer",
        BEFORE,
        lambda: make_pipeline(FunctionTransformer(np.arctan), _logistic()),
        "numbers, binary",
        lambda: make_pipeline(StandardScaler(), _logistic()),
    ),
    Case("PCA", BEFORE, lambda: make_pipeline(StandardScaler(), PCA(2), _logistic()), "numbers, binary"),
    Case("TruncatedSVD", BEFORE, lambda: make_pipeline(TruncatedSVD(2), _logistic()), "numbers, binary"),
    Case(
        "SelectKBest, VarianceThreshold",
        BEFORE,
        lambda: make_pipeline(VarianceThreshold(), SelectKBest(k=2), _logistic()),
        "numbers, binary",
    ),
    Case(
        "FeatureUnion",
        BEFORE,
        lambda: make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PCA(2))]), _logistic()),
        "numbers, binary",
    ),
    Case("TfidfVectorizer", TEXT, lambda: _words(TfidfVectorizer()), "texts"),
    Case(
        "TfidfVectorizer, case kept, pairs of words",
        TEXT,
        lambda: _words(TfidfVectorizer(lowercase=False, ngram_range=(1, 2))),
        "texts",
    ),
    Case("CountVectorizer, MultinomialNB", TEXT, lambda: _words(CountVectorizer(), MultinomialNB()), "texts"),
    Case(
        "CountVectorizer, TfidfTransformer",
        TEXT,
        lambda: _words(make_pipeline(CountVectorizer(stop_words="english"), TfidfTransformer(sublinear_tf=True))),
        "texts",
    ),
    Case(
        "HashingVectorizer",
        TEXT,
        lambda: _words(HashingVectorizer(n_features=64)),
        "texts",
        lambda: _words(TfidfVectorizer()),
    ),
    Case(
        "vectorizer of characters",
        TEXT,
        lambda: _words(CountVectorizer(analyzer="char", ngram_range=(2, 2))),
        "texts",
        lambda: _words(CountVectorizer()),
    ),
    Case(
        "GridSearchCV",
        AROUND,
        lambda: GridSearchCV(make_pipeline(_columns(IGNORE), _logistic()), {"logisticregression__C": [0.1, 1]}, cv=2),
        "mixed, binary",
    ),
    Case(
        "TunedThresholdClassifierCV",
        AROUND,
        lambda: TunedThresholdClassifierCV(
            make_pipeline(_columns(IGNORE), _logistic()), scoring="balanced_accuracy", cv=3
        ),
        "mixed, binary",
    ),
    Case(
        "FixedThresholdClassifier",
        AROUND,
        lambda: FixedThresholdClassifier(_logistic(), threshold=0.2),
        "numbers, bool",
    ),
    Case(
        "CalibratedClassifierCV, sigmoid",
        AROUND,
        lambda: CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2),
        "numbers, several",
    ),
    Case(
        "CalibratedClassifierCV, isotonic",
        AROUND,
        lambda: CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
        "numbers, binary",
        lambda: CalibratedClassifierCV(GaussianNB(), method="sigmoid", cv=2),
    ),
    Case(
        "TransformedTargetRegressor, log1p",
        AROUND,
        lambda: TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
        "numbers, amount",
    ),
    Case(
        "TransformedTargetRegressor, a scaler",
        AROUND,
        lambda: TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
        "numbers, amount",
    ),
    Case("VotingClassifier, soft", AROUND, lambda: VotingClassifier(_pair(), voting="soft"), "numbers, several"),
    Case(
        "VotingClassifier, hard",
        AROUND,
        lambda: VotingClassifier(_pair()),
        "numbers, several",
        lambda: VotingClassifier(_pair(), voting="soft"),
    ),
    Case(
        "VotingClassifier over pipelines of columns",
        AROUND,
        lambda: VotingClassifier(
            [("a", make_pipeline(_columns(IGNORE), _logistic())), ("b", make_pipeline(_columns(IGNORE), GaussianNB()))],
            voting="soft",
        ),
        "mixed, binary",
    ),
    Case(
        "CalibratedClassifierCV over a pipeline of columns",
        AROUND,
        lambda: CalibratedClassifierCV(make_pipeline(_columns(IGNORE), _logistic()), cv=2),
        "mixed, binary",
        lambda: make_pipeline(_columns(IGNORE), CalibratedClassifierCV(_logistic(), cv=2)),
    ),
    Case(
        "VotingRegressor",
        AROUND,
        lambda: VotingRegressor([("a", Ridge()), ("b", RandomForestRegressor(5, random_state=0))]),
        "numbers, amount",
    ),
    Case("StackingClassifier", AROUND, lambda: StackingClassifier(_pair(), cv=2), "numbers, several"),
    Case(
        "StackingRegressor",
        AROUND,
        lambda: StackingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3))], cv=2),
        "numbers, amount",
    ),
    Case("OneVsRestClassifier", AROUND, lambda: OneVsRestClassifier(_logistic()), "numbers, several"),
]


def outcomes() -> Iterator[Outcome]:
    """Try every case; a refusal whose advice does not work raises it."""
    frames = _frames()
    for case in CASES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield _tried(case, case.make, frames[case.data])
            except (ExportError, ParityError) as error:
                if case.instead is None:
                    raise
                _tried(case, case.instead, frames[case.data_instead or case.data])
                yield Outcome(case, refusal=str(error))


def _tried(case: Case, make: Make, data: Data) -> Outcome:
    pipeline = make().fit(data.rows, data.labels)
    export = export_pipeline(pipeline, data.rows, data.labels)
    scores, labels = _served(export, data.live)
    task = task_named(export.manifest["task"])
    if not task.has_classes:
        expected = pipeline.predict(data.live)
        return Outcome(case, float(np.abs(scores - expected).max() / max(1.0, np.abs(expected).max())))
    expected = np.array(task.answered_scores(pipeline.predict_proba(data.live)))
    differ = sum(ours != theirs for ours, theirs in zip(labels, pipeline.predict(data.live).tolist(), strict=True))
    return Outcome(case, float(np.abs(scores - expected).max()), differ)


def _served(export: Export, live: pd.DataFrame) -> tuple[Any, list[Any]]:
    manifest = export.manifest
    inputs = msgspec.convert(manifest["inputs"], list[InputColumn])
    outputs = {name: manifest[name] for name in ("score_output", "label_output")}
    session = Session(export.onnx, inputs, manifest["task"], manifest["classes"], **outputs)
    rows = {name: [None if pd.isna(value) else value for value in live[name].tolist()] for name in live}
    answers = session.answer(check_columns(inputs, rows, row_limit=LIVE, text_limit=1000))
    return np.array(answers.scores), answers.labels


def table(tried: list[Outcome]) -> str:
    """The outcomes as Markdown."""
    registered = [outcome for outcome in tried if not outcome.refusal]
    lines = [f"{len(registered)} of {len(tried)} register and answer as scikit-learn does:", ""]
    lines += ["| kind | pipelines |", "| --- | --- |"]
    for group in dict.fromkeys(case.group for case in CASES):
        names = [outcome.case.name for outcome in registered if outcome.case.group == group]
        lines.append(f"| {group} | {'; '.join(names)} |")
    lines += ["", "The others are refused, and what the refusal advises was tried:", ""]
    lines += ["| pipeline | the message of `register` |", "| --- | --- |"]
    lines += [f"| {outcome.case.name} | {outcome.refusal} |" for outcome in tried if outcome.refusal]
    return "\n".join([*lines, ""])


def page(tried: list[Outcome]) -> str:
    """The page with its table."""
    text = PATH.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:begin]}{table(tried)}{text[end:]}"


if __name__ == "__main__":
    PATH.write_text(page(list(outcomes())))
