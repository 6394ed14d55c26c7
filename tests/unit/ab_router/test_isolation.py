"""One caller's row never touches another's, and one version's slowness never another version."""

import asyncio

import msgspec
import pytest

from contender.contracts.ab_router import Prediction, PredictionRow
from contender.contracts.experiments import NewExperiment, VariantAllocation
from contender.contracts.inference_service import InputColumn, RowFault
from services.ab_router.clients import CallError, CallTimeoutError, QuestionRefusedError, ViewInputs
from services.ab_router.errors import ModelUnavailableError
from services.ab_router.isolation import ask_by_halves
from shared.breaker import RetryBudget
from shared.errors import InvalidField, Overloaded, ServiceError

SECRETS = ("http", "service", "library", "Error", "secret")


def row(unit: str = "user-1", distance: float = 700.0, origin: str = "EWR") -> PredictionRow:
    return PredictionRow(unit, {"origin": origin}, {"distance": distance})


def seats(number: float) -> PredictionRow:
    return PredictionRow("user-1", inputs={"seats": number})


async def run(router, **changes: object) -> None:
    """Start an experiment: `plain` is the champion, `streaming` challenges it."""
    variants = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
    await router.experiments.create(
        msgspec.structs.replace(NewExperiment(name="e", model="late", variants=variants), **changes)
    )
    await router.experiments.start("e")


def fields(refusal: object) -> list[str]:
    """The fields that a row's refusal names; it says nothing of what lies behind the router."""
    assert isinstance(refusal, InvalidField)
    assert not [word for word in SECRETS if word in refusal.detail]
    return [error.field for error in refusal.errors]


def kinds(answers: list) -> list[bool]:
    """Whether each row was answered."""
    return [isinstance(answer, Prediction) for answer in answers]


# Rows that the model refuses


@pytest.mark.parametrize("whole", [0, 400, 409, 413, 422])
async def test_a_row_that_the_model_refuses_is_refused_alone(router, whole):
    router.inference.refusing = {"plain": {-1.0}}
    router.inference.whole = whole
    calls = [
        [row(f"u{at}-{number}", -1.0 if (at, number) in {(2, 0), (5, 3)} else 700.0) for number in range(4)]
        for at in range(8)
    ]
    answers = await asyncio.gather(*(router.predict.rows("late", call) for call in calls))
    for at, answered in enumerate(answers):
        for number, answer in enumerate(answered):
            if (at, number) in {(2, 0), (5, 3)}:
                assert fields(answer) == ["inputs.distance"]
            else:
                block, index = router.kept(answer.prediction_id)
                assert (block.unit[index], block.score[index]) == (f"u{at}-{number}", 0.2)
    assert sum(len(block) for _, _, frame in router.frames() for block in frame.blocks) == 30


async def test_what_other_questions_would_get_too_is_not_asked_in_halves(router):
    router.inference.failing = {"plain"}
    with pytest.raises(ModelUnavailableError):
        await router.predict.rows("late", [row() for _ in range(5)])
    assert len(router.inference.asked) == 1


async def test_questions_that_are_too_large_only_in_sum_are_answered(router):
    router.inference.row_limit = 3
    answers = await asyncio.gather(*(router.predict.rows("late", [row(f"u{at}")]) for at in range(20)))
    assert all(kinds(call) == [True] for call in answers)


async def test_rows_are_cut_by_their_bytes_before_they_are_asked(open_router, settings, journal, features, inference):
    wide = settings.model_copy(update={"text_limit": 1000, "body_limit_bytes": 4000, "senders": 1})
    inference.registered = [
        msgspec.structs.replace(registered, inputs=[InputColumn("carrier", "string")])
        for registered in inference.registered[:1]
    ]
    async with open_router(wide, journal, features, inference) as router:
        calls = [PredictionRow(f"u{at}", inputs={"carrier": "🙂" * 250}) for at in range(9)]
        answers = await asyncio.gather(*(router.predict.rows("late", [call]) for call in calls))
    assert all(kinds(call) == [True] for call in answers)
    assert [len(inputs["carrier"]) for _, inputs in inference.asked] == [3, 3, 3]


async def test_a_question_whose_only_row_is_refused_tells_no_secrets(router):
    router.inference.refusing, router.inference.whole = {"linear": {-1.0}}, 422
    router.inference.fault = RowFault(0, 422, "somewhere.inside", "")
    (answer,) = await router.predict.rows("delay", [seats(-1)])
    assert fields(answer) == ["inputs"]


async def test_a_call_without_an_answered_row_is_refused_as_a_whole(router, client):
    router.inference.refusing = {"plain": {-1.0}}
    body = {"unit": "u", "entities": {}, "inputs": {"distance": -1.0}}
    answer = await client.post("/v1/models/late/predict", json=body)
    assert (answer.status_code, "retry-after" in answer.headers) == (422, False)
    assert [error["field"] for error in answer.json()["errors"]] == ["inputs.distance"]
    answer = await client.post("/v1/models/late/predict/batch", json={"rows": [body, body]})
    assert answer.status_code == 422
    named = [error["field"] for error in answer.json()["errors"]]
    assert named == ["rows[0].inputs.distance", "rows[1].inputs.distance"]
    rows = [body, {**body, "inputs": {"distance": 1.0}}]
    answer = await client.post("/v1/models/late/predict/batch", json={"rows": rows})
    refused, answered = answer.json()["predictions"]
    assert refused["error"]["errors"] == [{"field": "inputs.distance", "message": router.inference.fault.message}]
    assert (refused["error"]["status"], answered["outputs"]["score"]) == (422, 0.2)


async def test_a_row_that_may_be_scored_later_is_no_refusal(router):
    router.inference.refusing = {"plain": {-1.0}}
    router.inference.fault = RowFault(0, 503, "", "the memory is taken")
    with pytest.raises(ModelUnavailableError) as failed:
        await router.predict.rows("late", [row(distance=-1.0)])
    assert failed.value.retry_after_s == 1


# Rows that only one variant refuses


@pytest.mark.parametrize("whole", [0, 422])
async def test_a_row_that_its_challenger_refuses_is_answered_by_the_champion_and_recorded_as_that(router, whole):
    await run(router)
    router.inference.refusing, router.inference.whole = {"streaming": {-1.0}}, whole
    unit = router.unit_of("new")
    bad, *good = await router.predict.rows("late", [row(unit, at) for at in (-1.0, 2.0, 3.0)])
    block, _ = router.kept(bad.prediction_id)
    assert (block.variant, block.served_variant, block.version) == ("new", "old", "plain")
    for answer in good:
        block, _ = router.kept(answer.prediction_id)
        assert (block.variant, block.served_variant, block.version) == ("new", "new", "streaming")


@pytest.mark.parametrize("fallback_value", [None, 0.4])
async def test_a_row_that_both_refuse_is_refused_whatever_stands_in_for_an_outage(router, fallback_value):
    await run(router, fallback_value=fallback_value)
    router.inference.refusing = {"streaming": {-1.0}, "plain": {-1.0}}
    refused, answered = await router.predict.rows("late", [row(router.unit_of("new"), at) for at in (-1.0, 2.0)])
    assert fields(refused) == ["inputs.distance"]
    assert answered.version == "streaming"


async def test_a_row_that_the_champion_refuses_while_its_challenger_is_away_may_be_asked_again(router):
    await run(router)
    router.inference.refusing, router.inference.failing = {"plain": {-1.0}}, {"streaming"}
    with pytest.raises(ModelUnavailableError):
        await router.predict.rows("late", [row(router.unit_of("new"), -1.0)])
    (answer,) = await router.predict.rows("late", [row(router.unit_of("new"), 1.0)])
    assert answer.version == "plain"


@pytest.mark.parametrize(("score", "label"), [(0.5, "on time"), (0.51, "late"), (0.49, "on time")])
async def test_the_label_of_a_fallback_value_is_the_likelier_class_and_the_first_at_a_tie(router, score, label):
    await run(router, fallback_value=score)
    router.inference.failing = {"plain", "streaming"}
    (answer,) = await router.predict.rows("late", [row()])
    assert answer.outputs.label == label
    block, at = router.kept(answer.prediction_id)
    assert block.label[at] == label


async def test_the_label_that_was_served_is_in_the_record(router):
    answers = await router.predict.rows("delay", [seats(4), seats(7)])
    for answer, label in zip(answers, (4.0, 7.0), strict=True):
        block, at = router.kept(answer.prediction_id)
        assert block.label[at] == answer.outputs.label == label


# Rows whose features fail


@pytest.fixture
async def by_origin(open_router, settings, journal, features, inference):
    """A router whose champion needs a feature of the row's origin, without a default."""
    needed = InputColumn("mean_delay", "float", source="origin_delays:mean_delay")
    champion = inference.registered[0]
    inference.registered[0] = msgspec.structs.replace(champion, inputs=[InputColumn("distance", "float"), needed])
    async with open_router(settings, journal, features, inference) as router:
        yield router


async def test_a_row_that_features_can_not_be_computed_from_is_refused_by_the_column_that_it_sent(by_origin):
    by_origin.features.views = {"origin_delays": ViewInputs(["origin"], {"zip": "str", "door": "str"})}
    await by_origin.catalog.refresh()
    by_origin.features.invalid = {"nowhere"}
    rows = [
        msgspec.structs.replace(row(origin=origin), inputs={"distance": 1.0, "zip": "80331", "door": "b"})
        for origin in ("EWR", "nowhere", "JFK")
    ]
    before, refused, after = await by_origin.predict.rows("late", rows)
    assert fields(refused) == ["inputs.zip", "inputs.door"]
    assert kinds([before, after]) == [True, True]


async def test_a_row_that_features_can_not_be_computed_from_is_degraded_where_there_is_a_default(router):
    await run(router)
    router.features.invalid = {"nowhere"}
    unit = router.unit_of("new")
    rows = [msgspec.structs.replace(row(unit, origin=origin), return_inputs=True) for origin in ("EWR", "nowhere")]
    good, bad = await router.predict.rows("late", rows)
    assert (good.degraded, good.inputs["mean_delay"]) == (False, 30.0)
    assert (bad.degraded, bad.inputs["mean_delay"], bad.version) == (True, 7.5, "streaming")
    assert router.kept(bad.prediction_id)[0].statuses == {"mean_delay": ["PRESENT", "INVALID"]}


@pytest.mark.parametrize(
    ("refusal", "field"),
    [
        ((422, "entities.origin[1]"), "entities.origin"),
        ((400, "event_timestamps"), "time"),
        ((413, "entities.other"), "entities"),
    ],
)
async def test_a_row_whose_features_are_refused_is_refused_alone(by_origin, refusal, field):
    by_origin.features.refused, by_origin.features.refusal = {"bad"}, refusal
    calls = [by_origin.predict.rows("late", [row(f"u{at}", origin="bad" if at == 6 else "EWR")]) for at in range(12)]
    for at, (answer,) in enumerate(await asyncio.gather(*calls)):
        if at == 6:
            assert fields(answer) == [field]
        else:
            assert (answer.degraded, answer.outputs.score) == (False, 0.2)


async def test_features_that_are_not_served_any_more_are_no_fault_of_the_rows(router):
    await run(router)
    router.features.refused, router.features.refusal = {"EWR"}, (422, "features[0]")
    (answer,) = await router.predict.rows("late", [row(router.unit_of("new"))])
    assert (answer.degraded, answer.version) == (True, "streaming")
    assert len(router.features.asked) == 1


# Versions beside one another


async def test_a_version_that_hangs_keeps_no_other_waiting(router):
    await run(router)
    router.inference.hanging = {"streaming"}
    router.inference.answering.clear()
    new, old = router.unit_of("new"), router.unit_of("old")
    stuck = [asyncio.create_task(router.predict.rows("late", [row(new)])) for _ in range(20)]
    await router.inference.reached.wait()
    for _ in range(10):
        (answer,) = await router.predict.rows("late", [row(old)])
        assert answer.version == "plain"
        (answer,) = await router.predict.rows("delay", [seats(3)])
        assert answer.outputs.score == 3.0
    assert not any(task.done() for task in stuck)
    router.inference.answering.set()
    assert {call[0].version for call in await asyncio.gather(*stuck)} == {"streaming"}


async def test_the_champion_answers_for_a_challenger_that_is_late(open_router, settings, journal, features, inference):
    impatient = settings.model_copy(update={"challenger_deadline_s": 0.05})
    async with open_router(impatient, journal, features, inference) as router:
        await run(router)
        inference.hanging = {"streaming"}
        inference.answering.clear()
        (answer,) = await router.predict.rows("late", [row(router.unit_of("new"))])
        assert (answer.variant, answer.version) == ("new", "plain")
        inference.answering.set()


async def test_a_champion_that_is_late_is_an_overload(open_router, settings, journal, features, inference):
    async with open_router(settings.model_copy(update={"deadline_s": 0.05}), journal, features, inference) as router:
        inference.answering.clear()
        with pytest.raises(Overloaded, match="no answer within"):
            await router.predict.rows("late", [row()])
        inference.answering.set()
    assert router.records() == []


async def test_the_champion_answers_for_a_challenger_whose_queue_is_full(
    open_router, settings, journal, features, inference
):
    narrow = settings.model_copy(update={"version_queue_limit": 2, "senders": 1})
    async with open_router(narrow, journal, features, inference) as router:
        await run(router)
        inference.hanging = {"streaming"}
        inference.answering.clear()
        new = router.unit_of("new")
        first = asyncio.create_task(router.predict.rows("late", [row(new)]))
        await inference.reached.wait()
        waiting = [asyncio.create_task(router.predict.rows("late", [row(new)])) for _ in range(2)]
        await asyncio.sleep(0)
        (answer,) = await router.predict.rows("late", [row(new)])
        assert (answer.variant, answer.version) == ("new", "plain")
        inference.answering.set()
        assert {call[0].version for call in await asyncio.gather(first, *waiting)} == {"streaming"}


async def test_rows_under_way_are_bounded_over_all_versions_and_in_bytes(
    open_router, settings, journal, features, inference
):
    for limits in ({"queue_limit": 2}, {"queue_limit_bytes": 200}):
        async with open_router(settings.model_copy(update=limits), journal, features, inference) as router:
            inference.answering.clear()
            inference.reached.clear()
            under_way = [
                asyncio.create_task(router.predict.rows("late", [row()])),
                asyncio.create_task(router.predict.rows("delay", [seats(1)])),
            ]
            await inference.reached.wait()
            with pytest.raises(Overloaded):
                await router.predict.rows(
                    "late", [PredictionRow("u", {"origin": "x" * 50}, {"distance": 1.0, "carrier": "y" * 50})]
                )
            inference.answering.set()
            await asyncio.gather(*under_way)
            assert kinds(await router.predict.rows("late", [row()])) == [True]


async def test_a_version_that_was_asked_long_ago_makes_room_for_another(
    open_router, settings, journal, features, inference
):
    async with open_router(settings.model_copy(update={"version_limit": 1}), journal, features, inference) as router:
        for _ in range(2):
            assert kinds(await router.predict.rows("late", [row()])) == [True]
            assert kinds(await router.predict.rows("delay", [seats(1)])) == [True]
        inference.answering.clear()
        inference.reached.clear()
        busy = asyncio.create_task(router.predict.rows("late", [row()]))
        await inference.reached.wait()
        with pytest.raises(Overloaded):
            await router.predict.rows("delay", [seats(1)])
        inference.answering.set()
        assert kinds(await busy) == [True]


# Breakers


async def test_a_version_that_fails_again_and_again_is_left_alone_and_comes_back(
    router,
):
    inference = router.inference
    inference.failing = {"linear"}
    for _ in range(20):
        with pytest.raises(ModelUnavailableError) as failed:
            await router.predict.rows("delay", [seats(1)])
    assert "linear" not in failed.value.detail
    assert len(inference.asked) == router.settings.breaker_failures
    assert kinds(await router.predict.rows("late", [row()])) == [True]
    inference.failing = set()
    assert not await answered(router, "delay", [seats(1), seats(2)])
    router.clock.advance(router.settings.breaker_rest_s)
    assert await answered(router, "delay", [seats(1), seats(2)])
    assert await answered(router, "delay", [seats(1)])


async def test_a_caller_is_asked_to_wait_for_as_long_as_a_version_rests(
    open_router, settings, journal, features, inference
):
    restful = settings.model_copy(update={"breaker_rest_s": 29.5})
    inference.failing = {"linear"}
    async with open_router(restful, journal, features, inference) as router:
        for _ in range(restful.breaker_failures + 1):
            with pytest.raises(ModelUnavailableError) as failed:
                await router.predict.rows("delay", [seats(1)])
    assert failed.value.retry_after_s == 30


async def answered(router, model: str, rows: list[PredictionRow]) -> bool:
    try:
        return all(kinds(await router.predict.rows(model, rows)))
    except ModelUnavailableError:
        return False


async def test_the_champion_answers_at_once_for_a_challenger_that_is_left_alone(router):
    await run(router)
    router.inference.failing = {"streaming"}
    new = router.unit_of("new")
    for _ in range(10):
        (answer,) = await router.predict.rows("late", [row(new)])
        assert (answer.variant, answer.version) == ("new", "plain")
    asked = [version for version, _ in router.inference.asked]
    assert (asked.count("streaming"), asked.count("plain")) == (router.settings.breaker_failures, 10)


async def test_one_call_that_takes_its_whole_timeout_is_enough_to_leave_a_version_alone(router):
    router.inference.failing, router.inference.failure = {"linear"}, CallTimeoutError
    for _ in range(10):
        with pytest.raises(ModelUnavailableError):
            await router.predict.rows("delay", [seats(1)])
    assert len(router.inference.asked) == 1
    assert kinds(await router.predict.rows("late", [row()])) == [True]


async def test_a_trial_of_a_version_that_hangs_keeps_nobody_waiting(router):
    inference = router.inference
    inference.failing, inference.failure = {"linear"}, CallTimeoutError
    assert not await answered(router, "delay", [seats(1)])
    router.clock.advance(router.settings.breaker_rest_s)
    inference.failing, inference.hanging = set(), {"linear"}
    inference.answering.clear()
    async with asyncio.timeout(1):
        assert not await answered(router, "delay", [seats(1), seats(2)])
    inference.answering.set()
    while not await answered(router, "delay", [seats(3)]):
        await asyncio.sleep(0)


async def test_refusals_never_make_a_version_be_left_alone(router):
    for whole in (0, 422):
        router.inference.refusing, router.inference.whole = {"linear": {-1.0}}, whole
        for _ in range(10):
            (answer,) = await router.predict.rows("delay", [seats(-1)])
            assert isinstance(answer, ServiceError)
    assert len(router.inference.asked) == 20


async def test_features_that_fail_again_and_again_are_left_alone_by_all_who_share_them_and_come_back(
    router,
):
    features, inference = router.features, router.inference
    twin = msgspec.structs.replace(inference.registered[1], model="twin", champion=True)
    inference.registered.append(twin)
    await router.catalog.refresh()
    await run(router)
    new = router.unit_of("new")
    features.down = True
    for _ in range(20):
        for model in ("late", "twin"):
            (answer,) = await router.predict.rows(model, [row(new)])
            assert (answer.degraded, answer.version) == (True, "streaming")
    assert len(features.asked) == router.settings.breaker_failures
    features.down = False
    router.clock.advance(router.settings.breaker_rest_s)
    (answer,) = await router.predict.rows("late", [row(new)])
    assert not answer.degraded
    asked = len(features.asked)
    (answer,) = await router.predict.rows("twin", [row(new)])
    assert (answer.degraded, len(features.asked)) == (False, asked + 1)


async def test_features_without_a_default_that_are_left_alone_refuse_the_call_at_once(router):
    needed = InputColumn("mean_delay", "float", source="origin_delays:mean_delay")
    inputs = [router.inference.registered[1].inputs[0], needed]
    router.inference.registered.append(
        msgspec.structs.replace(router.inference.registered[1], model="needy", inputs=inputs, champion=True)
    )
    router.features.down = True
    for _ in range(10):
        with pytest.raises(ModelUnavailableError, match="features can't be read"):
            await router.predict.rows("needy", [row()])
    assert len(router.features.asked) == router.settings.breaker_failures


async def test_refused_rows_never_make_features_be_left_alone(router):
    await run(router)
    new = router.unit_of("new")
    router.features.refused = {"XXX"}
    for _ in range(10):
        answers = await router.predict.rows("late", [row(new, origin="XXX"), row(new)])
        assert [answer.degraded for answer in answers] == [False, False]
    asked = [entities["origin"] for _, entities, _ in router.features.asked]
    assert asked.count(["EWR"]) == 10


# By halves


async def ask_all(
    rows: list[int], bad: set[int], asked: list[int], budget_s: float = 10.0, reserve: float = 200
) -> list:
    async def ask(part: list[int]) -> list[int]:
        asked.append(len(part))
        if bad & set(part):
            raise QuestionRefusedError("no", 422, [])
        return [number * 10 for number in part]

    return await ask_by_halves(rows, ask, budget_s, RetryBudget("x", 0.25, reserve))


@pytest.mark.parametrize("bad", [set(), {0}, {63}, {5, 6}, set(range(64)), {3, 17, 40}])
async def test_halving_finds_every_refused_row_and_answers_the_rest_in_order(bad):
    asked: list[int] = []
    results = await ask_all(list(range(64)), bad, asked)
    for number, result in enumerate(results):
        assert isinstance(result, QuestionRefusedError) if number in bad else result == number * 10
    assert len(asked) <= max(1, 2 * len(bad) * 6 + 1)


async def test_halving_ends_with_its_budget():
    asked: list[int] = []
    results = await ask_all(list(range(64)), set(range(64)), asked, budget_s=-1)
    assert asked == []
    assert {type(result) for result in results} == {CallError}


async def test_halving_ends_when_too_many_questions_are_refused():
    asked: list[int] = []
    results = await ask_all(list(range(64)), set(range(64)), asked, reserve=10)
    assert len(asked) == 1 + 10
    assert len(results) == 64
    assert results[-1].__class__ is CallError


async def test_halves_that_nobody_answers_are_not_halved_further():
    async def ask(part: list[int]) -> list[int]:
        if len(part) > 2:
            raise QuestionRefusedError("too many", 413, [])
        if 3 in part:
            raise CallError("away")
        return part

    results = await ask_by_halves([0, 1, 2, 3, 4, 5, 6, 7], ask, 10.0, RetryBudget("x", 1, 100))
    assert [type(result) if isinstance(result, CallError) else result for result in results] == [
        0,
        1,
        CallError,
        CallError,
        4,
        5,
        6,
        7,
    ]
