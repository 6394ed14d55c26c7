"""The flights are rows and events of real time, and are replayed by New York's days."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from examples.flights.data import Flights, prepare
from examples.flights.demo import REPLAY_FROM
from examples.flights.replay import Replay, days_of, first_days, sampled


def flight(day: int, scheduled: int, delay: float | None = 0.0, month: int = 7) -> dict[str, Any]:
    return {
        "year": 2013,
        "month": month,
        "day": day,
        "sched_dep_time": scheduled,
        "dep_delay": delay,
        "arr_delay": delay,
        "air_time": None if delay is None else 60.0,
        "tailnum": "N1",
        "carrier": "UA",
        "flight": scheduled,
        "origin": "EWR",
        "dest": "BOS",
        "distance": 200.0,
    }


def prepared(*flights: dict[str, Any]) -> Flights:
    return prepare(pl.DataFrame(flights, schema_overrides={"dep_delay": pl.Float64, "air_time": pl.Float64}))


@pytest.mark.parametrize(("month", "utc_hour"), [(1, 17), (7, 16)])
def test_times_are_real_ones_and_columns_are_of_new_yorks_clock(month: int, utc_hour: int):
    (row,) = prepared(flight(2, 1215, month=month)).rows.rows(named=True)
    assert datetime.fromtimestamp(row["scheduled"], UTC) == datetime(2013, month, 2, utc_hour, 15, tzinfo=UTC)
    assert (row["hour"], row["weekday"]) == (12, datetime(2013, month, 2, tzinfo=UTC).isoweekday())
    assert row["landed"] - row["scheduled"] == 85 * 60
    assert row["late"] is False


def test_a_late_evening_belongs_to_its_day_in_new_york():
    rows = prepared(flight(1, 600), flight(1, 2359), flight(2, 600)).rows
    assert [day["hour"].to_list() for day in days_of(rows)] == [[6, 23], [6]]
    assert days_of(rows)[0].columns == rows.columns
    assert datetime.fromtimestamp(REPLAY_FROM, UTC) == datetime(2013, 7, 1, 4, tzinfo=UTC)


class Feedback:
    """A client that keeps the ids that feedback is given for."""

    feature_url = "http://127.0.0.1:1"

    def __init__(self) -> None:
        self.ids: list[str] = []

    def feedback_batch(self, feedback: list[dict[str, Any]]) -> None:
        self.ids += [item["prediction_id"] for item in feedback]


class OfflineReplay(Replay):
    """A replay that sends no events, and gives rows their ids itself."""

    def _send_events(self, *_: object) -> None:
        pass

    def _predict(self, step: pl.DataFrame) -> None:
        for row, time in step.select("row", "time").rows():
            self._ids[row], self._times[row] = f"p-{row}", time


def test_a_replay_ends_after_a_whole_day_with_the_outcomes_of_its_own_flights():
    flights = prepared(flight(1, 600), flight(1, 2359), flight(2, 600), flight(2, 1200))
    feedback, steps = Feedback(), []
    replay = OfflineReplay(flights, feedback, "run")
    assert replay.run(flights.rows, steps.append, lambda days: days == 1) == 1
    assert steps == [0.5, 1.0]
    assert feedback.ids == ["p-0", "p-1"]


@pytest.mark.parametrize(("limit", "kept"), [(1, 1), (3, 2), (4, 4), (5, 4), (6, 6), (100, 6)])
def test_a_limit_keeps_whole_days(limit: int, kept: int):
    rows = prepared(*(flight(day, scheduled) for day in (1, 2, 3) for scheduled in (600, 1200))).rows
    assert first_days(rows, limit).equals(rows.head(kept))


def test_seven_of_every_ten_flights_are_replayed_at_all_hours():
    rows = prepared(*(flight(1, 600 + minute) for minute in range(50))).rows.with_row_index("row")
    kept = sampled(rows)["row"].to_list()
    assert len(kept) == 35
    assert all(sum(row // 10 == ten for row in kept) == 7 for ten in range(5))


def test_a_replay_has_reached_the_time_of_its_second_newest_prediction():
    flights = prepared(flight(1, 600), flight(1, 1200), flight(1, 1800))
    replay = OfflineReplay(flights, Feedback(), "run")
    assert replay.reached == 0.0
    replay.run(flights.rows, lambda _: None)
    assert replay.reached == flights.rows["time"][1]
