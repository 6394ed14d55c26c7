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
SERVED = [reference.replace(":", "__") for reference in STREAMING]


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
    text = {column: rows[column].to_list() for column in CATEGORIES}
    numbers = [column for column in [*NUMBERS, *SERVED] if column in rows.columns]
    return pd.DataFrame(text | {column: rows[column].cast(pl.Float64).to_numpy() for column in numbers})


def train_schedule(rows: pl.DataFrame) -> Contender:
    """v1: from the schedule alone."""
    columns = training_frame(rows)[SCHEDULE]
    labels = pd.Series(rows["late"].to_numpy())
    encode = ColumnTransformer(
        [("category", OneHotEncoder(handle_unknown="ignore"), CATEGORIES), ("number", StandardScaler(), NUMBERS)]
    )
    pipeline = Pipeline([("encode", encode), ("model", LogisticRegression(max_iter=300))]).fit(columns, labels)
    return Contender("v1", "logistic regression on the schedule", pipeline, columns, labels, {})


def train_streaming(rows: pl.DataFrame) -> Contender:
    """v3: from the schedule and from how late the airport, the carrier and the aircraft run now."""
    columns = training_frame(rows)[[*SCHEDULE, *SERVED]]
    labels = pd.Series(rows["late"].to_numpy())
    # No scaler before trees: in 32-bit floats a scaled value can fall on the other side of a split.
    encode = ColumnTransformer(
        [
            ("category", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
            ("number", "passthrough", [*NUMBERS, *SERVED]),
        ]
    )
    model = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.1, max_leaf_nodes=31, random_state=SEED)
    pipeline = Pipeline([("encode", encode), ("model", model)]).fit(columns, labels)
    sources = dict(zip(SERVED, STREAMING, strict=True))
    return Contender("v3", "gradient boosting with streaming features", pipeline, columns, labels, sources)
