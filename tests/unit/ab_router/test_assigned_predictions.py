"""What a row's assignment does to its answer and to its record, and which rows count in no results."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from time import perf_counter

import msgspec
import pytest

from contender.contracts.ab_router import Prediction, PredictionRow
from contender.contracts.experiments import (
    ExperimentRevision,
    Namespace,
    NewExperiment,
    TargetingRule,
    VariantAllocation,
)
from embedded.ports import free_ports
from embedded.valkey import Valkey
from services.ab_router.domain.assignment import FirstAssignment, UnitKey, stopped_lately
from services.ab_router.errors import ModelUnavailableError
from services.ab_router.main import _forgetting
from services.ab_router.settings import RouterSettings
from services.ab_router.stored_assignments import RedisAssignments
from shared.errors import InvalidField

HALVES = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
TENTH = [VariantAllocation("old", "plain", 0.9), VariantAllocation("new", "streaming", 0.1)]
NEW = NewExperiment(name="e", model="late", variants=HALVES, window_s=60.0, clock="event")


def row(unit: str = "user-1", **changes: object) -> PredictionRow:
    return msgspec.structs.replace(PredictionRow(unit, {"origin": "EWR"}, {"distance": 700.0}), **changes)


@pytest.fixture
def settings(settings) -> RouterSettings:
    return settings.model_copy(update={"row_limit": 2_000, "breaker_rest_s": 0.001})


async def run(router, **changes: object) -> ExperimentRevision:
    """A running experiment, put into the store as it is."""
    name = changes.get("name", "e")
    await router.experiments.create(msgspec.structs.replace(NEW, name=name))
    running = {"revision": 2, "epoch": 1, "status": "running", "started_at": 1.0, **changes}
    await router.store.add(msgspec.structs.replace(router.experiments.find(name), **running))
    await router.experiments.refresh()
    return router.experiments.find(name)


async def change(router, **changes: object) -> ExperimentRevision:
    """The next revision of experiment `e`."""
    last = router.experiments.find("e")
    await router.store.add(msgspec.structs.replace(last, revision=last.revision + 1, **changes))
    await router.experiments.refresh()
    return router.experiments.find("e")


async def predicted(router, *rows: PredictionRow) -> list[Prediction]:
    answers = await router.predict.rows("late", rows)
    assert all(isinstance(answer, Prediction) for answer in answers)
    return answers


async def written(router, count: int) -> None:
    async with asyncio.timeout(30):
        while len(router.assignments.assignments) < count:
            await asyncio.sleep(0.001)


async def test_an_answer_says_why_in_which_epoch_and_with_which_probability(router):
    experiment = await run(router, coverage=0.8)
    inside, outside = await predicted(router, row(router.unit_of("new")), row(router.unit_of(None)))
    assert (inside.reason, inside.experiment, inside.variant) == ("split", "e", "new")
    assert (inside.revision, inside.epoch, inside.share, inside.probability) == (experiment.revision, 1, 0.4, 0.4)
    assert (outside.reason, outside.experiment, outside.variant, outside.version) == (
        "outside coverage",
        None,
        None,
        "plain",
    )
    assert (outside.revision, outside.epoch, outside.share, outside.probability) == (0, 0, None, None)
    assert not inside.excluded
    assert not outside.excluded


async def test_a_testers_rows_are_answered_by_the_forced_variant_and_count_nowhere(router):
    experiment = await run(router, forced={"tester": "new"}, labels_seen_if="score > 2", exploration_share=0.5)
    (answer,) = await predicted(router, row("tester"))
    assert (answer.reason, answer.experiment, answer.variant, answer.version) == ("forced", "e", "new", "streaming")
    assert (answer.excluded, answer.probability, answer.explore) == (True, None, False)
    block, _ = router.kept(answer.prediction_id)
    assert (block.experiment, block.excluded_from, block.exclusion) == (None, "e", "forced")
    assert (block.variant, block.served_variant, block.revision) == ("new", "new", experiment.revision)
    assert (block.assignment_probability, block.metric, block.segments, block.window_s) == (1.0, "", [], 0.0)
    assert router.assignments.assignments == {}


async def test_the_champion_answers_for_a_forced_variant_that_fails_and_nothing_is_counted_as_lost(router):
    await run(router, forced={"tester": "new"})
    router.inference.failing = {"streaming"}
    (answer,) = await predicted(router, row("tester"))
    assert (answer.variant, answer.version, answer.excluded) == ("new", "plain", True)
    router.inference.failing = {"streaming", "plain"}
    with pytest.raises(ModelUnavailableError):
        await router.predict.rows("late", [row("tester")])
    router.inference.failing = set()
    router.inference.refusing = {"streaming": {1.0}, "plain": {1.0}}
    (refused,) = await router.predict.rows("late", [row("tester", inputs={"distance": 1.0})])
    assert isinstance(refused, InvalidField)
    await router.predict.noted()
    assert [frame.unanswered for _, _, frame in router.frames()] == [[]]


async def test_forced_rows_are_not_scored_in_shadow(router):
    await run(router, forced={"tester": "new"}, outcome="independent of the answer")
    (forced, split) = await predicted(router, row("tester"), row(router.unit_of("new")))
    await router.predict.noted()
    shadows = [shadow for _, _, frame in router.frames() for shadow in frame.shadows]
    assert sum(map(len, shadows)) == 1
    assert {shadow.variant for shadow in shadows} == {"old"}
    assert forced.excluded
    assert not split.excluded


async def test_while_an_experiment_is_paused_the_champion_answers_and_no_row_counts(router):
    await run(router)
    await change(router, status="paused")
    answers = await predicted(router, *(row(f"user-{at}") for at in range(20)))
    assert {(each.reason, each.version, each.experiment, each.variant) for each in answers} == {
        ("paused", "plain", None, None)
    }
    block, _ = router.kept(answers[0].prediction_id)
    assert (block.experiment, block.variant, block.excluded_from) == (None, None, "")
    await change(router, status="decided")
    (again,) = await predicted(router, row(router.unit_of("new")))
    assert (again.reason, again.variant) == ("split", "new")


async def test_a_row_without_a_unit_is_refused_alone_while_an_experiment_assigns_by_unit(router):
    (before,) = await predicted(router, row(""))
    assert (before.reason, before.version) == ("no experiment", "plain")
    block, at = router.kept(before.prediction_id)
    assert (block.unit[at], block.experiment) == ("", None)
    await run(router)
    refused, answered = await router.predict.rows("late", [row(""), row("user-1")])
    assert isinstance(refused, InvalidField)
    assert [error.field for error in refused.errors] == ["unit"]
    assert "experiment e assigns by unit" in refused.detail
    assert answered.experiment == "e"


async def test_targeting_does_not_look_at_a_context_that_is_refused(router):
    """A regular expression takes 3 ms for the longest text that is taken, and seconds for one of a few megabytes."""
    await run(router, targeting=[TargetingRule("plan", matches="(a|b)+")])
    rows = [row("", context={"plan": "a" * 5_000}), row("", context={"plan": "a"})]
    refused = await router.predict.rows("late", rows)
    assert [[error.field for error in refusal.errors] for refusal in refused] == [["context.plan"], ["unit"]]


async def test_the_champion_answers_rows_without_a_unit_where_the_experiment_says_so(router):
    await run(router, unit_missing="champion")
    (answer,) = await predicted(router, row(""))
    assert (answer.reason, answer.version, answer.experiment, answer.variant) == ("no unit", "plain", None, None)
    block, at = router.kept(answer.prediction_id)
    assert (block.unit[at], block.experiment, block.excluded_from) == ("", None, "")


async def test_targeting_holdout_and_namespaces_let_the_champion_answer(router):
    await run(router, targeting=[TargetingRule("country", equals="NL")])
    dutch, other = await predicted(router, row(context={"country": "NL"}), row(context={"country": "US"}))
    assert (dutch.reason, other.reason, other.experiment) == ("split", "not targeted", None)
    await change(router, targeting=[], namespace=Namespace("page", 0.0, 0.0))
    (answer,) = await predicted(router, row())
    assert (answer.reason, answer.experiment) == ("other namespace", None)
    await change(router, namespace=None, holdout=0.5)
    answers = await predicted(router, *(row(f"user-{at}") for at in range(50)))
    assert {each.reason for each in answers} == {"holdout", "split"}
    assert {each.experiment for each in answers if each.reason == "holdout"} == {None}


async def test_experiments_on_one_model_share_its_units_by_parts_of_a_namespace(router):
    first = await run(router, namespace=Namespace("page", 0.0, 0.5), started_at=1.0)
    second = await run(router, name="f", namespace=Namespace("page", 0.5, 1.0), started_at=2.0, seed="other")
    assert router.experiments.in_force("late") == (first, second)
    answers = await predicted(router, *(row(f"user-{at}") for at in range(200)))
    counts = Counter((answer.experiment, answer.variant) for answer in answers)
    assert set(counts) == {(name, variant) for name in "ef" for variant in ("old", "new")}
    for answer in answers:
        block, _ = router.kept(answer.prediction_id)
        assert (block.experiment, block.variant) == (answer.experiment, answer.variant)


async def test_a_refusal_depends_on_all_experiments_and_not_on_the_one_that_a_row_is_in(router):
    await run(router, namespace=Namespace("page", 0.0, 0.0))
    (refused,) = await router.predict.rows("late", [row(entities={})])
    assert [error.field for error in refused.errors] == ["entities.origin"]


async def test_an_experiment_in_shadow_has_the_champion_answer_and_the_others_score(router):
    variants = [VariantAllocation("old", "plain", 1.0), VariantAllocation("new", "streaming", 0.0)]
    await run(router, variants=variants, shadow=True)
    answers = await predicted(router, *(row(f"user-{at}") for at in range(20)))
    assert {(each.variant, each.version, each.reason, each.share) for each in answers} == {
        ("old", "plain", "split", 1.0)
    }
    await router.predict.noted()
    shadows = [shadow for _, _, frame in router.frames() for shadow in frame.shadows]
    assert {(shadow.champion, shadow.variant, shadow.epoch) for shadow in shadows} == {("old", "new", 1)}
    assert sum(map(len, shadows)) == 20
    assert router.assignments.assignments == {}


async def test_the_callers_ids_are_in_the_record_where_any_row_has_one(router):
    with_id, without = await predicted(router, row("a", request_id="call-1"), row("b"))
    block, at = router.kept(with_id.prediction_id)
    assert block.request_id[at] == "call-1"
    other, at = router.kept(without.prediction_id)
    assert other.request_id[at] == ""
    (alone,) = await predicted(router, row("c"))
    assert router.kept(alone.prediction_id)[0].request_id == []


# Weights change while units are in


async def test_from_a_tenth_to_a_half_nobody_moves_who_is_in(router):
    await run(router, variants=TENTH)
    units = [f"user-{at}" for at in range(1_000)]
    before = await predicted(router, *map(row, units))
    await written(router, 1_000)
    await change(router, variants=HALVES, epoch=2, sticky=True)
    fresh = [f"late-{at}" for at in range(500)]
    after = await predicted(router, *map(row, units + fresh))
    assert [answer.variant for answer in after[:1_000]] == [answer.variant for answer in before]
    assert {(each.epoch, each.variant, each.probability, each.share) for each in after} == {
        (1, "old", 0.9, 0.5),
        (1, "new", 0.1, 0.5),
        (2, "old", 0.5, 0.5),
        (2, "new", 0.5, 0.5),
    }
    for answer in after[::50]:
        block, _ = router.kept(answer.prediction_id)
        assert (block.experiment, block.revision, block.epoch) == ("e", answer.revision, answer.epoch)
        assert block.assignment_probability == answer.probability
    await written(router, 1_500)
    other_weights = [VariantAllocation("old", "plain", 0.2), VariantAllocation("new", "streaming", 0.8)]
    await change(router, variants=other_weights, epoch=3)
    later = await predicted(router, *map(row, units + fresh))
    assert [(each.variant, each.epoch) for each in later] == [(each.variant, each.epoch) for each in after]


async def test_units_are_read_in_one_call_and_only_where_the_allocation_has_changed(router):
    await run(router, variants=TENTH)
    await predicted(router, *(row(f"user-{at}") for at in range(100)))
    assert router.assignments.reads == 0
    await change(router, variants=HALVES, epoch=2, sticky=True)
    await predicted(router, *(row(f"other-{at}") for at in range(100)))
    assert router.assignments.reads == 1


async def test_units_that_can_not_be_read_get_the_champion_and_do_not_count(router):
    await run(router, variants=HALVES, epoch=2, sticky=True)
    router.assignments.assignments = {UnitKey("e", "user-1"): FirstAssignment("new", 1, 0.1)}
    router.assignments.failing = True
    answers = await predicted(router, *(row(f"user-{at}") for at in range(20)))
    assert {(each.reason, each.variant, each.version, each.excluded) for each in answers} == {
        ("assignment unreadable", "old", "plain", True)
    }
    block, _ = router.kept(answers[0].prediction_id)
    assert (block.experiment, block.excluded_from, block.exclusion) == (None, "e", "assignment unreadable")
    router.assignments.failing = False
    async with asyncio.timeout(30):
        while (answer := (await predicted(router, row("user-1")))[0]).excluded:
            await asyncio.sleep(0.001)
    assert (answer.variant, answer.epoch, answer.probability) == ("new", 1, 0.1)


async def test_shadow_scores_and_lost_rows_carry_the_epoch_of_their_units_first_assignment(router):
    await run(router, epoch=2, sticky=True, outcome="independent of the answer")
    router.assignments.assignments = {UnitKey("e", "user-1"): FirstAssignment("new", 1, 0.1)}
    await predicted(router, row("user-1"))
    await router.predict.noted()
    router.inference.failing = {"streaming", "plain"}
    with pytest.raises(ModelUnavailableError):
        await router.predict.rows("late", [row("user-1")])
    await router.predict.noted()
    frames = [frame for _, _, frame in router.frames()]
    assert [shadow.epoch for frame in frames for shadow in frame.shadows] == [1]
    (lost,) = [block for frame in frames for block in frame.unanswered]
    assert (lost.epoch, lost.assignment_probability, lost.variant) == (1, 0.1, "new")


@pytest.fixture
def server(tmp_path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey", free_ports(1)[0])
    server.start()
    server.wait_ready(60)
    yield server
    server.resume()
    server.kill()


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_predictions_go_on_while_a_real_store_is_frozen_or_gone_and_count_again_afterwards(
    open_router, request, settings, server, is_frozen
):
    store = RedisAssignments.connect(server.url, cluster=False, ttl_s=86_400)
    units = [f"user-{at}" for at in range(100)]
    others = [request.getfixturevalue(name) for name in ("journal", "features", "inference")]
    async with aclosing(store), open_router(settings, *others, store) as router:
        await run(router, variants=TENTH)
        before = await predicted(router, *map(row, units))
        async with asyncio.timeout(30):
            while None in await store.read([UnitKey("e", unit) for unit in units]):
                await asyncio.sleep(0.01)
        await change(router, variants=HALVES, epoch=2, sticky=True)
        server.pause() if is_frozen else server.kill()
        fresh = [f"late-{at}" for at in range(20)]
        first = await predicted(router, *map(row, units + fresh))
        began = perf_counter()
        second = await predicted(router, *map(row, units + fresh))
        assert perf_counter() - began < settings.assignment_timeout_s
        for answers in (first, second):
            assert [each.variant for each in answers[:100]] == [each.variant for each in before]
            assert {each.reason for each in answers[100:]} == {"assignment unreadable"}
        server.resume() if is_frozen else server.start()
        async with asyncio.timeout(60):
            while (after := await predicted(router, *map(row, units + fresh)))[-1].excluded:
                await asyncio.sleep(0.01)
        assert [each.variant for each in after[:100]] == [each.variant for each in before]
        assert {(each.reason, each.epoch) for each in after[100:]} == {("split", 2)}


async def test_the_units_of_an_experiment_that_stopped_a_minute_ago_are_deleted(router):
    await run(router)
    await predicted(router, *(row(f"user-{at}") for at in range(20)))
    await written(router, 20)
    await change(router, status="stopped", stopped_at=router.clock.now() - 59.0)
    assert stopped_lately(router.experiments.all(), router.clock.now()) == []
    await change(router, stopped_at=router.clock.now() - 60.0)
    async with _forgetting(router.sticky, router.experiments, router.clock), asyncio.timeout(30):
        while router.assignments.assignments:
            await asyncio.sleep(0.001)


async def test_a_frozen_store_leaves_experiments_alone_whose_allocation_has_not_changed(router):
    await run(router)
    router.assignments.failing = True
    answers = await predicted(router, *(row(f"user-{at}") for at in range(50)))
    assert {each.reason for each in answers} == {"split"}
    assert not any(each.excluded for each in answers)
