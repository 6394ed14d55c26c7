"""What the router knows of models: read again, kept on disk, and asked for once more."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from contender.contracts.inference_service import InputColumn, ModelVersion, RowFault
from services.ab_router.catalog import Catalog
from services.ab_router.clients import CallError, QuestionRefusedError, ViewInputs
from services.ab_router.errors import UnknownModelError
from services.ab_router.http_clients import HttpFeatures, HttpInference
from shared.errors import Unavailable
from shared.http_client import Answer, ServiceClient, ServiceConnectionError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "catalog.json"


async def eventually(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_model_has_its_versions_and_the_champion_that_was_named(inference, features, path):
    async with Catalog(inference, features, path, 600) as catalog:
        model = await catalog.find("late")
        assert (list(model.versions), model.champion.version) == (["plain", "streaming"], "plain")
        assert (await catalog.find("delay")).champion.version == "linear"
        assert inference.listed == 1


async def test_a_refresh_sees_new_versions_and_another_champion(inference, features, path):
    async with Catalog(inference, features, path, 600) as catalog:
        plain, streaming, _ = inference.registered
        promoted = msgspec.structs.replace(streaming, champion=True)
        inference.registered = [msgspec.structs.replace(plain, champion=False), promoted]
        await catalog.refresh()
        assert (await catalog.find("late")).champion == promoted
        with pytest.raises(UnknownModelError):
            await catalog.find("delay")


async def test_it_is_read_again_by_itself(inference, features, path):
    async with Catalog(inference, features, path, 0.01) as catalog:
        inference.registered = inference.registered[:1]
        known = inference.listed
        await eventually(lambda: inference.listed > known + 1)
        assert list((await catalog.find("late")).versions) == ["plain"]


async def test_services_that_hang_hold_the_start_up_for_a_while_only(inference, features, path):
    async with Catalog(inference, features, path, 600):
        pass
    inference.listing.clear()
    features.defining.clear()
    inference.registered = inference.registered[:1]
    async with asyncio.timeout(5), Catalog(inference, features, path, 600, start_wait_s=0.05) as catalog:
        assert list((await catalog.find("late")).versions) == ["plain", "streaming"]
        inference.listing.set()
        await eventually(lambda: list(catalog._models["late"].versions) == ["plain"])


async def test_callers_at_the_same_time_share_one_reading(inference, features, path):
    async with Catalog(inference, features, path, 600) as catalog:
        await asyncio.gather(*(catalog.refresh() for _ in range(5)))
        assert inference.listed == 2


async def test_a_question_is_answered_from_a_reading_that_began_after_it(inference, features, path):
    late = inference.registered
    inference.registered = []
    async with Catalog(inference, features, path, 600) as catalog:
        inference.listing.clear()
        before = asyncio.create_task(catalog.find("late"))
        await eventually(lambda: inference.listed == 2)  # this reading knows nothing of what is registered now
        inference.registered = late
        after = [asyncio.create_task(catalog.find(name)) for name in ("late", "delay", "late", "nobody")]
        await asyncio.sleep(0)
        inference.listing.set()
        with pytest.raises(UnknownModelError):
            await before
        models = await asyncio.gather(*after, return_exceptions=True)
        assert [getattr(model, "name", type(model)) for model in models] == ["late", "delay", "late", UnknownModelError]
        assert inference.listed == 3


async def test_a_version_that_is_not_known_yet_is_read_before_it_is_said_to_be_none(inference, features, path):
    *known, streaming, delay = inference.registered
    inference.registered = [*known, delay]
    async with Catalog(inference, features, path, 600) as catalog:
        inference.registered = [*known, streaming, delay]
        assert "streaming" in (await catalog.find("late", ["plain", "streaming"])).versions
        assert "none" not in (await catalog.find("late", ["plain", "none"])).versions
        inference.down = True
        assert await catalog.find("late", ["streaming"])
        with pytest.raises(Unavailable, match="late"):
            await catalog.find("late", ["none"])


async def test_a_feature_service_that_hangs_does_not_delay_what_is_read_of_models(inference, features, path):
    late, inference.registered = inference.registered, []
    async with Catalog(inference, features, path, 600) as catalog:
        features.defining.clear()
        views = asyncio.create_task(catalog.refresh())
        inference.registered = late
        assert (await catalog.find("late")).name == "late"
        assert not views.done()
        features.defining.set()
        await views


async def test_calls_for_unknown_names_share_readings_and_leave_pauses_between_them(inference, features, path):
    async with Catalog(inference, features, path, 600, 0.05) as catalog:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(5):
            errors = await asyncio.gather(*(catalog.find(f"m-{at}") for at in range(50)), return_exceptions=True)
            assert {type(error) for error in errors} == {UnknownModelError}
        assert inference.listed == 6
        assert loop.time() - began >= 4 * 0.05


async def test_a_model_that_is_not_known_yet_is_asked_for_once_more(inference, features, path):
    late = inference.registered
    inference.registered = []
    async with Catalog(inference, features, path, 600) as catalog:
        with pytest.raises(UnknownModelError):
            await catalog.find("late")
        assert inference.listed == 2
        inference.registered = late
        assert (await catalog.find("late")).name == "late"
        assert inference.listed == 3


async def test_the_last_copy_serves_while_the_other_services_are_down(inference, features, path):
    async with Catalog(inference, features, path, 600) as catalog:
        model = await catalog.find("late")
    inference.down = features.down = True
    async with Catalog(inference, features, path, 600) as catalog:
        assert await catalog.find("late") == model
        assert catalog.served_features(model.versions["streaming"]) == (
            ["origin_delays:mean_delay"],
            ViewInputs(["origin"]),
        )
        assert "can't be read" in catalog.fault
        inference.down = False
        await catalog.refresh()
        assert catalog.fault == ""


async def test_what_can_not_be_read_stays_as_it_was_and_the_rest_is_taken(inference, features, path):
    async with Catalog(inference, features, path, 600) as catalog:
        features.down = True
        inference.registered = inference.registered[:2]
        await catalog.refresh()
        with pytest.raises(UnknownModelError):
            await catalog.find("delay")
        assert catalog.fault == ""
        streaming = (await catalog.find("late")).versions["streaming"]
        assert catalog.served_features(streaming) == (["origin_delays:mean_delay"], ViewInputs(["origin"]))


async def test_whether_an_unknown_model_exists_can_not_be_said_while_inference_is_down(inference, features, path):
    inference.down = True
    async with Catalog(inference, features, path, 600) as catalog:
        with pytest.raises(Unavailable, match="late"):
            await catalog.find("late")
        inference.down = False
        assert (await catalog.find("late")).name == "late"


async def test_an_unknown_model_is_unknown_whatever_the_feature_service_does(inference, features, path):
    features.down = True
    async with Catalog(inference, features, path, 600) as catalog:
        with pytest.raises(UnknownModelError):
            await catalog.find("early")
        assert (await catalog.find("late")).name == "late"


@pytest.mark.parametrize("corrupt", [b"", b"{", b'{"versions": 3}', b'{"versions": [{"model": "\xff"}]}', b"[]"])
async def test_a_corrupt_copy_is_made_anew(inference, features, path, corrupt):
    path.parent.mkdir()
    path.write_bytes(corrupt)
    async with Catalog(inference, features, path, 600) as catalog:
        assert (await catalog.find("late")).name == "late"
    assert b"streaming" in path.read_bytes()


async def test_a_copy_that_can_not_be_written_stops_nobody(inference, features, path):
    path.parent.write_text("a file where the folder should be")
    async with Catalog(inference, features, path, 600) as catalog:
        assert (await catalog.find("late")).name == "late"


async def test_each_feature_is_asked_for_once_with_all_that_they_need(inference, features, path):
    features.views = {
        "origin_delays": ViewInputs(["origin"]),
        "tail_delays": ViewInputs(["origin", "tail_number"], {"distance": "float"}),
    }
    sources = ["request", "origin_delays:a", "origin_delays:b", "origin_delays:a", "tail_delays:a", "gone:a"]
    inputs = [InputColumn(f"column-{at}", "float", source=source) for at, source in enumerate(sources)]
    version = ModelVersion(model="m", version="v", task="regression", inputs=inputs, registered_at=1.0)
    async with Catalog(inference, features, path, 600) as catalog:
        assert catalog.served_features(version) == (
            ["origin_delays:a", "origin_delays:b", "tail_delays:a"],
            ViewInputs(["origin", "tail_number"], {"distance": "float"}),
        )


@dataclass
class Request:
    """What a service is asked."""

    path: str
    content: bytes
    headers: Mapping[str, str]


class FakeClient(ServiceClient):
    """A client of a service that is a function."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        super().__init__("http://service.test", 1)
        self._respond = answer

    async def request(self, method, path, content=b"", headers=None):
        return self._respond(Request(path, content, headers or {}))


def client_that_answers(content: bytes, status: int = 200) -> FakeClient:
    return FakeClient(lambda _: Answer(status, {}, content))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"no JSON", 200),
        (b'{"entities": "\xff"}', 200),
        (b"{}", 200),
        (b'{"detail": "away"}', 503),
        (b'{"entities": [], "views": []}', 503),
        (b'{"entities": [], "views": [{"name": "origin_delays", "label": "origin_delays@1"}]}', 200),
    ],
)
async def test_definitions_of_another_shape_are_a_failed_call(content, status):
    async with client_that_answers(content, status) as client:
        with pytest.raises(CallError, match="feature_service"):
            await HttpFeatures(client, 60.0, 1000).view_inputs()


@pytest.mark.parametrize(
    "content",
    [
        b'{"metadata": {"feature_names": ["v__b"]}, "results": [{"values": [1], "statuses": ["PRESENT"]}]}',
        b'{"metadata": {"feature_names": ["v__a"]}, "results": []}',
        b'{"metadata": {"feature_names": ["v__a"]}, "results": [{"values": [], "statuses": ["PRESENT"]}]}',
        b'{"metadata": {"feature_names": ["v__a"]}, "results": [{"values": [1], "statuses": []}]}',
    ],
)
async def test_features_of_another_shape_are_a_failed_call(content):
    async with client_that_answers(content) as client:
        with pytest.raises(CallError, match="feature_service"):
            await HttpFeatures(client, 60.0, 1000).get(["v:a"], {"key": ["x"]}, [1.0])


async def test_a_service_that_does_not_answer_is_a_failed_call():
    def fail(_: Request) -> Answer:
        raise ServiceConnectionError("no answer")

    async with FakeClient(fail) as client:
        inference = HttpInference(client, 60.0, 1000)
        for call in (inference.versions(), inference.predict("m", "v", {"distance": [1.0]})):
            with pytest.raises(CallError, match="ServiceConnectionError"):
                await call


def answered(content: object) -> Answer:
    return Answer(200, {}, msgspec.json.encode(content))


def fault_of_row(row: int) -> bytes:
    return msgspec.json.encode(RowFault(row, 422, "inputs.distance", "is null"))


async def test_features_are_found_by_their_full_names():
    def answer(request: Request) -> Answer:
        asked = msgspec.json.decode(request.content)
        assert (asked["features"], asked["entities"], asked["event_timestamps"]) == (["v:a"], {"key": ["x"]}, [1.0])
        columns = [{"values": ["x"], "statuses": ["PRESENT"]}, {"values": [2.5], "statuses": ["PRESENT"]}]
        return answered({"metadata": {"feature_names": ["key", "v__a"]}, "results": columns})

    async with FakeClient(answer) as client:
        served = await HttpFeatures(client, 60.0, 1000).get(["v:a"], {"key": ["x"]}, [1.0])
    assert (served.values, served.statuses) == ({"v:a": [2.5]}, {"v:a": ["PRESENT"]})


@pytest.mark.parametrize(
    "content",
    [
        b'{"scores": [0.1], "labels": ["no", "no"]}',
        b'{"scores": [0.1, 0.2], "labels": ["no"]}',
        b'{"scores": [0.1, null], "labels": ["no", "no"]}',
        b'{"scores": [0.1, null], "labels": ["no", null], "errors": [%s]}' % fault_of_row(0),
        b'{"scores": [0.1, 0.2], "labels": ["no", "no"], "errors": [%s]}' % fault_of_row(2),
    ],
)
async def test_scores_of_another_shape_are_a_failed_call(content):
    async with client_that_answers(content) as client:
        inference = HttpInference(client, 60.0, 1000)
        with pytest.raises(CallError, match="inference_service"):
            await inference.predict("m", "v", {"distance": [1.0, 2.0]})


async def test_scores_are_asked_of_one_version_by_column():
    def answer(request: Request) -> Answer:
        assert request.path == "/v1/models/m/versions/v/predict"
        assert request.headers["content-type"] == "application/json"
        assert msgspec.json.decode(request.content) == {"inputs": {"distance": [1.0, 2.0]}}
        return answered({"scores": [0.1, 0.9], "labels": ["no", "yes"]})

    async with FakeClient(answer) as client:
        score = await HttpInference(client, 60.0, 1000).predict("m", "v", {"distance": [1.0, 2.0]})
    assert (score.scores, score.labels) == ([0.1, 0.9], ["no", "yes"])


async def test_a_row_without_a_score_comes_with_its_fault():
    fault = {"row": 1, "status": 422, "field": "inputs.distance", "message": "is null"}
    content = msgspec.json.encode({"scores": [0.1, None], "labels": ["no", None], "errors": [fault]})
    async with client_that_answers(content) as client:
        score = await HttpInference(client, 60.0, 1000).predict("m", "v", {"distance": [1, None]})
    assert (score.scores, score.labels) == ([0.1, None], ["no", None])
    assert score.errors == [RowFault(1, 422, "inputs.distance", "is null")]


async def test_a_version_that_can_not_be_read_hides_no_other():
    whole = msgspec.to_builtins(ModelVersion(model="m", version="v", task="regression", inputs=[], registered_at=1.0))
    content = msgspec.json.encode({"versions": [{**whole, "task": "guessing"}, whole, 7]})
    async with client_that_answers(content) as client:
        (version,) = await HttpInference(client, 60.0, 1000).versions()
    assert (version.model, version.task) == ("m", "regression")


async def test_unchanged_versions_are_not_sent_again():
    version = ModelVersion(model="m", version="v", task="regression", inputs=[], registered_at=1.0)
    etags, tags_asked = ["one", "one", "two"], []

    def answer(request: Request) -> Answer:
        etag, known = etags.pop(0), request.headers.get("if-none-match", "")
        tags_asked.append(known)
        if etag == known:
            return Answer(304, {"etag": etag}, b"")
        return Answer(200, {"etag": etag}, msgspec.json.encode({"versions": [version]}))

    async with FakeClient(answer) as client:
        inference = HttpInference(client, 60.0, 1000)
        assert [await inference.versions() for _ in range(3)] == [[version]] * 3
    assert tags_asked == ["", "one", "one"]


async def test_a_failed_reading_does_not_forget_the_versions_that_the_tag_stands_for():
    version = ModelVersion(model="m", version="v", task="regression", inputs=[], registered_at=1.0)
    listed = Answer(200, {"etag": "one"}, msgspec.json.encode({"versions": [version]}))
    answers = [listed, Answer(200, {"etag": "two"}, b"[]"), Answer(304, {}, b"")]
    async with FakeClient(lambda _: answers.pop(0)) as client:
        inference = HttpInference(client, 60.0, 1000)
        await inference.versions()
        with pytest.raises(CallError):
            await inference.versions()
        assert await inference.versions() == [version]


@pytest.mark.parametrize(
    ("status", "is_refused"),
    [(400, True), (409, True), (413, True), (422, True), (404, False), (429, False), (500, False), (503, False)],
)
async def test_what_is_wrong_with_the_question_is_told_from_what_another_question_would_get_too(status, is_refused):
    problem = {"detail": "odd", "errors": [{"field": "inputs.distance[3]", "message": "is odd"}]}
    async with client_that_answers(msgspec.json.encode(problem), status) as client:
        inference = HttpInference(client, 60.0, 1000)
        with pytest.raises(CallError) as failed:
            await inference.predict("m", "v", {"distance": [1.0]})
    assert isinstance(failed.value, QuestionRefusedError) == is_refused
    assert (inference.silent_s > 0) != is_refused
    if is_refused:
        assert (failed.value.status, [error.field for error in failed.value.errors]) == (status, ["inputs.distance[3]"])


async def test_a_question_longer_than_a_body_may_be_is_refused_before_it_is_sent():
    async with client_that_answers(b"{}") as client:
        with pytest.raises(QuestionRefusedError) as refused:
            await HttpInference(client, 60.0, 1000).predict("m", "v", {"text": ["x" * 1000]})
    assert refused.value.status == 413


async def test_a_version_that_needs_a_new_view_has_the_views_read_at_once(inference, features, path):
    async with Catalog(inference, features, path, 600) as catalog:
        newest = InputColumn("delay", "float", "just_defined@1:mean")
        features.views = {**features.views, "just_defined@1": ViewInputs(["origin"])}
        inference.registered.append(msgspec.structs.replace(inference.registered[0], version="new", inputs=[newest]))
        version = (await catalog.find("late", ["new"])).versions["new"]
        await eventually(lambda: catalog.served_features(version) == (["just_defined@1:mean"], ViewInputs(["origin"])))
