"""Predictions that many coroutines ask for at once, sent in few calls."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self

import msgspec

from contender.application_calls import Refusal
from contender.bodies import plain
from contender.contracts.ab_router import Prediction, PredictionRow
from contender.contracts.problems import FieldError
from contender.errors import ContenderError, RefusedError

Rows = Sequence[Mapping[str, Any]]
Send = Callable[[Rows], Awaitable[list[Prediction | Refusal]]]
_ABOUT_ROWS = frozenset({HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
"""Refusals that fewer rows may not meet."""


class Batching:
    """Gathers rows for a moment and sends them together; each caller gets the answer to its own row, or its error.

    A call is sent with `max_rows`, or `max_wait_s` after its first row came. Leave it by `async with`, which sends the
    rows that wait and awaits their answers.

    Args:
        send: answers rows in order; see AsyncClient.predict_batch.
        max_rows: most rows of a call.
        max_wait_s: longest time for which a row waits for others.

    Raises:
        ContenderError: `max_rows` is below 1.
    """

    def __init__(self, send: Send, *, max_rows: int, max_wait_s: float) -> None:
        if max_rows < 1:
            raise ContenderError(f"max_rows is {max_rows}; a call takes at least one row")
        self._send = send
        self._max_rows = max_rows
        self._max_wait_s = max_wait_s
        self._waiting: list[tuple[Mapping[str, Any], asyncio.Future[Prediction]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._flush()
        await asyncio.gather(*self._sending)

    async def predict(self, **row: Any) -> Prediction:
        """The prediction of a row, whose fields are those of AsyncClient.predict.

        Raises:
            RefusedError: the row, or the call that it was sent with, is refused.
            UnreachableError: the router does not answer.
            ContenderError: the row can't be sent: a field is unknown, or has the wrong type.
        """
        checked = _checked(row)
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._waiting.append((checked, answer))
        if len(self._waiting) >= self._max_rows:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._max_wait_s, self._flush)
        return await answer

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        wanted = [(row, answer) for row, answer in waiting if not answer.done()]  # its caller may be gone
        if wanted:
            task = asyncio.get_running_loop().create_task(self._answer(wanted))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _answer(self, waiting: Sequence[tuple[Mapping[str, Any], "asyncio.Future[Prediction]"]]) -> None:
        answers = await self._answers([row for row, _ in waiting])
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Prediction):
                future.set_result(answer)
            else:
                future.set_exception(answer)

    async def _answers(self, rows: Rows) -> list[Prediction | Exception]:
        """The prediction or the error of each row. A refusal that a few rows cause is none of the others."""
        try:
            answers = await self._send(rows)
        except RefusedError as refusal:
            own = [_of_row(refusal, number) for number in range(len(rows))]
            if refusal.status not in _ABOUT_ROWS or len(rows) == 1 or all(error.errors for error in own):
                return [error if error.errors else refusal for error in own]
            half = len(rows) // 2
            return [*await self._answers(rows[:half]), *await self._answers(rows[half:])]
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller is to know it
            return [error] * len(rows)
        return [_error_of(answer) if isinstance(answer, Refusal) else answer for answer in answers]


def _checked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row as plain values, of the types that the router takes: it refuses a whole call otherwise."""
    if "request_id" in row:
        raise ContenderError("request_id is that of a call, which the row shares with others: leave it out")
    values: dict[str, Any] = plain({name: value for name, value in row.items() if value is not None})
    try:
        msgspec.convert(values, PredictionRow)
    except msgspec.ValidationError as error:
        raise ContenderError(f"the row can't be sent: {error}") from error
    return values


def _error_of(refusal: Refusal) -> RefusedError:
    return RefusedError(refusal.status, refusal.detail, refusal.errors, slug=refusal.type.rpartition("/")[2])


def _of_row(refusal: RefusedError, number: int) -> RefusedError:
    """What a refusal of a whole call says of one of its rows."""
    prefix = f"rows[{number}]."
    errors = [
        FieldError(error.field.removeprefix(prefix), error.message)
        for error in refusal.errors
        if error.field.startswith(prefix)
    ]
    detail = "; ".join(f"{error.field} {error.message}" for error in errors)
    return RefusedError(refusal.status, detail, errors, slug=refusal.slug, retry_after_s=refusal.retry_after_s)
