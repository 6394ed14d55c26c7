"""A worker tells of its health as every service does."""

import logging
import signal
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace

import httpx
import pytest

from shared.processes import wait_or_kill
from shared.streams import Membership
from shared.testing import client_for
from shared.worker_process import worker_app


def client(reasons: list[str], *, complete: bool) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    async def ready() -> list[str]:
        if reasons == ["bug"]:
            raise RuntimeError("secret")
        return reasons

    recovery = SimpleNamespace(active_offsets={"changelog-0": 30, "changelog-1": None})
    app = SimpleNamespace(
        conf=SimpleNamespace(id="contender-example"),
        started=True,
        rebalancing_count=2,
        tables=SimpleNamespace(actives_ready=complete, recovery=recovery),
        monitor=SimpleNamespace(messages_received_total=7),
    )
    return client_for(worker_app(Membership(app), ready))


@pytest.mark.parametrize(
    ("reasons", "complete", "status", "detail"),
    [
        ([], True, 200, None),
        (["Redis is away"], True, 503, "Redis is away"),
        ([], False, 503, "the worker has not got its partitions yet"),
        (["Redis is away"], False, 503, "the worker has not got its partitions yet; Redis is away"),
    ],
)
async def test_a_worker_says_why_it_is_not_ready(reasons, complete, status, detail, caplog):
    with caplog.at_level(logging.INFO):
        async with client(reasons, complete=complete) as http:
            answer = await http.get("/readyz")
            assert (await http.get("/livez")).json() == {"status": "alive", "service": "contender-example"}
    assert (answer.status_code, answer.json().get("detail")) == (status, detail)
    assert answer.json()["progress"] == {"rebalances": 2, "recovered": 30, "read": 7}
    assert [record.message for record in caplog.records if not record.name.startswith("httpx")] == []


async def test_whatever_a_worker_answers_carries_the_headers_of_all_and_errors_are_problems():
    async with client(["bug"], complete=True) as http:
        answers = [await http.get(path) for path in ("/livez", "/metrics", "/nowhere", "/readyz")]
        answers.append(await http.get("/livez", headers={"Host": "evil.example"}))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 500, 421]
    assert all(answer.headers["x-content-type-options"] == "nosniff" for answer in answers)
    assert all("frame-ancestors 'none'" in answer.headers["content-security-policy"] for answer in answers)
    assert {answer.headers["content-type"] for answer in answers[2:]} == {"application/problem+json"}
    assert answers[3].json()["detail"] == "The service failed on this request; its log says why."


def test_a_child_that_does_not_end_in_time_is_killed():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert wait_or_kill(child, 0.01) == -signal.SIGKILL
