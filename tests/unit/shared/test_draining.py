"""A process that is asked to end is not ready at once, serves on for a while, and then ends."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from embedded.ports import free_ports
from shared.connections import ConnectionLimits, bounded_config
from shared.draining import DrainingServer
from shared.guard import Admission, Guard
from shared.http import create_app
from shared.settings import Settings

LONG_S = 30.0


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A server raises its signals again once it has ended."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def example() -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"settings": Settings()}

    async def ready(_: object) -> list[str]:
        return []

    return create_app(service="example", title="Example", lifespan=lifespan, ready=ready)


@asynccontextmanager
async def served(drain_s: float) -> AsyncIterator[tuple[DrainingServer, httpx.AsyncClient, "asyncio.Task[None]"]]:
    (port,) = free_ports(1)
    guard = Guard(example(), Admission())
    config = bounded_config(
        guard, ConnectionLimits.of(Settings()), host="127.0.0.1", port=port, timeout_graceful_shutdown=5
    )
    server = DrainingServer(config, guard, drain_s)
    serving = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield server, client, serving
        finally:
            server.should_exit = True
            await serving


async def test_a_draining_process_is_not_ready_and_serves_on_over_connections_that_end():
    async with served(LONG_S) as (server, client, serving):
        answer = await client.get("/readyz")
        assert (answer.status_code, "connection" in answer.headers) == (200, False)
        server.handle_exit(signal.SIGTERM, None)
        for _ in range(2):  # over the kept connection, then over a new one
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.headers["connection"]) == (503, "close")
            assert "about to end" in answer.json()["detail"]
        answer = await client.get("/livez")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert not serving.done()


async def test_it_ends_when_its_time_is_over():
    async with served(0.3) as (server, client, serving):
        began = asyncio.get_running_loop().time()
        server.handle_exit(signal.SIGTERM, None)
        assert (await client.get("/livez")).status_code == 200
        await serving
        assert 0.3 <= asyncio.get_running_loop().time() - began < 3


@pytest.mark.parametrize(
    ("drain_s", "signals"),
    [(0.0, [signal.SIGTERM]), (LONG_S, [signal.SIGTERM] * 2), (LONG_S, [signal.SIGINT])],
)
async def test_without_a_load_balancer_and_for_a_second_signal_it_ends_at_once(drain_s, signals):
    async with served(drain_s) as (server, _, serving):
        for number in signals:
            server.handle_exit(number, None)
        async with asyncio.timeout(5):
            await serving
