"""The life of experiments over HTTP: every call, every problem, and nothing of what runs touched by a refusal."""

import httpx
import msgspec
import pytest

from contender.contracts.experiments import Evidence
from services.ab_router.errors import ExperimentStoreError

PATH = "/v1/experiments"
VARIANTS = [
    {"name": "old", "version": "plain", "weight": 0.5},
    {"name": "new", "version": "streaming", "weight": 0.5},
]
NEW = {"name": "e", "model": "late", "variants": VARIANTS}
VERDICT = Evidence(experiment="e", number=1, challenger="new", status="challenger better", sentence="Better.", at=30.0)


def problem_of(answer: httpx.Response) -> tuple[int, str, list[str]]:
    """Status, kind and named fields of a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"]
    kind = problem["type"].removeprefix("/problems/")
    return answer.status_code, kind, [error["field"] for error in problem.get("errors", [])]


@pytest.fixture
async def started(client):
    await client.post(PATH, json=NEW)
    answer = await client.post(f"{PATH}/e/start", json={"reason": "agreed", "changed_by": "ann"})
    assert answer.status_code == 200
    return answer.json()


async def test_an_experiment_is_paused_ramped_decided_promoted_and_restarted(client, router, started):
    assert (started["status"], started["reason"], started["changed_by"]) == ("running", "agreed", "ann")
    assert (await client.post(f"{PATH}/e/pause")).json()["status"] == "paused"
    assert (await client.post(f"{PATH}/e/start")).json()["status"] == "running"
    ramped = await client.post(f"{PATH}/e/ramp", json={"weights": {"old": 0.8, "new": 0.2}, "reason": "slower"})
    assert (ramped.json()["epoch"], ramped.json()["sticky"], ramped.json()["reason"]) == (2, True, "slower")
    await router.experiments.decide("e", VERDICT)
    promoted = (await client.post(f"{PATH}/e/promote", json={"changed_by": "ann"})).json()
    assert (promoted["status"], promoted["model_champion"], promoted["evidence"]["number"]) == (
        "stopped",
        "streaming",
        1,
    )
    again = (await client.post(f"{PATH}/e/restart")).json()
    assert (again["name"], again["restart_of"], again["variants"][0]["weight"]) == ("e-2", "e", 0.5)
    history = (await client.get(f"{PATH}/e/history")).json()["history"]
    assert [entry["revision"]["status"] for entry in history] == [
        "draft",
        "running",
        "paused",
        "running",
        "running",
        "decided",
        "stopped",
    ]
    assert {change["field"] for change in history[2]["changes"]} == {"status"}
    shown = [(await client.get(f"{PATH}/e", params={"revision": number})).json() for number in (1, 2)]
    assert [revision["status"] for revision in shown] == ["draft", "running"]
    as_of = {"as_of": shown[0]["changed_at"] - 1}
    assert problem_of(await client.get(f"{PATH}/e", params=as_of)) == (404, "unknown-experiment", [])


async def test_a_draft_is_replaced_and_of_a_started_experiment_what_is_not_fixed(client):
    await client.post(PATH, json=NEW)
    replaced = await client.put(f"{PATH}/e", json={**NEW, "metric": "brier", "reason": "calibration"})
    assert (replaced.json()["metric"], replaced.json()["revision"], replaced.json()["reason"]) == (
        "brier",
        2,
        "calibration",
    )
    await client.post(f"{PATH}/e/start")
    owned = await client.put(f"{PATH}/e", json={**NEW, "metric": "brier", "owner": "ann", "forced": {"t": "new"}})
    assert (owned.json()["owner"], owned.json()["forced"], owned.json()["epoch"]) == ("ann", {"t": "new"}, 1)


async def test_the_kill_switch_stops_all(client, started):
    stopped = await client.post("/v1/models/late/stop", json={"reason": "an incident"})
    assert [(one["name"], one["status"]) for one in stopped.json()["experiments"]] == [("e", "stopped")]
    assert (await client.post("/v1/models/late/stop")).json() == {"experiments": []}


async def test_readiness_lists_what_speaks_against_a_start(client, started):
    await client.post(PATH, json={**NEW, "name": "f"})
    ready = (await client.get(f"{PATH}/f/readiness")).json()
    assert ready == {
        "ready": False,
        "findings": [],
        "overlaps": [{"experiment": "e", "status": "running", "share": 1.0, "shares_units": True}],
        "rows": 0,
        "since": None,
    }


@pytest.mark.parametrize(
    ("call", "body", "expected"),
    [
        ("PUT e", {**NEW, "metric": "brier", "alpha": 0.1}, (409, "design-fixed", ["metric", "alpha"])),
        ("PUT e", {**NEW, "coverage": 0.5}, (409, "design-fixed", ["coverage"])),
        ("PUT e", {**NEW, "revision": 1}, (409, "experiment-changed", ["revision"])),
        ("PUT e", {**NEW, "metric": "squared_error"}, (422, "invalid-field", ["metric"])),
        ("PUT e", {**NEW, "name": "f"}, (422, "invalid-field", ["name"])),
        ("PUT e", {**NEW, "model": "none"}, (404, "unknown-model", [])),
        ("PUT e", {**NEW, "forced": {"t": "nobody"}}, (422, "invalid-field", ["forced.t"])),
        ("PUT e", {**NEW, "namespace": {"name": "n", "start": 1, "end": 0}}, (422, "invalid-field", ["namespace"])),
        ("POST e/start", {}, (409, "experiment-state", [])),
        ("POST e/start", {"revision": 1}, (409, "experiment-changed", ["revision"])),
        ("POST e/stop", {"revision": 1}, (409, "experiment-changed", ["revision"])),
        ("POST e/pause", {"revision": 9}, (422, "invalid-field", ["revision"])),
        ("POST e/pause", {"reason": "x" * 501}, (422, "invalid-field", ["reason"])),
        ("POST e/pause", {"reasons": "x"}, (422, "invalid-field", ["reasons"])),
        ("POST e/ramp", {"weights": {"old": 0.5, "new": 0.4}}, (422, "invalid-field", ["weights"])),
        ("POST e/ramp", {"weights": {"old": 1.0}}, (422, "invalid-field", ["weights.new"])),
        ("POST e/ramp", {"coverage": 0.0001}, (422, "invalid-field", ["weights.old", "weights.new"])),
        ("POST e/ramp", {"coverage": 2}, (422, "invalid-field", ["coverage"])),
        ("POST e/ramp", {"coverage": "much"}, (422, "invalid-field", ["coverage"])),
        ("POST e/promote", {}, (409, "not-decided", [])),
        ("POST e/promote", {"variant": "old"}, (422, "invalid-field", ["variant"])),
        ("POST e/restart", {"name": "e"}, (409, "experiment-exists", [])),
        ("POST e/restart", {"name": "a b"}, (422, "invalid-field", ["name"])),
        ("POST f/start", {}, (409, "experiments-overlap", ["namespace"])),
        ("POST f/stop", {}, (409, "experiment-state", [])),
        ("POST f/pause", {}, (409, "experiment-state", [])),
        ("POST f/restart", {}, (409, "experiment-state", [])),
        ("POST f/promote", {"override": "we know"}, (409, "experiment-state", [])),
        ("POST f/ramp", {"coverage": 0.5}, (409, "experiment-state", [])),
        ("GET e?revision=9", None, (404, "unknown-experiment", [])),
        ("GET e?revision=1&as_of=1", None, (422, "invalid-field", ["query.as_of"])),
        ("GET e?as_of=nan", None, (422, "invalid-field", ["query.as_of"])),
        ("GET e?revision=first", None, (422, "invalid-field", ["query.revision"])),
    ],
)
async def test_a_change_that_can_not_be_is_a_problem_and_what_runs_is_untouched(client, started, call, body, expected):
    await client.post(PATH, json={**NEW, "name": "f"})
    method, path = call.split()
    answer = await client.request(method, f"{PATH}/{path}", json=body)
    assert problem_of(answer) == expected
    assert (await client.get(f"{PATH}/e")).json() == started
    assert len((await client.get(f"{PATH}/e/history")).json()["history"]) == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "none", None),
        ("PUT", "none", {**NEW, "name": "none"}),
        ("GET", "none/history", None),
        ("GET", "none/readiness", None),
        *(("POST", f"none/{change}", {}) for change in ("start", "pause", "stop", "restart", "promote", "ramp")),
    ],
)
async def test_an_unknown_experiment_is_not_found(client, method, path, body):
    answer = await client.request(method, f"{PATH}/{path}", json=body)
    assert problem_of(answer) == (404, "unknown-experiment", [])


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"variants": [{**VARIANTS[0], "weight": 0.9}, {**VARIANTS[1], "weight": 0.2}]}, ["variants"]),
        (
            {"variants": [{**VARIANTS[0], "weight": 0.95}, {**VARIANTS[1], "weight": 0.05}], "coverage": 0.001},
            ["variants[1].weight"],
        ),
        ({"targeting": [{"key": "a", "matches": "("}]}, ["targeting[0].matches"]),
        ({"targeting": [{"key": "a", "is": 1}]}, ["targeting[0].is"]),
        ({"targeting": [{"key": "a"}]}, ["targeting[0]"]),
        ({"canary": {"steps": [0.5, 0.1]}}, ["canary.steps"]),
        ({"canary": {}, "bandit": {}}, ["bandit"]),
        ({"bandit": {"floor": 0.6}}, ["bandit.floor"]),
        ({"holdout": 0.9}, ["holdout"]),
        ({"unit_missing": "guess"}, ["unit_missing"]),
        ({"shadow": True}, ["variants[0].weight", "variants[1].weight"]),
        ({"namespace": {"name": "n", "begin": 0}}, ["namespace.begin"]),
        ({"model": "delay"}, ["variants[0].version", "variants[1].version"]),
    ],
)
async def test_what_can_not_be_declared_is_refused_by_field(client, changes, fields):
    answer = await client.post(PATH, json={**NEW, **changes})
    assert problem_of(answer) == (422, "invalid-field", fields)
    assert (await client.get(PATH)).json() == {"experiments": []}


async def test_a_newer_revision_is_named_to_whoever_changes_an_older_one(client, started):
    problem = (await client.post(f"{PATH}/e/stop", json={"revision": 1})).json()
    assert "the newest is 2, which is running" in problem["detail"]
    assert "the newest is 2" in problem["errors"][0]["message"]


async def test_while_the_database_is_away_experiments_are_read_and_changes_are_refused(client, router, started):
    async def away(*_: object) -> None:
        raise ExperimentStoreError("experiments can't be read or changed at the moment")

    store = router.store
    store.current = store.add = store.history = away
    for method, path, body in (
        ("POST", "", {**NEW, "name": "f"}),
        ("PUT", "/e", NEW),
        ("POST", "/e/start", {}),
        ("POST", "/e/pause", {}),
        ("POST", "/e/stop", {}),
        ("POST", "/e/ramp", {"coverage": 0.5}),
        ("POST", "/e/restart", {}),
        ("POST", "/e/promote", {}),
        ("GET", "/e/history", None),
        ("GET", "/e?revision=1", None),
    ):
        answer = await client.request(method, f"{PATH}{path}", json=body)
        assert problem_of(answer) == (503, "experiments-unavailable", [])
        assert answer.headers["retry-after"] == "1"
    assert problem_of(await client.post("/v1/models/late/stop"))[1] == "experiments-unavailable"
    assert (await client.get(f"{PATH}/e")).json() == started
    row = {"unit": "u", "entities": {"origin": "EWR"}, "inputs": {"distance": 7}}
    assert (await client.post("/v1/models/late/predict", json=row)).json()["experiment"] == "e"
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["remarks"] == [
        "the database of experiments does not answer: they go on as they were, and can't be changed"
    ]


async def test_a_paused_experiment_assigns_no_row(client, started):
    row = {"unit": "u", "entities": {"origin": "EWR"}, "inputs": {"distance": 7}}
    await client.post(f"{PATH}/e/pause")
    paused = (await client.post("/v1/models/late/predict", json=row)).json()
    assert (paused["experiment"], paused["version"]) == (None, "plain")


async def test_the_answer_of_a_revision_is_what_the_topic_gets(client, router, started):
    sent = [record for record in router.records() if record.topic == "experiments"]
    assert msgspec.json.decode(sent[-1].value) == started
