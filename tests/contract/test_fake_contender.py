"""FakeContender answers an application as the router does."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contender import AsyncClient, Refusal, RefusedError
from contender.contracts.ab_router import Prediction
from contender.contracts.inference_service import InputColumn
from contender.testing import FakeContender
from shared.testing import client_for
from tests.contract.applications import open_router

ROW = {"unit": "user-1", "entities": {"origin": "EWR"}, "inputs": {"distance": 700.0}}


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client of the router on which experiment `e` runs."""
    async with open_router(tmp_path) as app, client_for(app) as http:
        yield AsyncClient("http://localhost", transport=http._transport)


@pytest.fixture
async def fake(router) -> AsyncIterator[AsyncClient]:
    """A client of a FakeContender with the same model and the same experiment."""
    contender = FakeContender(version="plain")
    contender.model("late", {"distance": "float", "carrier": InputColumn("carrier", "string", default="UA")})
    seed = (await router.revision("e")).seed
    contender.experiment("late", variants={"plain": 0.5, "streaming": 0.5}, name="e", seed=seed)
    async with AsyncClient("http://localhost", transport=contender.transport) as client:
        yield client


async def outcome(client: AsyncClient, model: str, rows: list[Any], *, single: bool) -> Any:
    """What a call leads to, without what only the router can know."""
    try:
        if single:
            return [_shown(await client.predict(model, **rows[0]))]
        return [_shown(answer) for answer in await client.predict_batch(model, rows)]
    except RefusedError as error:
        return error.status, error.slug, sorted(fault.field for fault in error.errors)


def _shown(answer: Prediction | Refusal) -> Any:
    if isinstance(answer, Refusal):
        return answer.status, answer.type, [error.field for error in answer.errors]
    return answer.model, answer.version, answer.variant, answer.experiment, answer.degraded


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("late", {}),
        ("late", {"inputs": {}}),
        ("late", {"inputs": {"distance": "far"}}),
        ("late", {"inputs": {"distance": None}}),
        ("late", {"inputs": {"distance": 1e39}}),
        ("late", {"inputs": {"distance": 1.0, "weather": "fog"}}),
        ("late", {"inputs": {"distance": 1.0, "carrier": 7}}),
        ("late", {"inputs": {"distance": [1.0]}}),
        ("late", {"inputs": 7}),
        ("late", {"unit": 7}),
        ("late", {"units": "user-1"}),
        ("late", {"entities": {"origin": 1.5}}),
        ("early", {}),
    ],
)
async def test_a_row_is_answered_or_refused_alike(router, fake, model, changes, single):
    rows = [ROW | changes]
    assert await outcome(fake, model, rows, single=single) == await outcome(router, model, rows, single=single)


async def test_a_batch_is_answered_and_refused_row_by_row_alike(router, fake):
    rows = [ROW | {"unit": f"user-{number}"} for number in range(3)]
    rows[1:1] = [ROW | {"inputs": {}}]
    assert await outcome(fake, "late", rows, single=False) == await outcome(router, "late", rows, single=False)


async def test_rows_that_are_none_are_refused_alike(router, fake):
    assert await outcome(fake, "late", [], single=False) == await outcome(router, "late", [], single=False)


async def test_experiments_that_are_not_there_are_refused_alike(router, fake):
    for client in (router, fake):
        with pytest.raises(RefusedError) as refusal:
            await client.revision("none")
        assert (refusal.value.status, refusal.value.slug) == (404, "unknown-experiment")


async def test_units_get_the_same_variants(router, fake):
    for number in range(100):
        rows = [ROW | {"unit": f"user-{number}"}]
        assert await outcome(fake, "late", rows, single=True) == await outcome(router, "late", rows, single=True)


async def test_a_request_id_is_kept_alike(router, fake):
    for client in (router, fake):
        first = await client.predict("late", **ROW, request_id="r-1")
        assert await client.predict("late", **ROW, request_id="r-1") == first
        with pytest.raises(RefusedError) as refusal:
            await client.predict("late", **(ROW | {"unit": "other"}), request_id="r-1")
        assert (refusal.value.status, refusal.value.slug) == (422, "request-id-reused")
        with pytest.raises(RefusedError) as refusal:
            await client.predict_batch("late", [ROW], request_id="r-1")
        assert (refusal.value.status, refusal.value.slug) == (422, "request-id-reused")
        with pytest.raises(RefusedError) as refusal:
            await client.predict("late", **(ROW | {"inputs": {}}), request_id="r-2")
        assert await client.predict("late", **ROW, request_id="r-2")
        batch = await client.predict_batch("late", [ROW], request_id="r-3")
        assert await client.predict_batch("late", [ROW], request_id="r-3") == batch


async def test_a_request_id_that_is_too_long_or_in_a_row_is_refused_alike(router, fake):
    long = ROW | {"request_id": "r" * 201}
    assert await outcome(fake, "late", [long], single=True) == await outcome(router, "late", [long], single=True)
    rows = [ROW | {"request_id": "r"}]
    assert await outcome(fake, "late", rows, single=False) == await outcome(router, "late", rows, single=False)
