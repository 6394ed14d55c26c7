"""OFREP: flags are experiments in force, assigned as predictions are, and nothing is written."""

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from contender.contracts.experiments import VariantAllocation

FLAGS = "/ofrep/v1/evaluate/flags"
FLAG = f"{FLAGS}/e"
PREDICT = "/v1/models/late/predict"
RIGHT = {"entities": {"origin": "EWR"}, "inputs": {"distance": 700.0}}
NEW = {
    "name": "e",
    "model": "late",
    "coverage": 0.8,
    "variants": [
        {"name": "old", "version": "plain", "weight": 0.5},
        {"name": "new", "version": "streaming", "weight": 0.5},
    ],
}


@pytest.fixture
async def running(client):
    await client.post("/v1/experiments", json=NEW)
    await client.post("/v1/experiments/e/start")


async def revise(router, name: str = "e", **changes) -> None:
    """A revision that another router made."""
    revision = router.experiments.find(name)
    assert await router.store.add(replace(revision, revision=revision.revision + 1, **changes))
    await router.experiments.refresh()


def failure(answer: httpx.Response) -> tuple[int, str, str | None]:
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["errorDetails"]
    return answer.status_code, body["errorCode"], body.get("key")


async def evaluated(client, unit: str, **context) -> dict:
    answer = await client.post(FLAG, json={"context": {"targetingKey": unit, **context}})
    assert answer.status_code == 200
    return answer.json()


async def test_a_unit_has_the_variant_that_its_predictions_have(client, router, running):
    for unit in map("user-{}".format, range(100)):
        flag = await evaluated(client, unit, country="NZ", trial=True, seats=3)
        prediction = (await client.post(PREDICT, json={"unit": unit, **RIGHT})).json()
        assert flag["key"] == "e"
        assert flag["value"] == flag["variant"] == (prediction["variant"] or "old")
        assert flag["reason"] == ("SPLIT" if prediction["variant"] else "STATIC")
        assert flag["metadata"]["version"] == prediction["version"]


async def test_the_metadata_say_where_the_variant_comes_from(client, router, running):
    inside, outside = [await evaluated(client, router.unit_of(variant)) for variant in ("new", None)]
    origin = {"model": "late", "revision": 2, "epoch": 1}
    assert inside["metadata"] == {
        **origin,
        "assignment": "split",
        "version": "streaming",
        "share": 0.4,
        "probability": 0.4,
    }
    assert outside["metadata"] == {**origin, "assignment": "outside coverage", "version": "plain"}


async def test_an_evaluation_writes_nothing(client, router, running):
    before = router.records()
    await evaluated(client, "user-1")
    await client.post(FLAGS, json={"context": {"targetingKey": "user-1"}})
    assert router.records() == before
    assert router.inference.asked == []


async def test_a_paused_experiment_gives_the_champion_and_says_so(client, router, running):
    unit = router.unit_of("new")
    await revise(router, status="paused")
    flag = await evaluated(client, unit)
    assert (flag["value"], flag["reason"], flag["metadata"]["assignment"]) == ("old", "DISABLED", "paused")
    assert "share" not in flag["metadata"]


async def test_a_decided_experiment_assigns_as_before(client, router, running):
    unit = router.unit_of("new")
    await revise(router, status="decided")
    assert (await evaluated(client, unit))["value"] == "new"


async def test_a_unit_outside_is_answered_by_the_version_that_is_champion_now(client, router, running):
    champion = {version.version: version.version == "streaming" for version in router.inference.registered}
    router.inference.registered = [
        msgspec.structs.replace(version, champion=champion[version.version]) for version in router.inference.registered
    ]
    await router.catalog.refresh()
    await router.experiments.refresh()
    assert (await evaluated(client, router.unit_of(None)))["metadata"]["version"] == "streaming"


async def test_what_is_not_in_force_is_no_flag(client, router):
    unit = {"context": {"targetingKey": "user-1"}}
    await client.post("/v1/experiments", json=NEW)
    assert failure(await client.post(FLAG, json=unit)) == (404, "FLAG_NOT_FOUND", "e")
    assert failure(await client.post(f"{FLAGS}/{'x' * 200}", json=unit))[:2] == (404, "FLAG_NOT_FOUND")
    await client.post("/v1/experiments/e/start")
    await client.post("/v1/experiments/e/stop")
    assert failure(await client.post(FLAG, json=unit)) == (404, "FLAG_NOT_FOUND", "e")
    assert (await client.post(FLAGS, json=unit)).json() == {"flags": []}


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"{", "PARSE_ERROR", "not JSON"),
        (b"\xff", "PARSE_ERROR", "not JSON"),
        (b"", "PARSE_ERROR", "not JSON"),
        (b"[]", "INVALID_CONTEXT", "body"),
        (b"{}", "INVALID_CONTEXT", "context"),
        (b'{"context": null}', "INVALID_CONTEXT", "context"),
        (b'{"context": 7}', "INVALID_CONTEXT", "context"),
        (b'{"context": {}}', "TARGETING_KEY_MISSING", "targetingKey"),
        (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING", "targetingKey"),
        (b'{"context": {"targetingKey": null}}', "TARGETING_KEY_MISSING", "targetingKey"),
        (b'{"context": {"targetingKey": 17}}', "INVALID_CONTEXT", "context.targetingKey"),
        (b'{"context": {"targetingKey": "%s"}}' % (b"x" * 51), "INVALID_CONTEXT", "context.targetingKey"),
        (b'{"context": {"targetingKey": "u", "plan": "%s"}}' % (b"x" * 51), "INVALID_CONTEXT", "context.plan"),
        (b'{"context": {"targetingKey": "u", "age": 1%s}}' % (b"0" * 30), "INVALID_CONTEXT", "context.age"),
        (b'{"context": {"targetingKey": "u", "%s": 1}}' % (b"x" * 51), "INVALID_CONTEXT", "context"),
    ],
)
async def test_what_can_not_be_evaluated_is_refused_in_the_protocols_words(client, running, body, code, named):
    headers = {"content-type": "application/json"}
    for path, key in ((FLAG, "e"), (FLAGS, None)):
        answer = await client.post(path, content=body, headers=headers)
        assert failure(answer) == (400, code, key)
        assert named in answer.json()["errorDetails"]


async def test_refusals_that_any_call_may_have_are_in_the_protocols_form_too(client, running):
    assert failure(await client.post(FLAG, content=b"{}"))[:2] == (415, "GENERAL")
    too_long = {"context": {"targetingKey": "u", "plan": ["x"] * 1000}}
    assert failure(await client.post(FLAGS, json=too_long))[:2] == (413, "GENERAL")
    assert failure(await client.get(FLAG))[:2] == (405, "GENERAL")
    assert failure(await client.post(f"{FLAG}/more"))[:2] == (404, "GENERAL")
    assert (await client.get("/v1/experiments/none")).headers["content-type"] == "application/problem+json"


async def test_a_fault_of_ours_is_a_general_error(client, router, running):
    router.experiments.all = lambda: [None]
    answer = await client.post(FLAG, json={"context": {"targetingKey": "u"}})
    assert failure(answer) == (500, "GENERAL", "e")


async def test_lists_and_objects_of_the_context_are_no_obstacle(client, running):
    context = {"address": {"city": "Oslo"}, "groups": ["a"], "nothing": None}
    assert await evaluated(client, "user-1", **context) == await evaluated(client, "user-1")


async def test_all_flags_are_evaluated_at_once_and_only_again_when_they_have_changed(client, router, running):
    arms = [{"name": "a", "version": "linear", "weight": 0.5}, {"name": "b", "version": "linear", "weight": 0.5}]
    await client.post(
        "/v1/experiments", json={"name": "f", "model": "delay", "variants": arms, "metric": "absolute_error"}
    )
    await client.post("/v1/experiments/f/start")
    body = {"context": {"targetingKey": "user-1"}}
    answer = await client.post(FLAGS, json=body)
    flags = answer.json()["flags"]
    assert [flag["key"] for flag in flags] == ["e", "f"]
    assert flags[0] == await evaluated(client, "user-1")
    known = {"If-None-Match": answer.headers["etag"]}
    unchanged = await client.post(FLAGS, json=body, headers=known)
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", answer.headers["etag"])
    await revise(router, status="paused")
    changed = await client.post(FLAGS, json=body, headers=known)
    assert (changed.status_code, changed.json()["flags"][0]["reason"]) == (200, "DISABLED")


async def test_a_body_of_the_protocol_is_decoded_as_the_document_says(client, running):
    answer = await client.post(f"{FLAGS}?flagConfigEtag=abc", json={"context": {"targetingKey": "u"}, "more": 1})
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content)["flags"][0]["key"] == "e"


async def test_a_flag_follows_targeting_forced_units_and_first_variants_as_predictions_do(client, router):
    rules = [{"key": "country", "equals": "NZ"}]
    declared = NEW | {"targeting": rules, "forced": {"user-3": "new"}, "holdout": 0.1}
    assert (await client.post("/v1/experiments", json=declared)).status_code == 201
    await client.post("/v1/experiments/e/start")

    async def flags_as_predicted() -> dict[str, tuple[str, str, int]]:
        flags = {}
        for number in range(60):
            unit, context = f"user-{number}", {"country": "NZ" if number % 3 else "NO"}
            flag = await evaluated(client, unit, **context)
            body = {"unit": unit, "context": context, **RIGHT}
            prediction = (await client.post(PREDICT, json=body)).json()
            assert flag["value"] == (prediction["variant"] or "old")
            for name in ("share", "probability"):
                assert flag["metadata"].get(name) == prediction.get(name)
            assert flag["metadata"]["assignment"] == prediction["reason"]
            flags[unit] = f"{flag['reason']} {flag['metadata']['assignment']}", flag["value"], flag["metadata"]["epoch"]
        return flags

    first = await flags_as_predicted()
    kinds = {"SPLIT split", "TARGETING_MATCH forced", "STATIC not targeted", "STATIC holdout"}
    assert {kind for kind, _, _ in first.values()} >= kinds
    variants = [VariantAllocation("old", "plain", 0.1), VariantAllocation("new", "streaming", 0.9)]
    await revise(router, variants=variants, sticky=True, epoch=2)
    later = await flags_as_predicted()
    assert [later[unit] for unit, flag in first.items() if "split" in flag[0]] == [
        flag for flag in first.values() if "split" in flag[0]
    ]


async def test_an_evaluation_keeps_no_first_variant(client, router, running):
    before = dict(router.sticky._waiting)
    await evaluated(client, router.unit_of("new"))
    assert router.sticky._waiting == before
