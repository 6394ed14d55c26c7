"""The registry and predictions over HTTP: what goes well, and what a wrong question is told."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from services.inference_service.main import create_app, state_of
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import InMemoryVersionStore, Listing, UnreadableVersion
from shared.clock import FixedClock
from shared.testing import client_for

PROBLEM = "application/problem+json"
UNKNOWN = "0" * 64


@pytest.fixture
async def known(keep, churn):
    """The model that is registered as churn."""
    await keep("churn", churn.export)
    return churn


async def test_a_version_is_registered_once_and_named_by_the_hash_of_its_file(client, upload, churn):
    first = await upload(churn.export)
    assert (first.status_code, first.json()["version"]) == (201, churn.export.version)
    assert (first.json()["alias"], first.json()["registered_at"]) == ("champion", 1_700_000_000.0)
    again = await upload(churn.export)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len((await client.get("/v1/models")).json()["versions"]) == 1


async def test_the_range_of_a_regressions_targets_is_listed(client, upload, price, churn):
    await upload(price.export, "price")
    await upload(churn.export)
    listed = (await client.get("/v1/models")).json()["versions"]
    low, high = price.export.manifest["target_range"]
    targets = price.columns["seats"] * 3.0 + price.columns["usage"]
    assert (low, high) == (targets.min(), targets.max())
    assert {version["model"]: version["target_range"] for version in listed} == {"price": [low, high], "churn": None}
    shown = (await client.get("/v1/models/price/versions/champion")).json()
    assert shown["target_range"] == shown["manifest"]["target_range"] == [low, high]


async def test_the_categories_that_encoders_know_are_listed(client, upload, churn):
    await upload(churn.export)
    (listed,) = (await client.get("/v1/models")).json()["versions"]
    assert listed["categories"] == {"plan": sorted(set(churn.columns["plan"].dropna()))}


async def test_a_version_that_was_registered_without_categories_stays_the_same(client, upload, churn):
    manifest = {name: value for name, value in churn.export.manifest.items() if name != "categories"}
    assert (await upload(churn.export, manifest=manifest)).status_code == 201
    assert (await upload(churn.export)).status_code == 200
    (listed,) = (await client.get("/v1/models")).json()["versions"]
    assert listed["categories"] == {}


async def test_of_registrations_of_one_version_at_the_same_time_one_is_new_and_none_fails(client, upload, churn):
    answers = await asyncio.gather(*(upload(churn.export) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.text for answer in answers}) == 1
    assert len((await client.get("/v1/models")).json()["versions"]) == 1


async def test_a_registered_version_answers_as_scikit_learn_does(client, upload, churn):
    await upload(churn.export)
    path = f"/v1/models/churn/versions/{churn.export.version}/predict"
    answer = await client.post(path, json={"inputs": churn.inputs(300)})
    assert answer.status_code == 200
    wanted = churn.pipeline.predict_proba(churn.columns[:300])[:, 1]
    assert np.abs(np.array(answer.json()["scores"]) - wanted).max() < 1e-5
    assert answer.json()["labels"] == churn.pipeline.predict(churn.columns[:300]).tolist()


async def test_a_multiclass_version_answers_with_all_probabilities(client, keep, tier):
    await keep("tier", tier.export)
    answer = (await client.post("/v1/models/tier/versions/champion/predict", json={"inputs": tier.inputs(50)})).json()
    wanted = tier.pipeline.predict_proba(tier.columns[:50])
    assert np.abs(np.array(answer["scores"]) - wanted).max() < 1e-5
    assert answer["labels"] == tier.pipeline.predict(tier.columns[:50]).tolist()


async def test_a_regression_answers_with_its_values(client, keep, price):
    await keep("price", price.export)
    answer = (await client.post("/v1/models/price/versions/champion/predict", json={"inputs": price.inputs(3)})).json()
    assert answer["scores"] == pytest.approx(price.pipeline.predict(price.columns[:3]), rel=1e-5)
    assert answer["labels"] == answer["scores"]


async def test_a_null_is_what_scikit_learn_takes_for_missing(client, keep, price):
    export = replace(price.export, manifest={**price.export.manifest, "inputs": _optional(price, "usage")})
    await keep("price", export)
    inputs = {**price.inputs(2), "usage": [None, 100.0]}
    answer = await client.post("/v1/models/price/versions/champion/predict", json={"inputs": inputs})
    rows = price.columns[:2].assign(usage=[np.nan, 100.0])
    assert answer.json()["scores"] == pytest.approx(price.pipeline.predict(rows), rel=1e-5)


def _optional(fitted, name: str) -> list[dict[str, object]]:
    return [{**column, "required": column["name"] != name} for column in fitted.export.manifest["inputs"]]


async def test_models_and_versions_are_shown_with_their_manifest(client, upload, keep, churn, later_churn):
    await upload(churn.export)
    await keep("churn", later_churn.export)
    shown = (await client.get("/v1/models/churn")).json()
    assert shown["champion"] == churn.export.version
    assert [version["version"] for version in shown["versions"]] == [churn.export.version, later_churn.export.version]
    version = (await client.get(f"/v1/models/churn/versions/{churn.export.version}")).json()
    assert version["manifest"]["data"] == churn.export.manifest["data"]
    assert version["manifest"]["server_parity"]["rows"] == len(churn.export.sample["scores"])
    assert [column["name"] for column in version["inputs"]] == ["plan", "seats", "usage", "trial"]
    assert (await client.get("/v1/models/churn/versions/champion")).json() == version


async def test_lists_of_versions_have_no_manifests(client, upload, churn):
    await upload(churn.export)
    for path in ("/v1/models", "/v1/models/churn"):
        [version] = (await client.get(path)).json()["versions"]
        assert version["version"] == churn.export.version
        assert "manifest" not in version


async def test_whoever_has_the_list_of_versions_gets_it_again_when_it_changes(client, keep, churn, later_churn):
    await keep("churn", churn.export)
    first = await client.get("/v1/models")
    for known in (first.headers["etag"], f"W/{first.headers['etag']}", f'"other", {first.headers["etag"]}'):
        same = await client.get("/v1/models", headers={"if-none-match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    await keep("churn", later_churn.export)
    await client.put("/v1/models/churn/aliases/champion", json={"version": later_churn.export.version})
    changed = await client.get("/v1/models", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert [version["champion"] for version in changed.json()["versions"]] == [False, True]


async def test_a_promotion_moves_the_champion(client, keep, churn, later_churn):
    for fitted in (churn, later_churn):
        await keep("churn", fitted.export)
    answer = await client.put("/v1/models/churn/aliases/champion", json={"version": later_churn.export.version})
    assert (answer.status_code, answer.json()["alias"]) == (200, "champion")
    assert (await client.get("/v1/models/churn")).json()["champion"] == later_churn.export.version
    inputs = {"inputs": churn.inputs(1)}
    (score,) = (await client.post("/v1/models/churn/versions/champion/predict", json=inputs)).json()["scores"]
    assert score == pytest.approx(later_churn.pipeline.predict_proba(churn.columns[:1])[0, 1], abs=1e-5)


async def test_two_models_may_have_the_same_file(client, upload, churn):
    for model in ("churn", "churn-copy"):
        assert (await upload(churn.export, model)).status_code == 201
    listed = (await client.get("/v1/models")).json()["versions"]
    assert [(version["model"], version["champion"]) for version in listed] == [("churn", True), ("churn-copy", True)]


@pytest.mark.parametrize(
    ("method", "path", "slug"),
    [
        ("GET", "/v1/models/none", "unknown-model"),
        ("GET", "/v1/models/none/versions/champion", "unknown-model"),
        ("GET", f"/v1/models/churn/versions/{UNKNOWN}", "unknown-version"),
        ("POST", "/v1/models/none/versions/champion/predict", "unknown-model"),
        ("POST", f"/v1/models/churn/versions/{UNKNOWN}/predict", "unknown-version"),
        ("POST", "/v1/models/churn/versions/..%2F..%2Fstore.db/predict", "not-found"),
        ("PUT", "/v1/models/none/aliases/champion", "unknown-model"),
        ("PUT", "/v1/models/churn/aliases/champion", "unknown-version"),
        ("GET", "/v1/nothing", "not-found"),
    ],
)
async def test_what_is_not_there_is_not_found(client, known, method, path, slug):
    body = {"version": "champion"} if method == "PUT" else {"inputs": known.inputs(1)}
    answer = await client.request(method, path, json=None if method == "GET" else body)
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    assert answer.json()["type"].endswith(f"/{slug}")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"plan": None}, "inputs.plan"),
        ({"usage": [[1.0]]}, "inputs.usage[0]"),
        ({"usage": 1.0}, "inputs.usage"),
        ({"usage": [1.0, 2.0]}, "inputs.usage"),
        ({"colour": ["red"]}, "inputs.colour"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_columns_that_a_version_does_not_take_are_refused_by_field(client, known, changed, field):
    inputs = {name: values for name, values in {**known.inputs(1), **changed}.items() if values is not None}
    answer = await client.post(
        "/v1/models/churn/versions/champion/predict",
        content=json.dumps({"inputs": inputs}),
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seats", "3", "is not a number"),
        ("usage", 10**400, "is outside 32-bit floats"),
        ("usage", True, "is not a number"),
        ("usage", None, "is null, and the column is required"),
        ("plan", "x" * 21, "is longer than 20 characters"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_row_with_a_value_that_its_column_does_not_take_is_told_so_and_the_others_are_answered(
    client, known, name, value, message
):
    right = known.inputs(3)
    inputs = {**right, name: [right[name][0], value, right[name][2]]}
    path = "/v1/models/churn/versions/champion/predict"
    content = json.dumps({"inputs": inputs})
    answer = await client.post(path, content=content, headers={"content-type": "application/json"})
    whole = (await client.post(path, json={"inputs": right})).json()
    assert answer.status_code == 200
    assert answer.json()["errors"] == [{"row": 1, "status": 422, "field": f"inputs.{name}", "message": message}]
    assert answer.json()["scores"] == [whole["scores"][0], None, whole["scores"][2]]
    assert answer.json()["labels"] == [whole["labels"][0], None, whole["labels"][2]]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"inputs": {"usage": [NaN]}}', "application/json", 400),
        (b'{"inputs": {"usage": [Infinity]}}', "application/json", 400),
        (b'{"inputs": ', "application/json", 400),
        (b"[" * 50_000, "application/json", 422),
        (b'{"inputs": {"usage": ' + b"[" * 50_000, "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b"{}", "application/json", 422),
        (b'{"inputs": {}, "rows": 1}', "application/json", 422),
        (b'{"inputs": {}}', "text/plain", 415),
        (b'{"inputs": {}}', "", 415),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_body_that_can_not_be_read_is_refused(client, known, content, content_type, status):
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post("/v1/models/churn/versions/champion/predict", content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)


async def test_more_rows_than_the_limit_are_too_many(client, known):
    inputs = {name: values * 501 for name, values in known.inputs(1).items()}
    answer = await client.post("/v1/models/churn/versions/champion/predict", json={"inputs": inputs})
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
    assert [error["field"] for error in answer.json()["errors"]] == ["inputs"]


async def test_a_body_longer_than_the_limit_is_too_large(client, known):
    content = json.dumps({"inputs": {"plan": ["x"] * 20_000}})
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/models/churn/versions/champion/predict", content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)


async def test_the_service_opens_and_closes_while_kafka_is_away(tmp_path, unused_tcp_port):
    settings = InferenceSettings(data=tmp_path, kafka=f"127.0.0.1:{unused_tcp_port}")
    async with client_for(create_app(settings)) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/v1/models")).json() == {"versions": []}


async def test_a_service_whose_registry_can_not_be_read_is_not_ready_and_says_why(tmp_path, unused_tcp_port):
    settings = InferenceSettings(data=tmp_path, kafka=f"127.0.0.1:{unused_tcp_port}")
    async with client_for(create_app(settings)) as client:
        engine = create_async_engine(settings.database_url("inference_service"))
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE model_version"))
        await engine.dispose()
        for path in ("/readyz", "/v1/models", "/v1/models/churn"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
            assert "the registry can't be reached" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "1"
        ready = await client.get("/v2/health/ready")
        assert ready.status_code == 503
        assert "the registry can't be reached" in ready.json()["error"]
        assert (await client.get("/livez")).status_code == 200


class Torn(InMemoryVersionStore):
    """A store in which one row can't be read."""

    async def versions(self, model: str) -> Listing:
        listing = await super().versions(model)
        return replace(listing, unreadable=[TORN] if model == TORN.model else [])

    async def models(self) -> Listing:
        return replace(await super().models(), unreadable=[TORN])


TORN = UnreadableVersion("orders", "c" * 64, "JSON is malformed")


async def test_a_row_of_the_registry_that_can_not_be_read_hides_no_other_and_is_named(settings, churn):
    state = state_of(settings, Torn(), FixedClock(0.0))

    @asynccontextmanager
    async def resources(_: InferenceSettings):
        yield state

    async with client_for(create_app(settings, resources)) as client:
        parts = {"onnx": churn.export.onnx, "manifest": churn.export.manifest, "sample": churn.export.sample}
        files = {name: part if isinstance(part, bytes) else json.dumps(part) for name, part in parts.items()}
        assert (await client.post("/v1/models/churn/versions", files=files)).status_code == 201
        listed = (await client.get("/v1/models")).json()["versions"]
        assert [model["model"] for model in listed] == ["churn"]
        predict = "/v1/models/churn/versions/champion/predict"
        assert (await client.post(predict, json={"inputs": churn.inputs(1)})).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        [remark] = ready.json()["remarks"]
        assert (TORN.model in remark, TORN.version in remark, TORN.reason in remark) == (True, True, True)
        for path in ("/v1/models/orders", f"/v1/models/orders/versions/{TORN.version}", "/v2/models/orders"):
            answer = await client.get(path)
            assert answer.status_code == 500
            assert TORN.reason in answer.text
        answer = await client.post("/v1/models/orders/versions", files=files)
        assert answer.status_code == 201  # another version of the model than the one that can't be read
        shown = (await client.get("/v1/models/orders")).json()
        assert [version_shown["version"] for version_shown in shown["versions"]] == [churn.export.version]
    await state["models"].runtime.close()
