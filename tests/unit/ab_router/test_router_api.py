"""The router over HTTP, with the services behind it as fakes and a journal on disk."""

import os
from errno import EIO

import httpx
import pytest

from contender.contracts.problems import TYPE_PREFIX
from shared.journal import Journal, JournalRecord

NOW = 1_700_000_000.0
PREDICT = "/v1/models/late/predict"
BATCH = f"{PREDICT}/batch"
RIGHT = {"unit": "user-1", "entities": {"origin": "EWR"}, "inputs": {"distance": 700.0}}
NEW = {
    "name": "e",
    "model": "late",
    "variants": [
        {"name": "old", "version": "plain", "weight": 0.5},
        {"name": "new", "version": "streaming", "weight": 0.5},
    ],
}


def assert_problem(answer: httpx.Response, status: int, slug: str, *fields: str) -> None:
    """The answer is a problem of that type, and names these fields and no others."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["type"], problem["status"]) == (TYPE_PREFIX + slug, status)
    assert problem["title"]
    assert problem["detail"]
    assert [error["field"] for error in problem.get("errors", [])] == list(fields)


async def test_a_prediction_is_answered_with_the_id_that_feedback_refers_to(client, router):
    answer = await client.post(PREDICT, json=RIGHT)
    assert answer.status_code == 200
    prediction = answer.json()
    block, at = router.kept(prediction.pop("prediction_id"))
    assert (block.unit[at], block.score[at]) == ("user-1", 0.2)
    assert prediction == {
        "model": "late",
        "version": "plain",
        "variant": None,
        "experiment": None,
        "outputs": {"score": 0.2, "label": "on time"},
        "degraded": False,
    }


async def test_the_inputs_are_answered_when_asked_for(client):
    answer = await client.post(PREDICT, json={**RIGHT, "return_inputs": True})
    assert answer.json()["inputs"] == {"distance": 700.0, "carrier": "UA"}


async def test_a_batch_is_answered_in_its_order(client, router):
    await client.post("/v1/experiments", json={**NEW, "clock": "event"})
    await client.post("/v1/experiments/e/start")
    variants = ["new", "old", "old", "new", "old"]
    units = [router.unit_of(variant) for variant in variants]
    rows = [{**RIGHT, "unit": unit, "time": float(at)} for at, unit in enumerate(units)]
    answer = await client.post(BATCH, json={"rows": rows})
    predictions = answer.json()["predictions"]
    assert [prediction["variant"] for prediction in predictions] == variants
    for at, prediction in enumerate(predictions):
        block, index = router.kept(prediction["prediction_id"])
        assert (block.unit[index], block.time[index], block.variant) == (units[at], float(at), variants[at])


async def test_an_experiment_goes_from_draft_to_running_to_stopped(client, router):
    created = await client.post("/v1/experiments", json=NEW)
    assert (created.status_code, created.json()["status"], created.json()["champion"]) == (201, "draft", "old")
    assert (await client.post(PREDICT, json=RIGHT)).json()["experiment"] is None
    assert (await client.post("/v1/experiments/e/start")).json()["status"] == "running"
    assert (await client.post(PREDICT, json=RIGHT)).json()["experiment"] == "e"
    stopped = await client.post("/v1/experiments/e/stop")
    assert (stopped.json()["status"], stopped.json()["revision"]) == ("stopped", 3)
    assert (await client.post(PREDICT, json=RIGHT)).json()["experiment"] is None
    assert (await client.get("/v1/experiments/e")).json() == stopped.json()
    sent = [record for record in router.records() if record.topic == "experiments"]
    assert [record.key for record in sent] == [b"e"] * 3


async def test_experiments_are_listed_oldest_first(client):
    assert (await client.get("/v1/experiments")).json() == {"experiments": []}
    for name in ("second", "first"):
        await client.post("/v1/experiments", json={**NEW, "name": name})
    listed = (await client.get("/v1/experiments")).json()["experiments"]
    assert [experiment["name"] for experiment in listed] == ["second", "first"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inputs": {}}, "inputs.distance"),
        ({"inputs": {"distance": None}}, "inputs.distance"),
        ({"inputs": {"distance": "far"}}, "inputs.distance"),
        ({"inputs": {"distance": True}}, "inputs.distance"),
        ({"inputs": {"distance": 1e39}}, "inputs.distance"),
        ({"inputs": {"distance": 10**400}}, "inputs.distance"),
        ({"inputs": {"distance": 1, "carrier": 7}}, "inputs.carrier"),
        ({"inputs": {"distance": 1, "carrier": "x" * 51}}, "inputs.carrier"),
        ({"inputs": {"distance": 1, "weather": "fog"}}, "inputs.weather"),
        ({"inputs": {"distance": 1, "mean_delay": 3.0}}, "inputs.mean_delay"),
        ({"unit": "x" * 51}, "unit"),
        ({"entities": {"origin": 2**53 + 1}}, "entities.origin"),
        ({"entities": {}}, "entities.origin"),
        ({"entities": {"origin": ""}}, "entities.origin"),
        ({"entities": {"origin": "x" * 51}}, "entities.origin"),
        ({"entities": {"origin": 2**64}}, "entities.origin"),
        ({"context": {"country": "x" * 51}}, "context.country"),
        ({"context": {"age": 10**400}}, "context.age"),
        ({"time": NOW + 301}, "time"),
        ({"time": -1}, "time"),
    ],
)
async def test_a_row_that_can_not_be_answered_is_refused_by_field_alone_and_in_a_batch(client, router, changes, field):
    await client.post("/v1/experiments", json=NEW)
    await client.post("/v1/experiments/e/start")
    wrong = {**RIGHT, **changes}
    assert_problem(await client.post(PREDICT, json=wrong), 422, "invalid-field", field)
    answer = await client.post(BATCH, json={"rows": [wrong, wrong]})
    assert_problem(answer, 422, "invalid-field", f"rows[0].{field}", f"rows[1].{field}")
    assert router.frames() == []
    assert router.inference.asked == []
    answer = await client.post(BATCH, json={"rows": [RIGHT, wrong]})
    right, refused = answer.json()["predictions"]
    assert (answer.status_code, right["outputs"]["score"] in (0.2, 0.7), list(refused)) == (200, True, ["error"])
    problem = refused["error"]
    assert (problem["type"], problem["status"]) == (f"{TYPE_PREFIX}invalid-field", 422)
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inputs": {"distance": [1]}}, "inputs.distance"),
        ({"inputs": [1]}, "inputs"),
        ({"unit": 17}, "unit"),
        ({"unit": None}, "unit"),
        ({"entities": {"origin": None}}, "entities.origin"),
        ({"time": "now"}, "time"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_is_no_row_is_refused_with_its_whole_call(client, router, changes, field):
    wrong = {**RIGHT, **changes}
    assert_problem(await client.post(PREDICT, json=wrong), 422, "invalid-field", field)
    answer = await client.post(BATCH, json={"rows": [RIGHT, wrong]})
    assert_problem(answer, 422, "invalid-field", f"rows[1].{field}")
    assert router.records() == []


async def test_whoever_sends_what_is_a_feature_is_told_where_it_comes_from(client):
    await client.post("/v1/experiments", json=NEW)
    await client.post("/v1/experiments/e/start")
    answer = await client.post(PREDICT, json={**RIGHT, "inputs": {"distance": 1, "mean_delay": 3.0}})
    assert "served as origin_delays:mean_delay" in answer.json()["detail"]


async def test_a_row_without_a_unit_is_answered_while_no_experiment_is_in_force(client, router):
    for body in ({name: value for name, value in RIGHT.items() if name != "unit"}, {**RIGHT, "unit": ""}):
        answer = await client.post(PREDICT, json=body)
        assert answer.status_code == 200
        block, at = router.kept(answer.json()["prediction_id"])
        assert (block.unit[at], block.experiment) == ("", None)


async def test_an_answer_tells_how_its_row_was_assigned(client, router):
    variants = [{"name": "a", "version": "plain", "weight": 0.5}, {"name": "b", "version": "streaming", "weight": 0.5}]
    declared = {"name": "e", "model": "late", "variants": variants, "forced": {"tester": "b"}}
    assert (await client.post("/v1/experiments", json=declared)).status_code == 201
    assert (await client.post("/v1/experiments/e/start")).status_code == 200
    answer = (await client.post(PREDICT, json=RIGHT)).json()
    assert (answer["reason"], answer["experiment"], answer["epoch"]) == ("split", "e", 1)
    assert (answer["share"], answer["probability"], answer["revision"]) == (0.5, 0.5, 2)
    assert "excluded" not in answer
    forced = (await client.post(PREDICT, json={**RIGHT, "unit": "tester"})).json()
    assert (forced["reason"], forced["variant"], forced["version"]) == ("forced", "b", "streaming")
    assert (forced["excluded"], forced["experiment"]) == (True, "e")
    assert "probability" not in forced
    refused = await client.post(PREDICT, json={**RIGHT, "unit": ""})
    assert_problem(refused, 422, "invalid-field", "unit")


async def test_times_up_to_five_minutes_ahead_are_another_clocks(client):
    assert (await client.post(PREDICT, json={**RIGHT, "time": NOW + 300})).status_code == 200


async def test_a_missing_field_is_named(client, router):
    assert_problem(await client.post(BATCH, json={}), 422, "invalid-field", "rows")
    assert_problem(await client.post(BATCH, json={"rows": []}), 422, "invalid-field", "rows")
    assert router.records() == []


@pytest.mark.parametrize(("path", "first"), [(PREDICT, "unit"), (BATCH, "rows"), ("/v1/experiments", "name")])
async def test_a_body_that_can_not_be_read_is_a_problem(client, router, path, first):
    async def post(value: bytes, content_type: str = "application/json") -> httpx.Response:
        content = b'{"%s": %s}' % (first.encode(), value)
        return await client.post(path, content=content, headers={"content-type": content_type})

    for value in (b"NaN", b"Infinity", b"-Infinity", b"", b"nul"):
        assert_problem(await post(value), 400, "bad-request")
    assert_problem(await client.post(path, headers={"content-type": "application/json"}), 400, "bad-request")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert_problem(await post(b"[]", content_type), 415, "unsupported-media-type")
    assert_problem(await post(b'"%s"' % (b"x" * 2000)), 413, "too-large")
    assert router.records() == []


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b'"\xff"', b'"\\ud800"'])
async def test_a_value_that_is_not_json_is_no_input(client, router, value):
    content = b'{"unit": "u", "inputs": {"distance": %s}}' % value
    answer = await client.post(PREDICT, content=content, headers={"content-type": "application/json"})
    assert_problem(answer, 400, "bad-request")
    assert router.records() == []


async def test_more_rows_than_one_call_takes_are_too_many(client, router):
    answer = await client.post(BATCH, json={"rows": [RIGHT] * 6})
    assert_problem(answer, 413, "too-large")
    assert router.records() == []


async def test_no_more_than_twenty_faults_are_named(client):
    wrong = {**RIGHT, "context": {f"segment-{at}": "" for at in range(30)}}
    answer = await client.post(PREDICT, json=wrong)
    assert_problem(answer, 422, "invalid-field", *(f"context.segment-{at}" for at in range(20)))


async def test_what_does_not_exist_is_not_found(client, router):
    assert_problem(await client.post("/v1/models/early/predict", json=RIGHT), 404, "unknown-model")
    assert_problem(await client.post("/v1/models/early/predict/batch", json={"rows": [RIGHT]}), 404, "unknown-model")
    assert_problem(await client.get("/v1/experiments/none"), 404, "unknown-experiment")
    for change in ("start", "stop"):
        assert_problem(await client.post(f"/v1/experiments/none/{change}"), 404, "unknown-experiment")
    assert_problem(await client.post("/v1/experiments", json={**NEW, "model": "early"}), 404, "unknown-model")
    assert_problem(await client.get("/v1/nothing"), 404, "not-found")
    assert router.records() == []


async def test_a_method_that_is_not_allowed_is_a_problem_that_names_those_that_are(client):
    for method, path, allowed in (("GET", PREDICT, {"POST"}), ("DELETE", "/v1/experiments/e", {"GET", "HEAD"})):
        answer = await client.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        (
            {"variants": [{**variant, "version": "none"} for variant in NEW["variants"]]},
            [f"variants[{at}].version" for at in (0, 1)],
        ),
        (
            {"variants": [{**NEW["variants"][0], "weight": 1e308}] * 2},
            ["variants"] * 2 + [f"variants[{at}].weight" for at in (0, 1)],
        ),
        ({"variants": "many"}, ["variants"]),
        ({"metric": "squared_error"}, ["metric"]),
        ({"window_s": "a day"}, ["window_s"]),
        ({"missing": "ignored"}, ["missing"]),
        ({"clock": "lunar"}, ["clock"]),
        ({"guardrails": [{"metric": 7}]}, ["guardrails[0].metric"]),
        ({"hypothesis": "non-inferiority", "cycle_days": 0, "time_zone": "?"}, ["margin", "time_zone", "cycle_reason"]),
        ({"share": 0.5}, ["share"]),
    ],
)
async def test_what_can_not_be_an_experiment_is_refused_by_field_and_not_kept(client, router, changes, fields):
    assert_problem(await client.post("/v1/experiments", json={**NEW, **changes}), 422, "invalid-field", *fields)
    assert router.records() == []
    assert await router.store.current() == []


async def test_a_name_is_taken_for_good(client, router):
    await client.post("/v1/experiments", json=NEW)
    assert_problem(await client.post("/v1/experiments", json={**NEW, "window_s": 5}), 409, "experiment-exists")
    assert (await client.get("/v1/experiments/e")).json()["window_s"] == 86_400.0
    assert len(router.records()) == 1


async def test_an_experiment_starts_and_stops_once(client, router):
    await client.post("/v1/experiments", json=NEW)
    assert_problem(await client.post("/v1/experiments/e/stop"), 409, "experiment-state")
    await client.post("/v1/experiments/e/start")
    assert_problem(await client.post("/v1/experiments/e/start"), 409, "experiment-state")
    await client.post("/v1/experiments/e/stop")
    for change in ("start", "stop"):
        assert_problem(await client.post(f"/v1/experiments/e/{change}"), 409, "experiment-state")
    assert len(router.records()) == 3


async def test_experiments_that_could_take_the_same_units_do_not_start_beside_each_other(client):
    for name in ("e", "f"):
        await client.post("/v1/experiments", json={**NEW, "name": name})
    await client.post("/v1/experiments/e/start")
    answer = await client.post("/v1/experiments/f/start")
    assert_problem(answer, 409, "experiments-overlap", "namespace")
    assert "the same units of model late as e (running)" in answer.json()["detail"]
    assert (await client.get("/v1/experiments/f")).json()["status"] == "draft"
    await client.post("/v1/experiments/e/stop")
    assert (await client.post("/v1/experiments/f/start")).status_code == 200


async def test_a_model_that_fails_is_a_problem_that_says_when_to_ask_again(client, router):
    router.inference.failing = {"plain"}
    answer = await client.post(PREDICT, json=RIGHT)
    assert_problem(answer, 503, "model-unavailable")
    assert answer.headers["retry-after"] == "1"
    assert router.records() == []


async def test_a_full_journal_is_a_problem_and_was_no_secret_beforehand(
    open_router, client_of, settings, features, inference
):
    full = Journal.open(settings.data / "full", limit_bytes=900)
    async with open_router(settings, full, features, inference) as router, client_of(router) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post(PREDICT, json=RIGHT)).status_code == 200
        full.append("predictions", 0, None, [], b"x" * (full.limit_bytes - full.unsent_bytes - 40))
        assert_problem(await client.get("/readyz"), 503, "unavailable")
        held = full.unsent_bytes
        answer = await client.post(PREDICT, json=RIGHT)
        assert_problem(answer, 503, "journal-full")
        assert answer.headers["retry-after"] == "5"
        assert full.unsent_bytes == held
    full.close()


async def test_the_router_is_ready_until_the_inference_service_has_been_silent_for_a_while(client, router):
    router.features.down = True
    router.inference.silent_s = router.settings.unready_after_s - 0.1
    assert (await client.get("/readyz")).status_code == 200
    router.inference.silent_s = router.settings.unready_after_s + 0.1
    answer = await client.get("/readyz")
    assert_problem(answer, 503, "unavailable")
    assert "inference service does not answer" in answer.json()["detail"]
    await client.post("/v1/experiments", json={**NEW, "fallback_value": 0.4})
    assert (await client.get("/readyz")).status_code == 503
    await client.post("/v1/experiments/e/start")
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["remarks"] == [
        "the inference service does not answer; fallback values answer for experiments e"
    ]


async def test_a_router_with_a_refused_record_is_ready_and_names_it(client, router):
    assert "remarks" not in (await client.get("/readyz")).json()
    router.journal.refuse(JournalRecord("predictions", 2, b"k", [("ce_id", b"01ABC")], b"value"))
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert "predictions:2 01ABC" in answer.json()["remarks"][0]


async def test_a_disk_that_fails_is_a_problem_and_no_fault_of_ours(client, router):
    def failing(_: int) -> None:
        raise OSError(EIO, os.strerror(EIO))

    working, router.journal.sync_file = router.journal.sync_file, failing
    answer = await client.post(PREDICT, json=RIGHT)
    ready = await client.get("/readyz")
    router.journal.sync_file = working
    assert_problem(answer, 503, "journal-full")
    assert_problem(ready, 503, "unavailable")
    assert "disk" in ready.json()["detail"]
    assert answer.headers["retry-after"] == "5"
    assert router.records() == []
    assert (await client.post(PREDICT, json=RIGHT)).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
