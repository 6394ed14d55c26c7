"""Foreign hosts and foreign sites are refused before anything is read, and every answer carries its headers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from shared.guard import Admission, Guard
from shared.http import create_app
from shared.routes import json_response
from shared.settings import Settings

NOSNIFF = "nosniff"
CLOSED = "default-src 'none'; frame-ancestors 'none'"
PAGE = "default-src 'none'; style-src 'self'"


def example() -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {}

    app = create_app(service="example", title="Example", lifespan=lifespan)

    @app.api_route("/things", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def change(request: Request) -> Response:
        return json_response({"bytes": len(await request.body())})

    @app.get("/page")
    async def page() -> Response:
        return HTMLResponse("<p>", headers={"Content-Security-Policy": PAGE})

    @app.get("/bug")
    async def bug() -> Response:
        raise RuntimeError

    return app


def client(admission: Admission | None = None) -> httpx.AsyncClient:
    guarded = Guard(example(), admission or Admission())

    async def with_state(scope, receive, send) -> None:
        scope["state"] = {"settings": Settings()}
        await guarded(scope, receive, send)

    transport = httpx.ASGITransport(app=with_state, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8400")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/things", "/nowhere", "/bug", "/problems/none"])
async def test_every_answer_forbids_sniffing_and_everything_a_page_could_do(path: str):
    async with client() as http:
        answer = await http.get(path)
        refused = await http.get(path, headers={"Host": "evil.example"})
    for response in (answer, refused):
        assert response.headers.get_list("x-content-type-options") == [NOSNIFF]
        assert response.headers.get_list("content-security-policy") == [CLOSED]
        assert response.headers.get_list("referrer-policy") == ["no-referrer"]
    assert refused.status_code == 421


async def test_a_page_keeps_its_own_policy():
    async with client() as http:
        answer = await http.get("/page")
    assert answer.headers.get_list("content-security-policy") == [PAGE]
    assert answer.headers.get_list("x-content-type-options") == [NOSNIFF]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8400"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8400"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://ml.example.com"}, 200),
        ({"Origin": "http://127.0.0.1:8400"}, 200),
        ({"Origin": "https://ml.example.com"}, 200),
        ({"Origin": "http://ml.example.com"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "", "Host": ""}, 403),
        ({"Origin": "http://127.0.0.1:8400.evil.example"}, 403),
    ],
)
async def test_only_pages_of_the_own_origin_or_a_listed_one_may_change_something(method, headers, status):
    admission = Admission.of(Settings(allowed_origins="https://ML.example.com/, https://b.example"))
    async with client(admission) as http:
        answer = await http.request(method, "/things", headers=headers)
        assert (await http.get("/things", headers=headers)).status_code == 200
        assert answer.status_code == status
        if status == 403:
            page = await http.get(answer.json()["type"])
            assert (page.json()["type"], page.json()["status"]) == ("/problems/cross-site", 403)


async def test_a_refused_body_is_not_read():
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"{}"

    async with client() as http:
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
            answer = await http.post("/things", content=body(), headers=headers)
            assert answer.status_code in (403, 421)
    assert read == []


@pytest.mark.parametrize(
    ("settings", "host", "served"),
    [
        ({}, "localhost", True),
        ({}, "LOCALHOST:8400", True),
        ({}, "localhost.", True),
        ({}, "127.0.0.1:8400", True),
        ({}, "[::1]:8400", True),
        ({}, "10.1.2.3:8400", True),
        ({}, "[fd00::7]", True),
        ({}, "", True),
        ({}, ":8400", False),
        ({}, "evil.example", False),
        ({}, "evil.example:8400", False),
        ({}, "localhost.evil.example", False),
        ({}, "127.0.0.1.evil.example", False),
        ({}, "1.2.3", False),
        ({}, "[evil.example]:8400", False),
        ({}, "\xe9vil.example", False),
        ({}, "a" * 20_000, False),
        ({"host": "Box"}, "box:8400", True),
        ({"feedback_service_url": "http://Feedback.internal:8403"}, "feedback.internal:8403", True),
        ({"allowed_hosts": "router, ML.example.com"}, "ml.example.com", True),
        ({"allowed_hosts": "router, ML.example.com"}, "router:8400", True),
        ({"allowed_hosts": "router, ML.example.com"}, "x.ml.example.com", False),
        ({"allowed_hosts": "*.svc.local"}, "router.ml.svc.local:8400", True),
        ({"allowed_hosts": "*.svc.local"}, "svc.local", False),
        ({"allowed_hosts": "*.svc.local"}, "evilsvc.local", False),
        ({"allowed_hosts": "*"}, "anything.example", True),
    ],
)
def test_a_host_is_served_that_is_an_address_or_listed(settings, host, served):
    assert Admission.of(Settings(**settings)).serves(host.encode("latin-1")) is served


async def test_each_of_several_hosts_must_be_served():
    async with client() as http:
        for hosts in (["evil.example", "localhost"], ["localhost", "evil.example"]):
            answer = await http.get("/livez", headers=[("Host", host) for host in hosts])
            assert answer.status_code == 421
            assert answer.json()["type"] == "/problems/misdirected-request"
        assert (await http.get("/problems/misdirected-request")).json()["status"] == 421
