"""Which labels are said to be seen: those that the answer lets see, and a share of the others."""

import random

import msgspec
import pytest

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import NewExperiment, VariantAllocation

SHARE = 0.25
VARIANTS = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]


async def run(router, condition: str, **changes: object) -> None:
    """Start an experiment whose labels are seen on a condition: `plain` answers 0.2, and `streaming` 0.7."""
    new = NewExperiment(
        name="e", model="late", variants=VARIANTS, labels_seen_if=condition, exploration_share=SHARE, clock="event"
    )
    await router.experiments.create(msgspec.structs.replace(new, **changes))
    await router.experiments.start("e")


async def ask(router, variant: str | None, distance: float = 700.0) -> tuple[bool, list[float]]:
    """Whether a row of a variant is to be explored, and the probabilities that its block has on record."""
    row = PredictionRow(router.unit_of(variant), {"origin": "EWR"}, {"distance": distance})
    (answer,) = await router.predict.rows("late", [row])
    return answer.explore, router.kept(answer.prediction_id)[0].label_probability


@pytest.mark.parametrize(
    ("drawn", "expected"), [(0.0, (True, [SHARE])), (0.2499, (True, [SHARE])), (0.25, (False, [0.0]))]
)
async def test_where_the_condition_is_false_a_share_of_the_rows_is_explored(router, drawn, expected):
    await run(router, "score < 0.3")
    router.draw.number = drawn
    assert await ask(router, "new") == expected
    assert await ask(router, "old") == (False, [])


async def test_the_condition_may_be_about_the_label_and_the_inputs(router):
    await run(router, "label == 'on time' or distance > 1000")
    assert await ask(router, "old") == (False, [])
    assert await ask(router, "new", distance=2000.0) == (False, [])
    assert await ask(router, "new", distance=500.0) == (True, [SHARE])


async def test_the_probabilities_of_a_block_are_by_row(router):
    await run(router, "distance > 1000")
    router.draw.source = iter([0.1, 0.9]).__next__
    unit = router.unit_of("old")
    rows = [PredictionRow(unit, {"origin": "EWR"}, {"distance": distance}) for distance in (2000.0, 1.0, 2.0)]
    answers = await router.predict.rows("late", rows)
    assert [answer.explore for answer in answers] == [False, True, False]
    assert router.kept(answers[0].prediction_id)[0].label_probability == [1.0, SHARE, 0.0]


async def test_a_condition_that_can_not_be_computed_is_false(router):
    await run(router, "label > 3")
    assert await ask(router, "old") == (True, [SHARE])


async def test_a_fallback_value_goes_by_the_same_rule(router):
    await run(router, "score < 0.3", fallback_value=0.6)
    router.inference.failing = {"plain", "streaming"}
    assert await ask(router, "new") == (True, [SHARE])
    router.draw.number = 0.9
    assert await ask(router, "old") == (False, [0.0])


async def test_a_row_in_no_experiment_and_one_whose_labels_are_always_seen_are_not_explored(router):
    await run(router, "score < 0.1", coverage=0.2)
    assert await ask(router, None) == (False, [])
    await router.experiments.stop("e")
    await router.experiments.create(NewExperiment(name="f", model="late", variants=VARIANTS, clock="event"))
    await router.experiments.start("f")
    assert await ask(router, "new") == (False, [])


async def test_rows_are_explored_as_often_as_declared(router):
    await run(router, "score < 0.3")
    router.draw.source = random.Random(7).random
    rows = [PredictionRow(router.unit_of("new"), {"origin": "EWR"}, {"distance": 700.0})] * 5
    answers = [answer for _ in range(400) for answer in await router.predict.rows("late", rows)]
    explored = sum(answer.explore for answer in answers) / len(answers)
    assert explored == pytest.approx(SHARE, abs=4 * (SHARE * (1 - SHARE) / len(answers)) ** 0.5)
