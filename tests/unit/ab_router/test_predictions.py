"""From a checked row to an answer that is in the journal, with the services behind the router failing or not."""

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from errno import EIO
from time import perf_counter

import msgspec
import pytest
from prometheus_client import REGISTRY

from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import InputColumn, ModelVersion, RowFault
from services.ab_router.domain.assignment import InForce
from services.ab_router.errors import ModelUnavailableError, UnknownModelError
from shared.errors import InvalidField, JournalFull, Overloaded, RecordTooLarge, TooLarge
from shared.ids import PredictionId
from shared.journal import Journal
from shared.topics import FRAME_BYTES, LARGEST_RECORD_BYTES

ENTITIES = {"origin": "EWR"}
DESIGN = {
    "early_s": 5.0,
    "time_zone": "America/New_York",
    "log_loss_clip": 1e-5,
    "metric": "brier",
    "segments": ["country", "plan"],
    "value": "if(outcome == 'late', 1, 0)",
}


def row(unit: str = "user-1", **changes: object) -> PredictionRow:
    return msgspec.structs.replace(PredictionRow(unit, ENTITIES, {"distance": 700.0}), **changes)


async def run(router, **changes: object) -> ExperimentRevision:
    """Start an experiment: `plain` is the champion, `streaming` challenges it."""
    variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
    new = msgspec.structs.replace(NewExperiment(name="e", model="late", variants=variants, window_s=60.0), **changes)
    await router.experiments.create(new)
    return await router.experiments.start(new.name)


def total(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


async def test_without_an_experiment_the_champion_answers(router):
    (answer,) = await router.predict.rows("late", [row()])
    assert (answer.model, answer.version, answer.variant, answer.experiment) == ("late", "plain", None, None)
    assert (answer.outputs.score, answer.outputs.label, answer.degraded) == (0.2, "on time", False)
    block, at = router.kept(answer.prediction_id)
    assert (block.version, block.experiment, block.variant, block.served_variant) == ("plain", None, None, None)
    assert (block.unit[at], block.time[at], block.score[at]) == ("user-1", router.clock.now(), 0.2)
    assert (block.assignment_probability, block.epoch, block.classes) == (1.0, 0, ["on time", "late"])
    assert block.inputs == {"distance": [700.0], "carrier": ["UA"]}
    assert block.latency_ms[at] >= 0


async def test_an_assignment_is_recorded_with_all_that_judges_it(router):
    await run(router, coverage=0.8, missing="negative", clock="event", **DESIGN)
    unit = router.unit_of("new")
    context = {"country": "US", "age": 4}
    (answer,) = await router.predict.rows("late", [row(unit, context=context, time=5.0)])
    assert (answer.experiment, answer.variant, answer.version) == ("e", "new", "streaming")
    block, at = router.kept(answer.prediction_id)
    assert (block.experiment, block.revision, block.epoch) == ("e", 2, 1)
    assert (block.variant, block.served_variant, block.assignment_probability) == ("new", "new", 0.4)
    assert (block.window_s, block.missing, block.task) == (60.0, "negative", "binary")
    assert (block.clock, *(getattr(block, name) for name in DESIGN)) == ("event", *DESIGN.values())
    assert (block.unit[at], block.time[at], block.degraded[at]) == (unit, 5.0, False)
    assert block.context == {"country": ["US"], "age": [4], "plan": [None]}
    assert block.label_probability == []
    assert block.inputs == {"distance": [700.0], "mean_delay": [30.0]}
    assert block.statuses == {"mean_delay": ["PRESENT"]}


async def test_rows_that_lack_a_segment_share_a_block_with_those_that_have_it(router):
    await run(router, segments=["country"])
    unit = router.unit_of("old")
    contexts = [{"country": "US"}, {}, {"country": None}, {"age": 4}]
    answers = await router.predict.rows("late", [row(unit, context=context) for context in contexts])
    (first, at), *_, (other, _) = [router.kept(answer.prediction_id) for answer in answers]
    assert (first.context, at) == ({"country": ["US", None, None]}, 0)
    assert other.context == {"age": [4], "country": [None]}
    assert (first.segments, first.metric) == (["country"], "log_loss")


async def test_a_row_outside_of_an_experiment_has_no_segments(router):
    await run(router, segments=["country"], coverage=0.2)
    (answer,) = await router.predict.rows("late", [row(router.unit_of(None), context={"age": 4})])
    block, _ = router.kept(answer.prediction_id)
    assert (block.context, block.segments, block.metric) == ({"age": [4]}, [], "")


async def test_a_unit_outside_of_the_coverage_is_in_no_experiment(router):
    await run(router, coverage=0.2)
    (answer,) = await router.predict.rows("late", [row(router.unit_of(None))])
    assert (answer.variant, answer.experiment, answer.version) == (None, None, "plain")
    block, _ = router.kept(answer.prediction_id)
    assert (block.experiment, block.variant, block.revision, block.epoch) == (None, None, 0, 0)
    assert block.assignment_probability == 1.0


async def test_an_experiment_on_versions_that_are_not_known_yet_assigns_nobody(router):
    experiment = await run(router)
    variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "unread", 0.5)]
    await router.store.add(msgspec.structs.replace(experiment, revision=3, variants=variants))
    await router.experiments.refresh()
    (answer,) = await router.predict.rows("late", [row(router.unit_of("new"))])
    assert (answer.version, answer.variant, answer.experiment) == ("plain", None, None)


async def test_features_are_asked_only_by_the_version_that_needs_them(router):
    await run(router, clock="event")
    await router.predict.rows("late", [row(router.unit_of("old"))])
    assert router.features.asked == []
    await router.predict.rows("late", [row(router.unit_of("new"), time=5.0)])
    assert router.features.asked == [(["origin_delays:mean_delay"], {"origin": ["EWR"]}, [5.0])]


async def test_without_features_the_defaults_stand_in_and_the_record_says_so(router):
    await run(router)
    router.features.down = True
    before = total("contender_degraded_total", model="late", variant="new")
    rows = [row(router.unit_of(variant), return_inputs=True) for variant in ("old", "new")]
    old, new = await router.predict.rows("late", rows)
    assert (old.degraded, old.outputs.score) == (False, 0.2)
    assert (new.degraded, new.outputs.score, new.variant) == (True, 0.7, "new")
    assert new.inputs == {"distance": 700.0, "mean_delay": 7.5}
    block, at = router.kept(new.prediction_id)
    assert (block.degraded[at], block.served_variant) == (True, "new")
    assert block.inputs == {"distance": [700.0], "mean_delay": [7.5]}
    assert block.statuses == {}
    assert total("contender_degraded_total", model="late", variant="new") == before + 1


async def test_a_feature_that_is_not_served_has_its_default(router):
    await run(router)
    router.features.missing = {"origin_delays:mean_delay"}
    (answer,) = await router.predict.rows("late", [row(router.unit_of("new"), return_inputs=True)])
    assert (answer.degraded, answer.inputs["mean_delay"]) == (True, 7.5)


@pytest.mark.parametrize("status", ["NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"])
async def test_a_default_stands_in_for_a_feature_that_is_null_which_is_no_fault_of_ours(router, status):
    await run(router)
    router.features.nulls = {"origin_delays:mean_delay": status}
    (answer,) = await router.predict.rows("late", [row(router.unit_of("new"), return_inputs=True)])
    assert (answer.degraded, answer.inputs["mean_delay"]) == (False, 7.5)
    assert router.kept(answer.prediction_id)[0].statuses == {"mean_delay": [status]}


def with_inputs(inference, version: str, *columns: InputColumn) -> None:
    """Register a version with other columns."""
    inference.registered = [
        msgspec.structs.replace(registered, inputs=list(columns)) if registered.version == version else registered
        for registered in inference.registered
    ]


async def test_a_feature_that_is_null_and_has_no_default_is_passed_on_as_null(
    open_router, settings, journal, features, inference
):
    needed = InputColumn("mean_delay", "float", source="origin_delays:mean_delay")
    with_inputs(inference, "plain", InputColumn("distance", "float"), needed)
    features.nulls = {"origin_delays:mean_delay": "NOT_FOUND"}
    async with open_router(settings, journal, features, inference) as router:
        (answer,) = await router.predict.rows("late", [row(return_inputs=True)])
        assert (answer.degraded, answer.inputs["mean_delay"]) == (False, None)


async def test_a_default_stands_in_for_a_null_of_the_request_and_is_recorded(
    open_router, settings, journal, features, inference
):
    with_inputs(inference, "plain", InputColumn("distance", "float", default=5.0))
    async with open_router(settings, journal, features, inference) as router:
        for inputs in ({"distance": None}, {}):
            (answer,) = await router.predict.rows("late", [row(inputs=inputs, return_inputs=True)])
            assert answer.inputs == {"distance": 5.0}
            assert router.kept(answer.prediction_id)[0].inputs == {"distance": [5.0]}


async def test_features_that_are_away_and_have_no_default_are_no_fault_of_the_row(
    open_router, settings, journal, features, inference
):
    needed = InputColumn("mean_delay", "float", source="origin_delays:mean_delay")
    with_inputs(inference, "plain", InputColumn("distance", "float"), needed)
    features.down = True
    async with open_router(settings, journal, features, inference) as router:
        with pytest.raises(ModelUnavailableError, match="features can't be read at the moment"):
            await router.predict.rows("late", [row()])
        assert inference.asked == []


async def test_a_null_in_place_of_features_that_are_away_is_no_reason_to_refuse_the_row(
    open_router, settings, journal, features, inference
):
    wanted = InputColumn("mean_delay", "float", source="origin_delays:mean_delay", required=False)
    with_inputs(inference, "plain", InputColumn("distance", "float"), wanted)
    inference.refusing = {"plain": {1.0, 2.0}}
    inference.fault = RowFault(0, 422, "inputs.mean_delay", "is null")
    async with open_router(settings, journal, features, inference) as router:
        (refused,) = await router.predict.rows("late", [row(inputs={"distance": 1.0})])
        assert [error.field for error in refused.errors] == ["inputs.mean_delay"]
        features.down = True
        (answer,) = await router.predict.rows("late", [row()])
        assert answer.degraded
        with pytest.raises(ModelUnavailableError):
            await router.predict.rows("late", [row(inputs={"distance": 1.0})])
        inference.fault = RowFault(0, 422, "inputs.distance", "is odd")
        (refused,) = await router.predict.rows("late", [row(inputs={"distance": 1.0})])
        assert [error.field for error in refused.errors] == ["inputs.distance"]


async def test_the_champion_answers_for_a_challenger_that_fails(router):
    await run(router)
    router.inference.failing = {"streaming"}
    before = total("contender_fallbacks_total", model="late", variant="new")
    rows = [row(router.unit_of(variant)) for variant in ("new", "old")]
    failed, own = await router.predict.rows("late", rows)
    assert (failed.variant, failed.version, failed.outputs.score) == ("new", "plain", 0.2)
    assert (own.variant, own.version) == ("old", "plain")
    block, _ = router.kept(failed.prediction_id)
    assert (block.variant, block.served_variant, block.version) == ("new", "old", "plain")
    assert block.assignment_probability == 0.5
    assert total("contender_fallbacks_total", model="late", variant="new") == before + 1


async def test_the_fallback_value_answers_when_the_champion_fails_too(router):
    await run(router, fallback_value=0.6)
    router.inference.failing = {"plain", "streaming"}
    before = total("contender_fallbacks_total", model="late", variant="old")
    rows = [row(router.unit_of(variant)) for variant in ("old", "new")]
    answers = await router.predict.rows("late", rows)
    for answer, variant in zip(answers, ("old", "new"), strict=True):
        assert (answer.variant, answer.outputs.score, answer.outputs.label) == (variant, 0.6, "late")
        assert answer.degraded
        block, at = router.kept(answer.prediction_id)
        assert (block.variant, block.served_variant, block.score[at]) == (variant, None, 0.6)
        assert block.degraded[at]
    assert total("contender_fallbacks_total", model="late", variant="old") == before + 1


async def lost(router) -> list[tuple[str, str, str]]:
    """Variant, unit and reason of every row that is on record without a prediction."""
    await router.predict.noted()
    return sorted(
        (block.variant, unit, reason)
        for _, _, frame in router.frames()
        for block in frame.unanswered
        for unit, reason in zip(block.unit, block.reason, strict=True)
    )


async def test_without_a_fallback_value_nobody_answers_and_the_assigned_row_is_on_record(router):
    experiment = await run(router, coverage=0.8, missing="negative", time_zone="America/New_York")
    router.inference.failing = {"plain", "streaming"}
    unit = router.unit_of("old")
    with pytest.raises(ModelUnavailableError) as refused:
        await router.predict.rows("late", [row(unit)])
    assert refused.value.retry_after_s == 1
    assert await lost(router) == [("old", unit, "failed")]
    ((_, _, frame),) = router.frames()
    assert frame.blocks == []
    (block,) = frame.unanswered
    assert (block.model, block.experiment, block.revision, block.epoch) == ("late", "e", experiment.revision, 1)
    assert (block.window_s, block.missing, block.task) == (60.0, "negative", "binary")
    assert (block.clock, block.time_zone, block.assignment_probability) == ("wall", "America/New_York", 0.4)
    assert block.time == [router.clock.now()]


async def test_a_call_is_answered_whole_or_not_at_all_and_all_its_assigned_rows_are_on_record(router):
    await run(router, coverage=0.8)
    router.inference.failing = {"plain"}
    old, new, outside = (router.unit_of(variant) for variant in ("old", "new", None))
    with pytest.raises(ModelUnavailableError):
        await router.predict.rows("late", [row(old), row(new), row(outside)])
    assert await lost(router) == [("new", new, "failed"), ("old", old, "failed")]
    assert [frame.blocks for _, _, frame in router.frames()] == [[]]
    (answer,) = await router.predict.rows("late", [row(new)])
    assert answer.version == "streaming"


async def test_rows_that_the_version_refuses_are_on_record_in_the_frame_of_those_beside_them(router):
    await run(router)
    router.inference.refusing = {"plain": {-1.0}, "streaming": {-1.0}}
    old, new = router.unit_of("old"), router.unit_of("new")
    bad = {"distance": -1.0}
    refused, answer, other = await router.predict.rows("late", [row(old, inputs=bad), row(old), row(new, inputs=bad)])
    assert isinstance(refused, InvalidField)
    assert isinstance(other, InvalidField)
    block, at = router.kept(answer.prediction_id)
    assert (block.unit[at], block.variant) == (old, "old")
    assert await lost(router) == [("new", new, "refused"), ("old", old, "refused")]
    assert len(router.frames()) == 1
    await router.predict.rows("late", [row(new, inputs=bad)])
    assert len(await lost(router)) == 3


async def test_what_the_schema_refuses_and_what_is_in_no_experiment_is_not_on_record(router):
    router.inference.refusing = {"plain": {-1.0}}
    await router.predict.rows("late", [row(inputs={"distance": -1.0})])
    await run(router)
    await router.predict.rows("late", [row(inputs={"distance": "far"})])
    assert await lost(router) == []
    assert router.frames() == []


async def test_a_full_journal_changes_no_refusal_of_a_row_or_a_call(
    open_router, settings, tmp_path, features, inference
):
    full = Journal.open(tmp_path / "full", limit_bytes=3_000)
    async with open_router(settings, full, features, inference) as router:
        await run(router)
        full.limit_bytes = full.unsent_bytes + 50
        full.check_room = lambda: None  # it filled up meanwhile
        inference.failing = {"plain", "streaming"}
        with pytest.raises(ModelUnavailableError):
            await router.predict.rows("late", [row()])
        inference.failing, inference.refusing = set(), {"plain": {-1.0}, "streaming": {-1.0}}
        (refused,) = await router.predict.rows("late", [row(inputs={"distance": -1.0})])
        assert isinstance(refused, InvalidField)
        assert await lost(router) == []
    full.close()


async def test_rows_past_their_deadline_are_on_record_without_a_prediction(
    open_router, settings, journal, features, inference
):
    hasty = settings.model_copy(update={"deadline_s": 0.05})
    async with open_router(hasty, journal, features, inference) as router:
        await run(router)
        inference.answering.clear()
        unit = router.unit_of("old")
        with pytest.raises(Overloaded):
            await router.predict.rows("late", [row(unit)])
        assert await lost(router) == [("old", unit, "failed")]
        inference.answering.set()


@pytest.mark.parametrize("off_s", [-301.0, 301.0])
async def test_under_the_wall_clock_a_row_of_another_time_is_refused_before_it_is_assigned(router, off_s):
    await run(router)
    units = [router.unit_of(variant) for variant in ("old", "new")]
    answers = await router.predict.rows("late", [row(unit, time=router.clock.now() + off_s) for unit in units])
    assert [[error.field for error in answer.errors] for answer in answers] == [["time"], ["time"]]
    assert 'clock: "event"' in answers[0].detail
    assert router.frames() == []
    near = [row(unit, time=router.clock.now() + off_s * 0.9) for unit in units]
    assert all(answer.variant for answer in await router.predict.rows("late", near))


async def test_a_replay_and_a_model_without_an_experiment_take_past_times(router):
    (answer,) = await router.predict.rows("late", [row(time=5.0)])
    assert answer.variant is None
    await run(router, clock="event")
    (answer,) = await router.predict.rows("late", [row(time=5.0)])
    assert answer.variant


async def test_one_model_that_fails_takes_no_other_with_it(router):
    router.inference.failing = {"linear"}
    answered, failed = await asyncio.gather(
        router.predict.rows("late", [row()]),
        router.predict.rows("delay", [PredictionRow("user-1", inputs={"seats": 180})]),
        return_exceptions=True,
    )
    assert answered[0].outputs.score == 0.2
    assert isinstance(failed, ModelUnavailableError)
    ((_, _, frame),) = router.frames()
    assert [block.model for block in frame.blocks] == ["late"]


async def test_frames_hold_answered_rows_and_their_ids_lead_to_them(router):
    experiment = await run(router, clock="event")
    units = [f"user-{at}" for at in range(12)]
    contexts = [{}, {"country": "US"}, {"country": "DE", "age": 3}]
    calls = [row(unit, context=contexts[at % 3], time=float(at)) for at, unit in enumerate(units)]
    seats = [PredictionRow(f"plane-{at}", inputs={"seats": at}) for at in (180, 90)]
    results = await asyncio.gather(
        router.predict.rows("late", calls[:5]),
        *(router.predict.rows("late", [call_row]) for call_row in calls[5:]),
        router.predict.rows("delay", seats),
    )
    late, delay = [answer for answers in results[:-1] for answer in answers], results[-1]
    blocks = [block for _, _, frame in router.frames() for block in frame.blocks]
    assert (
        sum(map(len, blocks))
        == len(calls) + len(seats)
        == len({answer_row.prediction_id for answer_row in [*late, *delay]})
    )
    assert len({PredictionId.parse(answer_row.prediction_id).frame_id for answer_row in late[:5]}) == 1
    for at, answer in enumerate(late):
        block, index = router.kept(answer.prediction_id)
        assigned = InForce([experiment]).assign(row(units[at])).variant
        assert (block.unit[index], block.time[index]) == (units[at], float(at))
        assert {name: values[index] for name, values in block.context.items()} == contexts[at % 3]
        assert (block.variant, block.version) == (assigned.name, assigned.version) == (answer.variant, answer.version)
        assert block.score[index] == answer.outputs.score
    assert [answer.outputs.score for answer in delay] == [180.0, 90.0]
    assert [router.kept(answer_row.prediction_id)[0].model for answer_row in delay] == ["delay", "delay"]
    for block in blocks:
        columns = [*block.inputs.values(), *block.context.values(), *block.statuses.values()]
        lists = [block.time, block.score, block.label, block.degraded, block.latency_ms, *columns]
        assert {len(column) for column in lists} == {len(block)}
    assert Counter(version for version, _ in router.inference.asked) == {"plain": 1, "streaming": 1, "linear": 1}


async def test_a_row_that_waited_while_an_experiment_started_is_not_in_it(
    open_router, settings, journal, features, inference
):
    needy = msgspec.structs.replace(inference.registered[1], inputs=[InputColumn("weather", "string")])
    inference.registered[1] = needy
    one_sender = settings.model_copy(update={"senders": 1})
    async with open_router(one_sender, journal, features, inference) as router:
        inference.answering.clear()
        first = asyncio.create_task(router.predict.rows("delay", [PredictionRow("u", inputs={"seats": 1})]))
        await inference.reached.wait()
        waiting = [row(f"user-{at}") for at in range(5)]
        second = asyncio.create_task(router.predict.rows("late", waiting))
        await run(router)
        inference.answering.set()
        await first
        assert {(answer.version, answer.variant) for answer in await second} == {("plain", None)}
    assert {version for version, _ in inference.asked} == {"linear", "plain"}


async def test_a_latency_counts_the_wait_for_a_micro_batch(open_router, settings, journal, features, inference):
    async with open_router(settings.model_copy(update={"senders": 1}), journal, features, inference) as router:
        inference.answering.clear()
        first = asyncio.create_task(router.predict.rows("late", [row()]))
        await inference.reached.wait()
        second = asyncio.create_task(router.predict.rows("late", [row()]))
        await run(router)
        since = perf_counter()
        await router.experiments.stop("e")
        waited_ms = (perf_counter() - since) * 1e3
        inference.answering.set()
        await first
        (answer,) = await second
        assert router.kept(answer.prediction_id)[0].latency_ms[0] >= waited_ms - 0.001


async def test_a_latency_is_each_rows_own_however_slow_the_other_variant_is(router):
    await run(router)
    inference = router.inference
    inference.hanging = {"streaming"}
    inference.answering.clear()
    rows = [row(router.unit_of(variant)) for variant in ("old", "new")]
    asked = asyncio.create_task(router.predict.rows("late", rows))
    while {version for version, _ in inference.asked} != {"plain", "streaming"}:
        await asyncio.sleep(0)
    (fast,) = await router.predict.rows("late", rows[:1])  # the call's own champion has answered long before
    began = perf_counter()
    while perf_counter() - began < 0.05:
        await asyncio.sleep(0)
    inference.answering.set()
    old, new = await asked
    latencies = [
        router.kept(answer.prediction_id)[0].latency_ms[router.kept(answer.prediction_id)[1]] for answer in (old, new)
    ]
    assert latencies[0] < latencies[1] >= 50
    assert fast.version == "plain"


@dataclass
class GatedJournal(Journal):
    """A journal whose disk is slow until it is let go, or fails."""

    flushing: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    async def flush(self) -> None:
        self.flushing.set()
        await self.released.wait()
        if self.fails:
            raise JournalFull("the journal can't write to its disk")
        await super().flush()


@pytest.fixture
def gated(tmp_path):
    journal = GatedJournal.open(tmp_path / "gated", limit_bytes=1024**2)
    yield journal
    journal.close()


async def test_no_answer_comes_before_the_journal_is_on_disk(open_router, settings, gated, features, inference):
    async with open_router(settings, gated, features, inference) as router:
        asked = asyncio.create_task(router.predict.rows("late", [row()]))
        await gated.flushing.wait()
        assert not asked.done()
        assert router.frames() == []
        gated.released.set()
        (answer,) = await asked
        assert router.kept(answer.prediction_id)[0].unit == ["user-1"]


@pytest.fixture
async def roomy(open_router, settings, tmp_path, features, inference):
    """A router that takes large rows."""
    journal = Journal.open(tmp_path / "roomy", limit_bytes=64 * 1024**2)
    async with open_router(settings.model_copy(update={"text_limit": 10**7}), journal, features, inference) as router:
        yield router
    journal.close()


async def test_a_micro_batch_of_large_rows_goes_out_as_several_frames(roomy):
    units = [f"user-{number}" for number in range(40)]
    contexts = [{"small": at} if at % 3 else {"large": f"{at}" * 50_000} for at in range(40)]
    rows = [row(unit, context=context) for unit, context in zip(units, contexts, strict=True)]
    calls = await asyncio.gather(*(roomy.predict.rows("late", rows[first : first + 5]) for first in range(0, 40, 5)))
    answers = [answer for call in calls for answer in call]
    values = [record.value for record in roomy.records()]
    assert sum(map(len, values)) > FRAME_BYTES
    assert len(values) < 8
    assert max(map(len, values)) <= FRAME_BYTES
    assert len({answer.prediction_id for answer in answers}) == len(units)
    for answer, unit, context in zip(answers, units, contexts, strict=True):
        block, index = roomy.kept(answer.prediction_id)
        assert block.unit[index] == unit
        assert {name: column[index] for name, column in block.context.items()} == context


async def test_a_row_that_is_larger_than_a_record_takes_nobody_else_with_it(roomy):
    large = row("large", context={"text": "x" * LARGEST_RECORD_BYTES})
    beside, other = await asyncio.gather(
        roomy.predict.rows("late", [row("small"), large]), roomy.predict.rows("late", [row("other")])
    )
    assert isinstance(beside[1], RecordTooLarge)
    for answer, unit in ((beside[0], "small"), (other[0], "other")):
        block, at = roomy.kept(answer.prediction_id)
        assert block.unit[at] == unit
    units = [unit for _, _, frame in roomy.frames() for block in frame.blocks for unit in block.unit]
    assert sorted(units) == ["other", "small"]


async def test_a_call_past_its_deadline_is_not_written_and_those_beside_it_are(
    open_router, settings, journal, features, inference
):
    one_sender = settings.model_copy(update={"senders": 1})
    async with open_router(one_sender, journal, features, inference) as router:
        inference.answering.clear()
        given_up = asyncio.create_task(router.predict.rows("late", [row("a"), row("b")]))
        kept = asyncio.create_task(router.predict.rows("late", [row("c")]))
        await inference.reached.wait()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        inference.answering.set()
        (answer,) = await kept
        ((_, _, frame),) = router.frames()
        assert [block.unit for block in frame.blocks] == [["c"]]
        assert router.kept(answer.prediction_id)[0].unit == ["c"]


async def test_a_disk_that_fails_means_no_answer(open_router, settings, gated, features, inference):
    gated.released.set()
    gated.fails = True
    before = total("contender_predictions_total", model="late", variant="")
    async with open_router(settings, gated, features, inference) as router:
        with pytest.raises(JournalFull):
            await router.predict.rows("late", [row()])
    assert total("contender_predictions_total", model="late", variant="") == before


async def test_a_full_journal_means_no_answer(open_router, settings, tmp_path, features, inference):
    full = Journal.open(tmp_path / "full", limit_bytes=100)
    async with open_router(settings, full, features, inference) as router:
        with pytest.raises(JournalFull) as refused:
            await router.predict.rows("late", [row()])
        assert refused.value.retry_after_s == 5
        assert router.records() == []
        assert not full.open_keys, "frames that were not written are open: nobody would close them"
    full.close()


async def test_a_journal_without_room_refuses_before_any_work_is_done(
    open_router, settings, tmp_path, features, inference
):
    crowded = Journal.open(tmp_path / "crowded", limit_bytes=1000)
    crowded.append("elsewhere", 0, None, [], bytes(970))
    async with open_router(settings, crowded, features, inference) as router:
        with pytest.raises(JournalFull):
            await router.predict.rows("late", [row()])
        assert inference.asked == []
    crowded.close()


async def test_more_keys_than_allowed_are_refused(router):
    many = {f"key-{number}": number for number in range(51)}
    for context in (many, {"k" * 1001: 1}):
        (refused,) = await router.predict.rows("late", [row(context=context)])
        assert [error.field for error in refused.errors] == ["context"]


async def test_more_rows_than_may_wait_are_refused_before_they_are_assigned(
    open_router, settings, journal, features, inference
):
    async with open_router(settings.model_copy(update={"queue_limit": 2}), journal, features, inference) as router:
        with pytest.raises(Overloaded):
            await router.predict.rows("late", [row()] * 3)
        assert inference.asked == []
        assert router.records() == []


async def test_too_many_rows_none_and_those_of_an_unknown_model_are_refused_as_a_whole(router):
    for rows, refusal in (([row()] * 6, TooLarge), ([], InvalidField)):
        with pytest.raises(refusal):
            await router.predict.rows("late", rows)
    with pytest.raises(UnknownModelError):
        await router.predict.rows("early", [row()])
    assert (router.inference.asked, router.records()) == ([], [])


async def test_a_row_that_no_version_takes_is_refused_alone_and_before_it_is_assigned(router):
    late = row("x" * 51)
    before, refused, after = await router.predict.rows("late", [row("a"), late, row("b")])
    assert isinstance(refused, InvalidField)
    assert [error.field for error in refused.errors] == ["unit"]
    for answer, unit in ((before, "a"), (after, "b")):
        block, at = router.kept(answer.prediction_id)
        assert block.unit[at] == unit
    assert router.inference.asked[0][1]["distance"] == [700.0, 700.0]


async def test_what_a_challenger_needs_is_asked_of_every_row_so_that_refusals_skew_no_split(router):
    await run(router)
    for unit in map("user-{}".format, range(8)):
        (refused,) = await router.predict.rows("late", [row(unit, entities={})])
        assert [error.field for error in refused.errors] == ["entities.origin"]
    assert router.inference.asked == []


async def test_calls_before_the_publisher_reads_share_a_frame_and_later_ones_get_another(router):
    first = [await router.predict.rows("late", [row()]) for _ in range(3)]
    await router.journal.close_records()
    (later,) = await router.predict.rows("late", [row()])
    ids = [PredictionId.parse(answer.prediction_id) for (answer,) in first]
    assert len({(each.frame_id, each.shard) for each in ids}) == 1
    assert [each.row for each in ids] == [0, 1, 2]
    assert PredictionId.parse(later.prediction_id).frame_id != ids[0].frame_id
    assert len(router.frames()) == 2


async def test_rows_behind_a_lost_part_are_in_another_frame(router):
    def fail(_: int) -> None:
        raise OSError(EIO, os.strerror(EIO))

    (before,) = await router.predict.rows("late", [row()])
    router.journal.sync_file = fail
    with pytest.raises(JournalFull):
        await router.predict.rows("late", [row()])
    router.journal.sync_file = os.fdatasync
    (after,) = await router.predict.rows("late", [row()])
    ids = [PredictionId.parse(answer.prediction_id) for answer in (before, after)]
    assert ids[0].frame_id != ids[1].frame_id
    for answer in (before, after):
        assert router.kept(answer.prediction_id)


LATER = ModelVersion(
    model="late",
    version="later",
    task="binary",
    classes=["on time", "late"],
    inputs=[InputColumn("distance", "float"), InputColumn("weather", "string")],
    registered_at=3.0,
)


async def test_a_row_may_carry_the_columns_of_any_registered_version(router):
    router.inference.registered.append(LATER)
    await router.catalog.refresh()
    (answer,) = await router.predict.rows(
        "late", [row(inputs={"distance": 700.0, "weather": "fog"}, return_inputs=True)]
    )
    assert (answer.version, answer.inputs) == ("plain", {"distance": 700.0, "carrier": "UA"})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"wether": "fog"}, "inputs.wether is not a column of this model"),
        ({"weather": 3}, "inputs.weather is not a string"),
        ({"weather": "f" * 51}, "inputs.weather is longer than 50 characters"),
    ],
    ids=["unknown to all versions", "of another type", "too long"],
)
async def test_a_column_that_suits_no_version_is_refused(router, inputs, message):
    router.inference.registered.append(LATER)
    await router.catalog.refresh()
    (answer,) = await router.predict.rows("late", [row(inputs={"distance": 700.0, **inputs})])
    assert str(answer) == message


async def test_a_column_that_versions_have_with_different_types_suits_with_any_of_them(router):
    numbered = msgspec.structs.replace(LATER, version="numbered", inputs=[InputColumn("weather", "integer")])
    router.inference.registered += [LATER, numbered]
    await router.catalog.refresh()
    rows = [row(inputs={"distance": 700.0, "weather": value}) for value in ("fog", 3, None)]
    assert [answer.version for answer in await router.predict.rows("late", rows)] == ["plain"] * 3
