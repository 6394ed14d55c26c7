"""Every application answers health, metrics and problems alike."""

import tracemalloc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message
from structlog.testing import capture_logs

from shared.bodies import decode_json, read_body
from shared.errors import InvalidField, NotFound, TooLarge
from shared.http import create_app
from shared.routes import json_response
from shared.settings import Settings
from shared.testing import client_for


class Order(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    sizes: list[int] = []
    prices: dict[str, list[float] | None] = {}
    parts: list["Order"] = []
    labels: dict[str, str] | None = None


def example(reasons: list[str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"reasons": reasons}

    async def ready(state: Mapping[str, Any]) -> list[str]:
        return list(state["reasons"])

    app = create_app(service="example", title="Example", lifespan=lifespan, ready=ready)

    @app.post("/orders")
    async def take_order(request: Request) -> Response:
        return json_response(await read_body(request, Order, 1000))

    @app.get("/orders/{name}")
    async def show_order(name: str) -> Response:
        if name == "bug":
            raise RuntimeError("secret")
        raise NotFound(f"there is no order {name}")

    return app


async def test_readiness_says_why_not():
    async with client_for(example([])) as client:
        assert (await client.get("/livez")).json()["status"] == "alive"
        assert (await client.get("/readyz")).status_code == 200
    async with client_for(example(["the journal is full"])) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the journal is full"


@pytest.mark.parametrize(
    ("content", "content_type", "status", "field"),
    [
        (b"{", "application/json", 400, None),
        (b'{"name": NaN}', "application/json", 400, None),
        (b'{"name": "\xff"}', "application/json", 400, None),
        (b'{"name": 1}', "application/json", 422, "name"),
        (b"{}", "application/json", 422, "name"),
        (b'{"name": "a", "colour": 1}', "application/json", 422, "colour"),
        (b'{"name": "a", "sizes": [1, "x"]}', "application/json", 422, "sizes[1]"),
        (b'{"name": "a", "prices": {"b": [1], "c.d": [2, "x"]}}', "application/json", 422, "prices.c.d[1]"),
        (b'{"name": "a", "prices": {"b": null, "c": 1e999}}', "application/json", 422, "prices.c"),
        (b'{"name": "a", "labels": {"": 1}}', "application/json", 422, "labels."),
        (b'{"name": "a", "parts": [{"name": "b", "labels": {"c": 1}}]}', "application/json", 422, "parts[0].labels.c"),
        (b'{"name": "a", "labels": {"b": 1, "b": "c"}}', "application/json", 422, "labels[...]"),
        (b'{"name": "a", "labels": {"' + b"b" * 300 + b'": 1}}', "application/json", 422, f"labels.{'b' * 99}…"),
        (b'{"name": "a", "' + b"c" * 300 + b'": 1}', "application/json", 422, f"{'c' * 99}…"),
        (b'{"name": "a"}', "text/plain", 415, None),
        (b'{"name": "' + b"a" * 2000 + b'"}', "application/json", 413, None),
    ],
)
async def test_a_bad_body_is_a_problem_that_names_the_field(
    content: bytes, content_type: str, status: int, field: str | None
):
    async with client_for(example([])) as client:
        answer = await client.post("/orders", content=content, headers={"content-type": content_type})
        problem = answer.json()
        page = (await client.get(problem["type"])).json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert (page["type"], page["status"]) == (problem["type"], status)
    assert page["title"]
    assert [error["field"] for error in problem.get("errors", [])] == ([field] if field else [])
    assert len(answer.content) < 1000


@pytest.mark.parametrize("part", [b"[]", b"{}", b"[[]]", b'{"a":1}', b'{"name":"a"}'], ids=lambda part: part.decode())
def test_a_body_of_ever_more_arrays_and_objects_is_refused_before_it_is_read(part: bytes):
    body = b'{"name":"a","parts":[' + part + (b"," + part) * 120_000 + b"]}"
    with pytest.raises(TooLarge, match="100000 arrays and objects"):
        decode_json(body, Order)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"name":"a","prices":{"b":[1],"c":[' + b"0," * 500_000 + b'"x"]}}', "prices.c[500000]"),
        (b'{"name":"a","labels":{' + b'"%d":"b",' * 90_000 % tuple(range(90_000)) + b'"c":1}}', "labels.c"),
        (b'{"name":"a","labels":{' + b'"%d":"b",' * 200_000 % tuple(range(200_000)) + b'"c":1}}', "labels[...]"),
        (b'{"name":"a","sizes":[' + b"0," * 500_000 + b'"x"]}', "sizes[500000]"),
        (b'{"name":"a","parts":[{"name":"b","labels":{"c":1}}' + b",0" * 500_000 + b"]}", "parts[0].labels[...]"),
    ],
    ids=["column", "key", "one of too many keys", "element", "before too many elements"],
)
def test_the_field_of_a_large_body_is_named_where_that_takes_no_more_than_reading_it(body: bytes, field: str):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidField) as refused:
            decode_json(body, Order)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [error.field for error in refused.value.errors] == [field]
    assert most < 40 * 1024**2


async def test_a_client_that_leaves_is_noted_in_a_line_and_is_no_error():
    app = example([])
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    path = "/orders"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": [(b"content-type", b"application/json")], "state": {"settings": Settings()}}
    scope |= {"root_path": "", "scheme": "http"}
    with capture_logs() as lines:
        await app(scope, receive, send)
    assert [(line["log_level"], line["path"]) for line in lines] == [("info", "/orders")]
    assert sent[0]["status"] == 499


async def test_the_frameworks_own_errors_are_problems_too():
    async with client_for(example([])) as client:
        missing = ("/nowhere", "/orders/x", "/orders/", "/livez/", "/problems/..%2f")
        for path, method, status in [*((path, "GET", 404) for path in missing), ("/orders", "PUT", 405)]:
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert (await client.get(answer.json()["type"])).json()["status"] == status
        assert (await client.get("/problems/none")).status_code == 404
        failed = await client.get("/orders/bug")
    assert failed.status_code == 500
    assert failed.json()["detail"] == "The service failed on this request; its log says why."


async def test_requests_are_measured_by_route():
    async with client_for(example([])) as client:
        await client.get("/orders/some-name")
        text = (await client.get("/metrics")).text
    assert 'route="/orders/{name}"' in text
    assert "some-name" not in text
