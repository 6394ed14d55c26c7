"""The two contenders: logistic regression on the schedule, gradient boosting that also sees streaming features."""

from dataclasses import dataclass

import pandas as pd
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.flights.features import streaming

SEED = 2013
CATEGORIES = ["carrier", "origin"]
NUMBERS = ["hour", "weekday", "distance"]
SCHEDULE = [*CATEGORIES, *NUMBERS]
STREAMING = list(streaming.features)


@dataclass(frozen=True)
class Contender:
    """A fitted pipeline, the columns it was fitted on, and where the router finds each column's value."""

    name: str
    description: str
    pipeline: Pipeline
    columns: pd.DataFrame
    labels: "pd.Series[bool]"
    sources: dict[str, str]


def training_frame(rows: pl.DataFrame) -> pd.DataFrame:
    """The columns models see, as pandas: numbers as float, so that a missing one is NaN."""
    numbers = [pl.col(column).cast(pl.Float64) for column in [*NUMBERS, *streaming_columns() & set(rows.columns)]]
    return rows.select(*CATEGORIES, *numbers).to_pandas()


def streaming_columns() -> set[str]:
    """Names of the streaming features as columns of a training set: `view__feature`."""
    return {reference.replace(":", "__") for reference in STREAMING}


def train_schedule(rows: pl.DataFrame) -> Contender:
    """v1: what the schedule alone says."""
    columns = training_frame(rows)[SCHEDULE]
    labels = rows["late"].to_pandas()
    encode = ColumnTransformer(
        [("category", OneHotEncoder(handle_unknown="ignore"), CATEGORIES), ("number", StandardScaler(), NUMBERS)]
    )
    pipeline = Pipeline([("encode", encode), ("model", LogisticRegression(max_iter=300))]).fit(columns, labels)
    return Contender("v1", "logistic regression on the schedule", pipeline, columns, labels, {})


def train_streaming(rows: pl.DataFrame) -> Contender:
    """v3: the schedule and how late the airport, the carrier and the aircraft run at the moment."""
    features = [reference.replace(":", "__") for reference in STREAMING]
    columns = training_frame(rows)[[*SCHEDULE, *features]]
    labels = rows["late"].to_pandas()
    # No scaler before trees: in 32-bit floats a scaled value can fall on the other side of a split.
    encode = ColumnTransformer(
        [
            ("category", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
            ("number", "passthrough", [*NUMBERS, *features]),
        ]
    )
    model = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.1, max_leaf_nodes=31, random_state=SEED)
    pipeline = Pipeline([("encode", encode), ("model", model)]).fit(columns, labels)
    sources = dict(zip(features, STREAMING, strict=True))
    return Contender("v3", "gradient boosting with streaming features", pipeline, columns, labels, sources)
