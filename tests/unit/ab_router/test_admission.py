"""Overload: calls are refused before their rows are assigned, so that no arm loses more of them than another."""

import asyncio
from collections import Counter

import pytest

from contender.contracts.ab_router import Prediction, PredictionRow
from contender.contracts.experiments import NewExperiment, VariantAllocation
from services.ab_router.domain.assignment import InForce
from shared.errors import Overloaded
from shared.journal import Journal

FITTING = 400


def variant_of(router, unit: str) -> str:
    variant = InForce([router.experiments.find("e")]).assign(PredictionRow(unit)).variant
    assert variant is not None
    return variant.name


def row(unit: str) -> PredictionRow:
    return PredictionRow(unit, {"origin": "EWR"}, {"distance": 700.0})


@pytest.fixture
async def burst(open_router, settings, tmp_path, features, inference):
    """A router with an experiment, and room for 400 rows of a model."""
    with_room = settings.model_copy(
        update={"model_queue_limit": FITTING, "version_queue_limit": FITTING // 2, "row_limit": 1000}
    )
    journal = Journal.open(tmp_path / "large", limit_bytes=64 * 1024**2)
    async with open_router(with_room, journal, features, inference) as router:
        variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
        await router.experiments.create(NewExperiment(name="e", model="late", variants=variants))
        await router.experiments.start("e")
        yield router
    journal.close()


@pytest.mark.parametrize("hanging", [{"plain"}, {"streaming"}, {"plain", "streaming"}])
async def test_a_burst_of_ten_times_what_fits_is_refused_before_it_is_assigned(burst, hanging):
    burst.inference.hanging = hanging
    burst.inference.answering.clear()
    units = [f"user-{number}" for number in range(10 * FITTING)]
    calls = [asyncio.create_task(burst.predict.rows("late", [row(unit)])) for unit in units]
    await burst.inference.reached.wait()
    while (refused := sum(call.done() and call.exception() is not None for call in calls)) < 9 * FITTING:
        await asyncio.sleep(0)
    assert not any(call.done() for call in calls[:5] if _variant(burst, units[calls.index(call)]) in hanging)
    burst.inference.answering.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} == {Overloaded}
    answered = {unit: outcome[0] for unit, outcome in zip(units, outcomes, strict=True) if isinstance(outcome, list)}
    assert len(answered) + refused == len(units)
    # The calls that came first were answered, whatever their variants: the refusals did not choose among the arms.
    assert list(answered) == units[: len(answered)]
    assert all(answer.variant == variant_of(burst, unit) for unit, answer in answered.items())
    shares = Counter(answer.variant for answer in answered.values())
    assert abs(shares["old"] - shares["new"]) < 4 * len(answered) ** 0.5
    # Accepted = logged, and nothing is on record of those that were refused.
    blocks = [block for _, _, frame in burst.frames() for block in frame.blocks]
    assert Counter(unit for block in blocks for unit in block.unit) == Counter(answered.keys())
    assert not [frame for _, _, frame in burst.frames() if frame.unanswered]


def _variant(router, unit: str) -> str:
    return {"old": "plain", "new": "streaming"}[variant_of(router, unit)]


async def test_one_model_that_hangs_leaves_room_for_another(burst):
    burst.inference.hanging = {"plain", "streaming"}
    burst.inference.answering.clear()
    calls = [asyncio.create_task(burst.predict.rows("late", [row(f"u{number}")])) for number in range(FITTING + 1)]
    await burst.inference.reached.wait()
    assert isinstance(calls[-1].exception(), Overloaded)
    (answer,) = await burst.predict.rows("delay", [PredictionRow("u", inputs={"seats": 4})])
    assert isinstance(answer, Prediction)
    burst.inference.answering.set()
    await asyncio.gather(*calls[:-1])


async def test_a_batch_that_does_not_fit_is_refused_as_a_whole(burst):
    with pytest.raises(Overloaded):
        await burst.predict.rows("late", [row(f"u{number}") for number in range(FITTING + 1)])
    assert burst.inference.asked == []
    assert len(await burst.predict.rows("late", [row(f"u{number}") for number in range(FITTING)])) == FITTING


async def test_room_is_given_back_by_calls_that_end_early(burst):
    burst.inference.answering.clear()
    calls = [asyncio.create_task(burst.predict.rows("late", [row(f"u{number}")])) for number in range(FITTING)]
    await burst.inference.reached.wait()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    burst.inference.answering.set()
    assert all(isinstance(answer, Prediction) for answer in await burst.predict.rows("late", [row("again")]))
