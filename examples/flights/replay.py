"""Replays flights in event time through the public APIs: events, predictions before departure, outcomes after landing.

At each step, first every earlier departure and arrival is sent and applied, then the flights of the step are
predicted, then the outcomes of flights that have landed are given as feedback.

Online features hold only the newest windows, so the same history can't be replayed into the same entities twice. Each
replay has its own entities, `UA@<run>` for carrier UA, with the same values.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import polars as pl

from examples.flights.data import Flights
from examples.flights.models import SCHEDULE

MODEL = "late-arrival"
WARM_UP_S = 2 * 86_400
"""Events are sent from this long before the first prediction: longer than the longest window."""
_EVENTS_IN_A_CALL = 2_000
_ROWS_IN_A_CALL = 500
_APPLIED_WAIT_S = 20
_TIMEOUT_S = 60
_ENTITIES = ["carrier", "origin", "tail_number"]


class ReplayError(RuntimeError):
    """A service refused a call of the replay, or did not keep up with it."""


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
        features_url: the feature service.
        router_url: the router.
        feedback_url: the feedback service.
        run_name: suffix that tells this replay's entities from those of other replays.
    """

    flights: Flights
    features_url: str
    router_url: str
    feedback_url: str
    run_name: str
    served: list[Served] = field(default_factory=list)
    labels: dict[str, Label] = field(default_factory=dict)
    _ids: dict[int, str] = field(default_factory=dict)
    _times: dict[int, float] = field(default_factory=dict)

    async def run(self, rows: pl.DataFrame, on_step: Callable[[int], None]) -> None:
        """Replay the rows in the order of their time; call `on_step` with the number of predictions of each step.

        Raises:
            ReplayError: a call was refused, or events were not applied in time.
        """
        sent = {name: _Cursor(frame, rows["time"][0] - WARM_UP_S) for name, frame in self.flights.events.items()}
        landing = _Landings(rows)
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits) as client:
            for step in rows.with_row_index("row").partition_by("time", maintain_order=True):
                now = float(step["time"][0])
                await self._send_events(client, sent, now)
                await self._predict(client, step)
                await self._give_feedback(client, landing.before(now))
                on_step(step.height)
            await self._give_feedback(client, landing.before(float("inf")))

    async def _send_events(self, client: httpx.AsyncClient, sent: dict[str, "_Cursor"], now: float) -> None:
        """Send every event before `now`, and wait until the worker has applied them."""
        events = [
            {"source": source, "time": values.pop("time"), "values": {**values, **self._entities(values)}}
            for source, cursor in sent.items()
            for values in cursor.take_before(now)
        ]
        frames: list[str] = []
        for start in range(0, len(events), _EVENTS_IN_A_CALL):
            body = {"events": events[start : start + _EVENTS_IN_A_CALL]}
            frames += (await _post(client, f"{self.features_url}/v1/events", body))["frame_ids"]
        applied = await asyncio.gather(*(self._applied(client, frame) for frame in frames))
        if not all(applied):
            raise ReplayError(f"the feature worker has not applied events within {_APPLIED_WAIT_S} s")

    async def _applied(self, client: httpx.AsyncClient, frame: str) -> bool:
        answer = await client.get(f"{self.features_url}/v1/frames/{frame}", params={"wait_s": _APPLIED_WAIT_S})
        _check(answer)
        return bool(answer.json()["applied"])

    async def _predict(self, client: httpx.AsyncClient, step: pl.DataFrame) -> None:
        requests = [self._request(row) for row in step.iter_rows(named=True)]
        numbers = step["row"].to_list()
        for start in range(0, len(requests), _ROWS_IN_A_CALL):
            body = {"rows": requests[start : start + _ROWS_IN_A_CALL]}
            answer = await _post(client, f"{self.router_url}/v1/models/{MODEL}/predict/batch", body)
            for row, prediction in zip(numbers[start:], answer["predictions"], strict=False):
                if refusal := prediction.get("error"):
                    raise ReplayError(f"row {row} has no prediction: {refusal['detail']}")
                self.served.append(_served(row, prediction))
                self._ids[row] = prediction["prediction_id"]
                self._times[row] = float(step["time"][0])

    async def _give_feedback(self, client: httpx.AsyncClient, landed: list[tuple[int, float, bool]]) -> None:
        feedback = [{"prediction_id": self._ids[row], "outcome": late, "time": time} for row, time, late in landed]
        for start in range(0, len(feedback), _ROWS_IN_A_CALL):
            await _post(
                client, f"{self.feedback_url}/v1/feedback", {"feedback": feedback[start : start + _ROWS_IN_A_CALL]}
            )
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


def _served(row: int, prediction: dict[str, Any]) -> Served:
    return Served(
        row,
        prediction["prediction_id"],
        prediction["variant"],
        prediction["version"],
        prediction["outputs"]["score"],
        prediction["inputs"],
        prediction["degraded"],
    )


async def _post(client: httpx.AsyncClient, url: str, body: object) -> dict[str, Any]:
    answer = await client.post(url, json=body)
    _check(answer)
    content: dict[str, Any] = answer.json()
    return content


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        raise ReplayError(f"{answer.request.method} {answer.request.url} answered {answer.status_code}: {answer.text}")
