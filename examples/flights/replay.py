"""Replays flights in event time through the public APIs: events, predictions before departure, outcomes after landing.

At each step, first every earlier departure and arrival is sent and applied, then the flights of the step are
predicted, then the outcomes of flights that have landed are given as feedback.

Online features hold only the newest windows, so the same history can't be replayed into the same entities twice. Each
replay has its own entities, `UA@<run>` for carrier UA, with the same values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from contender.client import Client
from contender.contracts import feature_service
from contender.contracts.ab_router import Prediction
from contender.transport import Transport
from examples.flights.data import Flights, day_of
from examples.flights.models import SCHEDULE

MODEL = "late-arrival"
WARM_UP_S = 2 * 86_400
"""Events are sent from this long before the first prediction: longer than the longest window."""
SAMPLED, OUT_OF = 7, 10
_EVENTS_IN_A_CALL = 2_000
_ROWS_IN_A_CALL = 500
_APPLIED_WAIT_S = 20
_TIMEOUT_S = 60
_ENTITIES = ["carrier", "origin", "tail_number"]


class ReplayError(RuntimeError):
    """A row of the replay was refused, or the feature worker did not keep up with it."""


@dataclass(frozen=True)
class Served:
    """One answered prediction, with the number of its flight's row."""

    row: int
    prediction_id: str
    variant: str
    version: str
    score: float
    inputs: dict[str, Any]
    degraded: bool


@dataclass(frozen=True)
class Label:
    """An outcome, and how long after its prediction it came."""

    late: bool
    after_s: float


@dataclass
class Replay:
    """Drives the services, and records in `served` and `labels` what the demo checks at the end.

    Args:
        flights: rows and events.
        client: predicts and gives feedback.
        run_name: suffix that tells this replay's entities from those of other replays.
    """

    flights: Flights
    client: Client
    run_name: str
    served: list[Served] = field(default_factory=list)
    labels: dict[str, Label] = field(default_factory=dict)
    _ids: dict[int, str] = field(default_factory=dict)
    _times: dict[int, float] = field(default_factory=dict)

    @property
    def reached(self) -> float:
        """The time that two predictions have reached, in seconds since the Unix epoch: one alone moves no clock."""
        return sorted(self._times.values())[-2] if len(self._times) > 1 else 0.0

    def run(
        self, rows: pl.DataFrame, on_step: Callable[[float], None], is_over: Callable[[int], bool] = lambda _: False
    ) -> int:
        """Replay the rows in the order of their time, and then the outcomes of flights that are still in the air.

        Args:
            rows: as `examples.flights.data` has them.
            on_step: called after each step with the days so far, such as 2.25 in the third one.
            is_over: called after each day of New York with the number of days; true ends the replay there.

        Returns:
            The number of days.

        Raises:
            ContenderError: a service refused a call, or did not answer.
            ReplayError: a row was refused, or events were not applied in time.
        """
        sent = {name: _Cursor(frame, rows["time"][0] - WARM_UP_S) for name, frame in self.flights.events.items()}
        landing = _Landings(rows)
        with Transport({"feature_service": self.client.feature_url}, timeout_s=_TIMEOUT_S) as features:
            days = 0
            for day in days_of(rows.with_row_index("row")):
                done = 0
                for step in day.partition_by("time", maintain_order=True):
                    now = float(step["time"][0])
                    self._send_events(features, sent, now)
                    self._predict(step)
                    self._give_feedback(landing.before(now))
                    done += step.height
                    on_step(days + done / day.height)
                days += 1
                if is_over(days):
                    break
            self._give_feedback([landed for landed in landing.before(float("inf")) if landed[0] in self._ids])
        return days

    def _send_events(self, features: Transport, sent: dict[str, "_Cursor"], now: float) -> None:
        """Send every event before `now`, and wait until the worker has applied them."""
        events = [
            {"source": source, "time": values.pop("time"), "values": {**values, **self._entities(values)}}
            for source, cursor in sent.items()
            for values in cursor.take_before(now)
        ]
        frames: list[str] = []
        for start in range(0, len(events), _EVENTS_IN_A_CALL):
            body = {"events": events[start : start + _EVENTS_IN_A_CALL]}
            frames += features.call("feature_service", feature_service.ADD_EVENTS, body=body).frame_ids
        wait = {"wait_s": _APPLIED_WAIT_S}
        for frame in frames:
            status = features.call("feature_service", feature_service.GET_FRAME, query=wait, frame_id=frame)
            if not status.applied:
                raise ReplayError(f"the feature worker has not applied events within {_APPLIED_WAIT_S} s")

    def _predict(self, step: pl.DataFrame) -> None:
        requests = [self._request(row) for row in step.iter_rows(named=True)]
        numbers = step["row"].to_list()
        for start in range(0, len(requests), _ROWS_IN_A_CALL):
            answers = self.client.predict_batch(MODEL, requests[start : start + _ROWS_IN_A_CALL])
            for row, answer in zip(numbers[start:], answers, strict=False):
                if not isinstance(answer, Prediction):
                    raise ReplayError(f"row {row} has no prediction: {answer.detail}")
                self.served.append(_served(row, answer))
                self._ids[row] = answer.prediction_id
                self._times[row] = float(step["time"][0])

    def _give_feedback(self, landed: list[tuple[int, float, bool]]) -> None:
        feedback = [{"prediction_id": self._ids[row], "outcome": late, "time": time} for row, time, late in landed]
        for start in range(0, len(feedback), _ROWS_IN_A_CALL):
            self.client.feedback_batch(feedback[start : start + _ROWS_IN_A_CALL])
        times = self._times
        self.labels.update({self._ids[row]: Label(late, time - times[row]) for row, time, late in landed})

    def _request(self, row: dict[str, Any]) -> dict[str, Any]:
        return {
            "unit": row["unit"],
            "time": row["time"],
            "entities": self._entities(row),
            "inputs": {column: row[column] for column in SCHEDULE},
            "return_inputs": True,
        }

    def _entities(self, values: dict[str, Any]) -> dict[str, str]:
        return {key: f"{values[key]}@{self.run_name}" for key in _ENTITIES}


def days_of(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of each day of New York, in order."""
    return rows.with_columns(day_of(pl.col("time")).alias("day")).partition_by(
        "day", maintain_order=True, include_key=False
    )


def sampled(rows: pl.DataFrame) -> pl.DataFrame:
    """Seven of every ten rows, in the order of their time: four whole weeks of flights are fewer than 20,000 then.

    A verdict may come where a week ends. Three weeks, which is as long as 20,000 flights last otherwise, leave one in
    twenty splits of the flights undecided (`make simulate`).
    """
    return rows.filter(pl.int_range(pl.len()) % OUT_OF < SAMPLED)


def first_days(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The rows of the first whole days of New York, at most `limit`; where not even one day fits, part of it."""
    days = days_of(rows.head(limit + 1))
    is_cut = rows.height > limit and len(days) > 1
    return rows.head(min(limit, sum(day.height for day in days[: len(days) - is_cut])))


class _Cursor:
    """Yields a source's events in the order of their time."""

    def __init__(self, events: pl.DataFrame, start: float) -> None:
        self._events = events.filter(pl.col("time") >= start)
        self._times = self._events["time"]
        self._next = 0

    def take_before(self, now: float) -> Iterator[dict[str, Any]]:
        end = int(self._times.search_sorted(now, side="left"))
        yield from self._events[self._next : end].iter_rows(named=True)
        self._next = end


class _Landings:
    """Returns (row, time, late) of the flights that have landed and whose outcome is known."""

    def __init__(self, rows: pl.DataFrame) -> None:
        known = rows.with_row_index("row").filter(pl.col("late").is_not_null() & pl.col("landed").is_not_null())
        self._rows = known.select("row", "landed", "late").sort("landed").rows()
        self._next = 0

    def before(self, now: float) -> list[tuple[int, float, bool]]:
        first = self._next
        while self._next < len(self._rows) and self._rows[self._next][1] < now:
            self._next += 1
        return self._rows[first : self._next]


def _served(row: int, prediction: Prediction) -> Served:
    score, variant = prediction.outputs.score, prediction.variant
    if isinstance(score, list) or variant is None:
        raise ReplayError(f"row {row} is in no experiment, or its model is not binary")
    return Served(
        row, prediction.prediction_id, variant, prediction.version, score, prediction.inputs, prediction.degraded
    )
