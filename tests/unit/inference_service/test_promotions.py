"""Promotions and rollbacks over HTTP: what goes on record, and what is refused."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest

from contender.contracts.inference_service import Sample
from services.inference_service.main import State
from services.inference_service.store import Listing, UnreadableVersion

CHAMPION = "/v1/models/churn/aliases/champion"


@pytest.fixture
async def names(keep, churn, later_churn, price) -> list[str]:
    """The versions of the model churn, oldest first; the first is the champion."""
    return [(await keep("churn", fitted.export)).version for fitted in (churn, later_churn, price)]


@pytest.fixture
def promote(client: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    async def put(version: str, **more: Any) -> httpx.Response:
        return await client.put(CHAMPION, json={"version": version, **more})

    return put


@pytest.fixture
def roll_back(client: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    async def post(**body: Any) -> httpx.Response:
        return await client.post(f"{CHAMPION}/rollback", json=body or None)

    return post


async def records(client: httpx.AsyncClient, *fields: str) -> list[tuple[Any, ...]]:
    promotions = (await client.get("/v1/models/churn/promotions")).json()["promotions"]
    return [tuple(record[field] for field in fields) for record in promotions]


async def test_a_promotion_says_who_why_and_on_which_verdict(client, names, promote):
    evidence = {"experiment": "churn-2", "verdict": 1, "evidence": "The challenger is better.", "override": "tested"}
    answer = await promote(names[1], changed_by="ada", reason="decided", **evidence)
    assert (answer.status_code, answer.json()["alias"]) == (200, "champion")
    [record] = (await client.get("/v1/models/churn/promotions")).json()["promotions"]
    place = {"model": "churn", "number": 1, "at": 1_700_000_000.0, "replaced": names[0], "rolls_back": None}
    assert record == {"version": names[1], "changed_by": "ada", "reason": "decided", **evidence, **place}


async def test_the_present_champion_is_promoted_again_without_a_record(client, names, promote):
    assert (await promote(names[0])).status_code == 200
    await promote(names[1])
    assert (await promote(names[1], reason="again")).json()["alias"] == "champion"
    assert await records(client, "number", "reason") == [(1, "")]


async def test_two_rollbacks_in_a_row_go_further_back(client, names, promote, roll_back):
    await promote(names[1])
    await promote(names[2])
    first = await roll_back(changed_by="ada", reason="complaints")
    assert (first.status_code, first.json()["version"], first.json()["alias"]) == (200, names[1], "champion")
    assert (await roll_back()).json()["version"] == names[0]
    assert await records(client, "number", "version", "replaced", "rolls_back", "reason") == [
        (1, names[1], names[0], None, ""),
        (2, names[2], names[1], None, ""),
        (3, names[1], names[2], 2, "complaints"),
        (4, names[0], names[1], 1, ""),
    ]
    refused = await roll_back()
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/no-promotion")
    assert (await client.get("/v1/models/churn")).json()["champion"] == names[0]


async def test_a_rollback_after_a_new_promotion_undoes_that_one(names, promote, roll_back):
    await promote(names[1])
    await roll_back()
    await promote(names[2])
    assert (await roll_back()).json()["version"] == names[0]
    assert (await roll_back()).status_code == 409


async def test_promotions_at_the_same_time_are_all_on_record_one_after_the_other(client, names, promote):
    answers = await asyncio.gather(*(promote(name) for name in names * 4))
    assert {answer.status_code for answer in answers} == {200}
    kept = await records(client, "number", "replaced", "version")
    assert [number for number, _, _ in kept] == list(range(1, len(kept) + 1))
    chain = [names[0], *(version for _, _, version in kept)]
    assert [replaced for _, replaced, _ in kept] == chain[:-1]
    assert (await client.get("/v1/models/churn")).json()["champion"] == chain[-1]


@pytest.mark.parametrize(
    ("changed", "status", "field"),
    [
        ({"reason": "x" * 501}, 422, "reason"),
        ({"changed_by": "x" * 501}, 422, "changed_by"),
        ({"override": "x" * 501}, 422, "override"),
        ({"experiment": "e", "evidence": "x" * 2001}, 422, "evidence"),
        ({"experiment": "no name"}, 422, "experiment"),
        ({"verdict": 1}, 422, "experiment"),
        ({"evidence": "better"}, 422, "experiment"),
        ({"experiment": "e", "verdict": 0}, 422, "verdict"),
        ({"reason": 7}, 422, "reason"),
        ({"why": "because"}, 422, "why"),
        ({"version": None}, 422, "version"),
        ({"version": "champion"}, 404, None),
        ({"version": "x" * 100_000}, 413, None),
        ({"version": "x" * 1_000}, 404, None),
    ],
)
async def test_a_promotion_that_makes_no_sense_changes_nothing(client, names, changed, status, field):
    answer = await client.put(CHAMPION, json={"version": names[1], **changed})
    assert answer.status_code == status, answer.text
    assert len(answer.json()["detail"]) < 300
    if field:
        assert field in answer.json()["detail"]
    assert await records(client, "number") == []
    assert (await client.get("/v1/models/churn")).json()["champion"] == names[0]


async def test_a_version_of_another_model_is_not_promoted(client, names, keep, tier):
    other = await keep("tier", tier.export)
    answer = await client.put(CHAMPION, json={"version": other.version})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-version")


@pytest.fixture
def torn(state: State, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a version's row one that can't be read."""
    store = state["models"].store
    read, unreadable = store.versions, set()

    async def versions(model: str) -> Listing:
        known = (await read(model)).versions
        faults = [UnreadableVersion(model, name, "JSON is malformed") for name in unreadable]
        return Listing([version for version in known if version.version not in unreadable], faults)

    monkeypatch.setattr(store, "versions", versions)
    return unreadable.add


async def test_a_champion_whose_row_can_not_be_read_is_replaced(client, names, promote, torn):
    torn(names[0])
    assert (await promote(names[1])).status_code == 200
    assert await records(client, "replaced") == [(names[0],)]


async def test_nothing_changes_where_the_version_to_go_to_can_not_be_read(client, names, promote, roll_back, torn):
    await promote(names[1])
    torn(names[0])
    for answer in (await roll_back(), await promote(names[0])):
        assert (answer.status_code, answer.json()["type"]) == (500, "/problems/unreadable-version")
    assert await records(client, "number") == [(1,)]
    assert (await client.get("/v1/models/churn")).json()["champion"] == names[1]


@pytest.mark.parametrize("path", ["aliases/champion/rollback", "promotions"])
async def test_a_model_that_is_not_there_has_no_promotions(client, path):
    method = "POST" if "rollback" in path else "GET"
    answer = await client.request(method, f"/v1/models/none/{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-model")


async def test_a_rollback_with_a_long_reason_is_refused(names, promote, roll_back):
    await promote(names[1])
    answer = await roll_back(reason="x" * 501)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "reason")


async def test_an_upload_can_be_read_again_to_register_it_elsewhere(client, upload, churn):
    await upload(churn.export)
    version = churn.export.version
    file = await client.get(f"/v1/models/churn/versions/{version}/file")
    assert (file.status_code, file.headers["content-type"]) == (200, "application/octet-stream")
    assert hashlib.sha256(file.content).hexdigest() == version
    sample = (await client.get("/v1/models/churn/versions/champion/sample")).content
    assert msgspec.json.decode(sample, type=Sample) == msgspec.convert(churn.export.sample, Sample)
    shown = (await client.get(f"/v1/models/churn/versions/{version}")).json()
    parts = {"onnx": file.content, "manifest": msgspec.json.encode(shown["manifest"]), "sample": sample}
    elsewhere = await client.post("/v1/models/copy/versions", files=parts)
    assert (elsewhere.status_code, elsewhere.json()["version"]) == (201, version)


async def test_the_upload_is_given_back_where_another_file_runs(state: State):
    files = state["models"].files
    uploaded, checked = b"with fields that the check drops", b"checked"
    version = hashlib.sha256(uploaded).hexdigest()
    files.write(version, checked)
    assert files.uploaded(version) is None
    files.write_upload("churn", version, uploaded, b"{}")
    assert (files.uploaded(version), files.read(version)) == (uploaded, checked)


@pytest.mark.parametrize("part", ["file", "sample"])
async def test_an_upload_that_was_not_kept_is_not_found(client, keep, state, churn, part):
    version = (await keep("churn", churn.export)).version
    state["models"].files.path(version).unlink()
    answer = await client.get(f"/v1/models/churn/versions/{version}/{part}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/upload-not-kept")
    assert "register it again" in answer.json()["detail"]
