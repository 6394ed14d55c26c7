"""Many predictions at once are few calls, and each caller gets what is its own."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from contender import ContenderError, Refusal, RefusedError, UnreachableError
from contender.batching import Batching
from contender.contracts.ab_router import PREDICT, Prediction
from contender.contracts.problems import INVALID_FIELD, FieldError, details

PREDICTION = msgspec.convert(PREDICT.answer_example, Prediction)


class Router:
    """Echoes units as prediction ids. Refuses units that begin with `bad`, and calls with one that begins `whole`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.error: Exception | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    async def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction | Refusal]:
        units = [row["unit"] for row in rows]
        self.calls.append(units)
        await self.answering.wait()
        if self.error:
            raise self.error
        bad = [number for number, unit in enumerate(units) if unit.startswith("bad")]
        if any(unit.startswith("whole") for unit in units):
            raise RefusedError(413, "a row is too large", slug="too-large")
        if len(bad) == len(units):  # at most twenty of them are named
            errors = [FieldError(f"rows[{number}].inputs.age", "is missing") for number in bad[:20]]
            raise RefusedError(422, "all are refused", errors, slug="invalid-field")
        refusal = details(INVALID_FIELD, "inputs.age is missing", [FieldError("inputs.age", "is missing")])
        return [
            refusal if number in bad else msgspec.structs.replace(PREDICTION, prediction_id=unit)
            for number, unit in enumerate(units)
        ]


async def ask(batching: Batching, *units: str) -> list[Any]:
    return await asyncio.gather(*(batching.predict(unit=unit) for unit in units), return_exceptions=True)


async def test_rows_that_come_together_share_a_call_and_each_gets_its_own_answer():
    router = Router()
    async with Batching(router, max_rows=64, max_wait_s=0.01) as batching:
        answers = await ask(batching, *(f"u-{number}" for number in range(20)))
    assert [answer.prediction_id for answer in answers] == [f"u-{number}" for number in range(20)]
    assert router.calls == [[f"u-{number}" for number in range(20)]]


async def test_a_full_call_does_not_wait():
    router = Router()
    async with Batching(router, max_rows=3, max_wait_s=3600) as batching:
        await ask(batching, *"abcdef")
    assert router.calls == [list("abc"), list("def")]


async def test_leaving_sends_what_waits():
    router = Router()
    async with Batching(router, max_rows=3, max_wait_s=3600) as batching:
        asked = asyncio.create_task(ask(batching, "a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    (answer,) = await asked
    assert answer.prediction_id == "a"


async def test_a_refused_row_is_an_error_of_its_own_caller_alone():
    router = Router()
    async with Batching(router, max_rows=3, max_wait_s=1) as batching:
        first, refused, last = await ask(batching, "a", "bad", "c")
    assert (first.prediction_id, last.prediction_id) == ("a", "c")
    assert isinstance(refused, RefusedError)
    assert (refused.status, refused.slug, str(refused)) == (422, "invalid-field", "inputs.age is missing")
    assert refused.errors == [FieldError("inputs.age", "is missing")]


@pytest.mark.parametrize("rows", [1, 3, 50])
async def test_rows_that_are_all_refused_have_their_own_faults(rows):
    router = Router()
    async with Batching(router, max_rows=rows, max_wait_s=1) as batching:
        errors = await ask(batching, *(f"bad-{number}" for number in range(rows)))
    assert {(error.status, str(error)) for error in errors} == {(422, "inputs.age is missing")}
    assert {error.errors[0].field for error in errors} == {"inputs.age"}
    assert len(router.calls) <= 7


async def test_a_row_that_refuses_the_whole_call_keeps_no_other_from_its_answer():
    router = Router()
    async with Batching(router, max_rows=8, max_wait_s=1) as batching:
        answers = await ask(batching, "a", "b", "c", "whole", "e", "f", "g", "h")
    assert isinstance(answers.pop(3), RefusedError)
    assert [answer.prediction_id for answer in answers] == list("abcefgh")


@pytest.mark.parametrize(
    "error", [UnreachableError("the router does not answer"), RefusedError(503, "busy"), ZeroDivisionError()]
)
async def test_a_call_that_fails_fails_for_each_of_its_rows_and_is_made_once(error):
    router = Router()
    router.error = error
    async with Batching(router, max_rows=3, max_wait_s=1) as batching:
        errors = await ask(batching, *"abc")
        assert [(type(each), str(each)) for each in errors] == [(type(error), str(error))] * 3
        assert len(router.calls) == 1
        router.error = None
        (answer, _, _) = await ask(batching, *"abc")
    assert answer.prediction_id == "a"


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"inputs": {"age": float("nan")}}, "inputs.age is nan"),
        ({"inputs": {"age": object()}}, "inputs.age has the type object"),
        ({"inputs": {"age": [1, 2]}}, "inputs"),
        ({"entities": {"customer": 1.5}}, "entities"),
        ({"inputz": {}}, "inputz"),
        ({"request_id": "r"}, "request_id"),
    ],
)
async def test_a_row_that_can_not_be_sent_is_never_with_others(row, named):
    router = Router()
    async with Batching(router, max_rows=2, max_wait_s=0.01) as batching:
        answer, error = await asyncio.gather(
            batching.predict(unit="a", inputs={"age": np.float64(3.5)}, entities=None),
            batching.predict(unit="b", **row),
            return_exceptions=True,
        )
    assert isinstance(error, ContenderError)
    assert named in str(error)
    assert answer.prediction_id == "a"
    assert router.calls == [["a"]]


async def test_a_caller_that_goes_takes_nobodys_answer_with_it():
    router = Router()
    router.answering.clear()
    async with Batching(router, max_rows=2, max_wait_s=1) as batching:
        gone, stays = (asyncio.create_task(batching.predict(unit=unit)) for unit in ("gone", "stays"))
        while not router.calls:
            await asyncio.sleep(0)
        gone.cancel()
        router.answering.set()
        assert (await stays).prediction_id == "stays"
    assert gone.cancelled()


async def test_a_row_whose_caller_is_gone_before_the_call_is_not_sent():
    router = Router()
    async with Batching(router, max_rows=2, max_wait_s=0.001) as batching:
        gone = asyncio.create_task(batching.predict(unit="gone"))
        await asyncio.sleep(0)
        gone.cancel()
        (answer,) = await ask(batching, "stays")
    assert (answer.prediction_id, router.calls) == ("stays", [["stays"]])


async def test_a_call_takes_at_least_one_row():
    with pytest.raises(ContenderError, match="max_rows is 0"):
        Batching(Router(), max_rows=0, max_wait_s=1)
