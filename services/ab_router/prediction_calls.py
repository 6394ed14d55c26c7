"""How a call for predictions is answered over HTTP: within its caller's deadline, and once for each request id."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from fastapi import Request, Response

from contender.contracts import limits, operation
from contender.contracts.ab_router import DEADLINE_HEADER, REPLAYED_HEADER, Prediction, PredictionRow, PredictionRows
from services.ab_router.deduplication import Deduplication
from services.ab_router.handlers import Predict
from services.ab_router.request_ids import IdentifiedCall
from services.ab_router.requests import FAULTS_SHOWN
from shared.errors import FieldError, InvalidField, Overloaded, ServiceError, shortened

_EVERY_CALLER = ""
"""Callers have no names yet: they share their request ids."""

_MOST_SPARED_S = 0.01
"""A tenth of a deadline, and at most this, is left for the way of the answer."""

Answers = list[Prediction | ServiceError]


@dataclass(frozen=True, slots=True)
class PredictionCall:
    """A call for predictions; `render` makes its answer, or raises a ServiceError where no row is answered."""

    model: str
    rows: Sequence[PredictionRow]
    body: PredictionRow | PredictionRows
    render: Callable[[Answers], object]


async def answer_call(request: Request, call: PredictionCall) -> object:
    """What the call is answered with; a Response where it has a request id.

    Raises:
        InvalidField: the request id, or the deadline, can't be read.
        Overloaded: there is no answer within the caller's deadline.
        ServiceError: as `Predict.rows` and `Deduplication.answer` say.
    """
    answer = _answer_once if call.body.request_id else _answer
    deadline = request.headers.get(DEADLINE_HEADER)
    if deadline is None:
        return await answer(request, call)
    deadline_s = _seconds(deadline)
    try:
        async with asyncio.timeout(deadline_s - min(_MOST_SPARED_S, deadline_s / 10)):
            return await answer(request, call)
    except TimeoutError as error:  # rows of others in the same micro-batch go on
        raise Overloaded(f"no answer within the {deadline} ms of {DEADLINE_HEADER}") from error


def identified_rows(body: PredictionRows) -> list[PredictionRow]:
    """The rows of a batch, each with the batch's request id, which the record has.

    Raises:
        InvalidField: a row has a request id of its own.
    """
    errors = [
        FieldError(f"rows[{index}].request_id", "belongs beside rows: a batch has one request id")
        for index, row in enumerate(body.rows)
        if row.request_id
    ]
    if errors:
        raise InvalidField(f"{errors[0].field} {errors[0].message}", errors[:FAULTS_SHOWN])
    if not body.request_id:
        return body.rows
    return [msgspec.structs.replace(row, request_id=body.request_id) for row in body.rows]


async def _answer(request: Request, call: PredictionCall) -> object:
    handler: Predict = request.state.predict
    return call.render(await handler.rows(call.model, call.rows))


async def _answer_once(request: Request, call: PredictionCall) -> Response:
    if len(call.body.request_id) > limits.REQUEST_ID_CHARACTERS:
        raise InvalidField.at("request_id", f"is longer than {limits.REQUEST_ID_CHARACTERS} characters")
    handler: Predict = request.state.predict
    deduplication: Deduplication = request.state.deduplication
    kind = b"batch " if isinstance(call.body, PredictionRows) else b"single "
    payload = kind + msgspec.json.encode(call.body, order="deterministic")

    def encode(answers: Answers, is_deduplicated: bool) -> bytes:  # noqa: FBT001 - the other half is `deduplicated`
        return msgspec.json.encode(call.render(answers if is_deduplicated else _undeduplicated(answers)))

    answer = await deduplication.answer(
        IdentifiedCall(_EVERY_CALLER, call.model, call.body.request_id, payload),
        lambda: handler.rows(call.model, call.rows),
        encode,
    )
    return Response(
        answer.body, headers={REPLAYED_HEADER: "true"} if answer.is_replayed else None, media_type=operation.JSON
    )


def _undeduplicated(answers: Answers) -> Answers:
    return [
        msgspec.structs.replace(answer, deduplicated=False) if isinstance(answer, Prediction) else answer
        for answer in answers
    ]


def _seconds(deadline: str) -> float:
    is_number = deadline.isascii() and deadline.isdigit() and len(deadline) <= len(str(limits.DEADLINE_MS))
    if not is_number or not int(deadline):
        expected = f"a whole number of milliseconds from 1 to {limits.DEADLINE_MS}"
        raise InvalidField.at(DEADLINE_HEADER, f"is {shortened(deadline)!r}, and not {expected}")
    return int(deadline) / 1000
