"""The client of applications with an event loop: predictions, feedback, and what experiments found."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from contender import application_calls as calls
from contender.addresses import ServiceName, service_urls
from contender.application_calls import Refusal
from contender.batching import Batching
from contender.contracts.ab_router import Prediction
from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import Results, VerdictEvent
from contender.contracts.values import Outcome, Scalar
from contender.transport import AsyncTransport


class AsyncClient:
    """Talks to a running Contender from a coroutine, as Client does from a thread.

    Args:
        url: the router; default: the variable CONTENDER_URL, else `http://127.0.0.1:8400`; see Client.
        timeout_s: longest wait for an answer, all attempts together.
        retries: how often a call is sent again after a failure that may pass; see Client.
        urls: where single services are, by name such as `feedback_service`.
        transport: another way to send; for tests.

    Every call raises RefusedError when a service refuses, UnreachableError when it does not answer, and ContenderError
    when the arguments can't be sent.

    Raises:
        ContenderError: a URL is invalid.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 0,
        urls: Mapping[ServiceName, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        everywhere = {**service_urls(url), **(urls or {})}
        self._transport = AsyncTransport(everywhere, timeout_s=timeout_s, retries=retries, transport=transport)
        self._retries = retries

    @property
    def url(self) -> str:
        """The URL of the router."""
        return self._transport.urls["ab_router"]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def predict(
        self,
        model: str,
        *,
        unit: str = "",
        entities: Mapping[str, str | int] | None = None,
        inputs: Mapping[str, Scalar] | None = None,
        context: Mapping[str, Scalar] | None = None,
        **more: Any,
    ) -> Prediction:
        """One prediction; give its `prediction_id` with the feedback. `more` are further fields of a row."""
        row = {"unit": unit, "entities": entities or {}, "inputs": inputs or {}, "context": context or {}, **more}
        return await self._transport.send(calls.predict(model, row, self._retries))

    async def predict_batch(
        self, model: str, rows: Sequence[Mapping[str, Any]], *, request_id: str = ""
    ) -> list[Prediction | Refusal]:
        """Predictions of several rows, in order, as Client.predict_batch gives them."""
        answer = await self._transport.send(calls.predict_batch(model, rows, request_id, self._retries))
        return calls.rows_of(answer, self.url)

    def batching(self, model: str, *, max_rows: int = 64, max_wait_s: float = 0.002) -> Batching:
        """Sends the predictions that many coroutines ask for at once in few calls.

        `async with client.batching("churn") as churn: await churn.predict(unit=...)`.

        Args:
            model: the model that answers.
            max_rows: most rows of a call.
            max_wait_s: longest time for which a row waits for others.
        """
        return Batching(lambda rows: self.predict_batch(model, rows), max_rows=max_rows, max_wait_s=max_wait_s)

    async def feedback(
        self,
        prediction_id: str,
        outcome: Outcome | None = None,
        *,
        rating: float | None = None,
        reward: float | None = None,
        conversion: bool | None = None,
        complaint: bool | None = None,
        shown: bool | None = None,
        decided: Outcome | None = None,
        at: float | None = None,
    ) -> None:
        """Report an outcome, or how the answer was taken, as Client.feedback does."""
        values = {"outcome": outcome, "rating": rating, "reward": reward}
        values |= {"conversion": conversion, "complaint": complaint, "shown": shown, "decided": decided}
        await self.feedback_batch([calls.report(prediction_id, at, **values)])

    async def feedback_batch(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Report on many predictions at once, as Client.feedback_batch does."""
        await self._transport.send(calls.give_feedback(outcomes))

    async def experiments(self) -> list[ExperimentRevision]:
        """Every experiment as it stands, oldest first."""
        return (await self._transport.send(calls.list_experiments())).experiments

    async def revision(self, experiment: str) -> ExperimentRevision:
        """An experiment as it stands."""
        return await self._transport.send(calls.show_experiment(experiment))

    async def results(self, experiment: str, as_of: float | None = None) -> Results:
        """The results of an experiment at this moment, or as they were kept at a time in seconds since 1970."""
        return await self._transport.send(calls.get_results(experiment, as_of))

    async def verdicts(self, experiment: str) -> list[VerdictEvent]:
        """The verdicts of an experiment and what was found after them, in order."""
        return (await self._transport.send(calls.list_verdicts(experiment))).verdicts
