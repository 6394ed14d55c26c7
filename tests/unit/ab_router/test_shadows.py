"""Answered rows are scored by the other variants, after their answer and without harm to it."""

import asyncio
import os
import random
from errno import EIO

import msgspec
import pytest
from prometheus_client import REGISTRY

from contender.contracts.ab_router import Prediction, PredictionRow
from contender.contracts.experiments import NewExperiment, VariantAllocation
from services.ab_router.requests import size_bytes
from shared.events import PredictionFrame, ShadowBlock
from shared.ids import PredictionId
from shared.journal import Journal

PAIRED = "independent of the answer"
VARIANTS = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]


async def run(router, **changes: object) -> None:
    new = NewExperiment(name="e", model="late", variants=VARIANTS, outcome=PAIRED, clock="event")
    await router.experiments.create(msgspec.structs.replace(new, **changes))
    await router.experiments.start("e")


def row(router, variant: str, distance: float = 700.0) -> PredictionRow:
    return PredictionRow(router.unit_of(variant), {"origin": "EWR"}, {"distance": distance})


async def ask(router, *variants: str) -> list[Prediction]:
    return await router.predict.rows("late", [row(router, variant) for variant in variants])


def shadow_frames(router) -> list[tuple[str, int, PredictionFrame]]:
    return [entry for entry in router.frames() if entry[2].shadows]


async def shadows(router) -> list[ShadowBlock]:
    """The blocks of shadow scores, once all of them are written."""
    await router.predict.noted()
    return [block for _, _, frame in shadow_frames(router) for block in frame.shadows]


def counted(variant: str, result: str) -> float:
    labels = {"model": "late", "variant": variant, "result": result}
    return REGISTRY.get_sample_value("contender_shadow_rows_total", labels) or 0.0


async def test_the_champion_scores_a_challengers_rows_and_every_challenger_the_champions(router):
    variants = [*VARIANTS[:1], VariantAllocation("new", "streaming", 0.25), VariantAllocation("twin", "plain", 0.25)]
    await run(router, variants=variants)
    before = counted("old", "written")
    old, new, twin = await ask(router, "old", "new", "twin")
    blocks = {(block.row[0], block.variant): block for block in await shadows(router)}
    ids = [PredictionId.parse(answer.prediction_id) for answer in (old, new, twin)]
    assert {block.frame_id for block in blocks.values()} == {ids[0].frame_id}
    by_old = [block for block in blocks.values() if block.variant == "old"]
    assert sorted(number for block in by_old for number in block.row) == sorted([ids[1].row, ids[2].row])
    assert [(block.version, set(block.score), set(block.label)) for block in by_old] == [("plain", {0.2}, {"on time"})]
    by_new, by_twin = blocks[ids[0].row, "new"], blocks[ids[0].row, "twin"]
    assert (by_new.version, by_new.row, by_new.score, by_new.label) == ("streaming", [ids[0].row], [0.7], ["late"])
    assert (by_twin.version, by_twin.row, by_twin.score) == ("plain", [ids[0].row], [0.2])
    assert len(blocks) == 3
    assert {(block.experiment, block.epoch, block.champion) for block in blocks.values()} == {("e", 1, "old")}
    assert counted("old", "written") == before + 2


async def test_scores_in_shadow_follow_their_predictions_in_a_frame_of_the_same_partition(router):
    await run(router)
    answers = [answer for _ in range(8) for answer in await ask(router, "old", "new")]
    ids = {PredictionId.parse(answer.prediction_id) for answer in answers}
    await router.predict.noted()
    order = [frame_id for frame_id, _, _ in router.frames()]
    scored = {
        (block.frame_id, shard, number)
        for _, shard, frame in shadow_frames(router)
        for block in frame.shadows
        for number in block.row
    }
    assert scored == {(known.frame_id, known.shard, known.row) for known in ids}
    for frame_id, _, frame in shadow_frames(router):
        assert frame.blocks == []
        assert all(order.index(block.frame_id) < order.index(frame_id) for block in frame.shadows)


async def test_an_answer_does_not_wait_for_its_shadow(router):
    await run(router)
    router.inference.hanging = {"streaming"}
    router.inference.answering.clear()
    (answer,) = await ask(router, "old")
    assert answer.outputs.score == 0.2
    assert shadow_frames(router) == []
    router.inference.answering.set()
    assert len(await shadows(router)) == 1


async def test_a_router_that_ends_writes_the_shadows_of_what_it_answered(
    open_router, settings, journal, features, inference
):
    async with open_router(settings, journal, features, inference) as router:
        await run(router)
        await ask(router, "old", "new")
    assert sum(len(block) for _, _, frame in shadow_frames(router) for block in frame.shadows) == 2


async def test_without_the_declaration_nothing_is_scored_in_shadow(router):
    await run(router, outcome="may depend on the answer")
    await ask(router, "old", "new")
    assert await shadows(router) == []
    assert len(router.inference.asked) == 2


async def test_a_share_of_the_rows_is_sampled(router):
    await run(router, shadow_share=0.25)
    router.draw.source = random.Random(3).random
    for _ in range(200):
        await ask(router, "old", "new", "old", "new", "old")
    sampled = sum(map(len, await shadows(router))) / 1_000
    assert sampled == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 1_000) ** 0.5)


async def test_a_row_that_another_variant_answered_has_no_shadow(router):
    await run(router, fallback_value=0.5)
    router.inference.failing = {"streaming"}
    (answer,) = await ask(router, "new")
    assert router.kept(answer.prediction_id)[0].served_variant == "old"
    router.inference.failing = {"plain", "streaming"}
    (answer,) = await ask(router, "old")
    assert router.kept(answer.prediction_id)[0].served_variant is None
    assert await shadows(router) == []


async def test_a_row_whose_label_does_not_count_has_no_shadow(router):
    await run(router, labels_seen_if="score > 0.5", exploration_share=0.25)
    draws = iter([0.9, 0.1, 0.1])  # the first row of the champion is not explored; the second is, and is sampled
    router.draw.source = draws.__next__
    first, second = await ask(router, "old", "old")
    assert (first.explore, second.explore) == (False, True)
    (block,) = await shadows(router)
    assert block.row == [PredictionId.parse(second.prediction_id).row]


async def test_rows_that_the_other_variant_rejects_or_does_not_answer_are_left_out_and_counted(router):
    await run(router)
    router.inference.refusing = {"streaming": {1.0}}
    before = counted("new", "rejected"), counted("new", "unanswered")
    answers = await router.predict.rows("late", [row(router, "old", distance) for distance in (1.0, 2.0)])
    (block,) = await shadows(router)
    assert block.row == [PredictionId.parse(answers[1].prediction_id).row]
    assert (counted("new", "rejected"), counted("new", "unanswered")) == (before[0] + 1, before[1])
    router.inference.failing = {"streaming"}
    await ask(router, "old")
    assert len(await shadows(router)) == 1
    assert counted("new", "unanswered") == before[1] + 1


async def test_a_version_that_is_late_in_shadow_is_given_up(open_router, settings, journal, features, inference):
    async with open_router(settings.model_copy(update={"deadline_s": 0.05}), journal, features, inference) as router:
        await run(router)
        inference.hanging = {"streaming"}
        inference.answering.clear()
        before = counted("new", "unanswered")
        await ask(router, "old")
        async with asyncio.timeout(60):
            while counted("new", "unanswered") == before:
                await asyncio.sleep(0.001)
        inference.answering.set()
        assert await shadows(router) == []


async def test_a_version_and_features_that_fail_in_shadow_fail_no_answer(router):
    await run(router)
    router.inference.failing = {"streaming"}
    for _ in range(10):
        await ask(router, "old")
        await router.predict.noted()
    router.inference.failing = set()
    (answer,) = await ask(router, "new")
    assert (answer.version, answer.degraded) == ("streaming", False)
    router.features.down = True
    for _ in range(10):
        await ask(router, "old")
        await router.predict.noted()
    router.features.down = False
    (answer,) = await ask(router, "new")
    assert (answer.version, answer.degraded) == ("streaming", False)


async def test_rows_that_a_breaker_turns_away_count_as_slow(router):
    await run(router)
    router.inference.failing = {"streaming"}
    for _ in range(20):
        await ask(router, "old")
        await router.predict.noted()
    slow_s, rows = (await router.traffic.day("late")).latency_s("streaming", 0.1)
    assert rows == 20
    assert slow_s > 0.8 * router.settings.deadline_s


async def test_a_batch_that_fails_unforeseen_gives_up_its_room_and_those_behind_it_are_scored(
    open_router, settings, journal, features, inference
):
    async with open_router(
        settings.model_copy(update={"shadow_limit": 600, "row_limit": 600}), journal, features, inference
    ) as router:
        await run(router)
        predict, fails = inference.predict, [True]

        async def predict_or_fail(model: str, version: str, inputs: dict[str, list[object]]) -> object:
            if version == "streaming" and fails:
                raise RuntimeError(fails.pop())
            return await predict(model, version, inputs)

        inference.predict = predict_or_fail
        for _ in range(2):
            await ask(router, *["old"] * 600)
            await router.predict.noted()
        assert sum(map(len, await shadows(router))) == 600 - 256 + 600


@pytest.fixture(params=[{"shadow_limit": 2}, {"shadow_limit_bytes": 1024}])
def limits(request, settings):
    return settings.model_copy(update=request.param)


async def test_rows_beyond_the_limit_are_dropped_and_counted(open_router, limits, journal, features, inference):
    async with open_router(limits, journal, features, inference) as router:
        await run(router)
        inference.hanging = {"streaming"}
        inference.answering.clear()
        before = counted("new", "dropped")
        rows = [msgspec.structs.replace(row(router, "old"), entities={"origin": "ü" * 50}) for _ in range(5)]
        answers = await router.predict.rows("late", rows)
        assert [answer.outputs.score for answer in answers] == [0.2] * 5
        dropped = counted("new", "dropped") - before
        inference.answering.set()
        assert dropped == 5 - min(limits.shadow_limit, limits.shadow_limit_bytes // size_bytes(rows[0])) > 0
        assert sum(map(len, await shadows(router))) == 5 - dropped
        await ask(router, "old")
        assert sum(map(len, await shadows(router))) == 6 - dropped


async def test_a_journal_that_is_half_full_keeps_its_room_for_answers(
    open_router, settings, tmp_path, features, inference
):
    journal = Journal.open(tmp_path / "small", limit_bytes=100_000)
    async with open_router(settings, journal, features, inference) as router:
        await run(router)
        before = counted("new", "dropped")
        journal.append("predictions", 0, None, [], b"x" * 51_000)
        (answer,) = await ask(router, "old")
        assert answer.outputs.score == 0.2
        await router.predict.noted()
        assert counted("new", "dropped") == before + 1
    journal.close()


def failing_disk(_: int) -> None:
    raise OSError(EIO, os.strerror(EIO))


async def test_a_disk_that_fails_in_shadow_is_counted(router):
    await run(router)
    before = counted("new", "dropped")
    router.inference.hanging = {"streaming"}
    router.inference.answering.clear()
    await ask(router, "old")
    working, router.journal.sync_file = router.journal.sync_file, failing_disk
    router.inference.answering.set()
    await router.predict.noted()
    router.journal.sync_file = working
    assert counted("new", "dropped") == before + 1


async def test_rows_of_many_calls_are_scored_in_shadow_together(router):
    await run(router)
    for _ in range(5):
        await ask(router, "old")
    asked = len(router.inference.asked)
    await router.predict.noted()
    assert len(router.inference.asked) == asked + 1
    assert len(router.inference.asked[-1][1]["distance"]) == 5


async def test_features_that_were_served_for_the_answer_are_not_asked_for_again(router):
    streaming = next(version for version in router.inference.registered if version.version == "streaming")
    router.inference.registered.append(msgspec.structs.replace(streaming, version="twin"))
    await router.catalog.refresh()
    variants = [VariantAllocation("old", "streaming", 0.5), VariantAllocation("new", "twin", 0.5)]
    await run(router, variants=variants)
    await ask(router, "old")
    await router.predict.noted()
    assert [version for version, _ in router.inference.asked] == ["streaming", "twin"]
    assert router.inference.asked[0][1] == router.inference.asked[1][1]
    assert len(router.features.asked) == 1


async def test_features_that_only_the_shadow_needs_are_asked_for(router):
    await run(router)
    await ask(router, "old")
    await router.predict.noted()
    assert len(router.features.asked) == 1
