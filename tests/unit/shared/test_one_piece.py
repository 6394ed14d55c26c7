"""What is written in one step is sent in one piece, in order, and nothing is lost at the end."""

import asyncio

import httpx
import pytest
import uvicorn

from embedded.ports import free_ports
from shared.one_piece import GatheringTransport, OnePieceProtocol


class Sent:
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.told


@pytest.fixture
async def sent() -> Sent:
    return Sent()


def over(sent: Sent) -> GatheringTransport:
    return GatheringTransport(sent, asyncio.get_running_loop())


async def test_what_is_written_in_one_step_is_one_write(sent: Sent):
    transport = over(sent)
    transport.write(b"head ")
    assert sent.told == []
    transport.write(b"body")
    assert sent.told == [b"head body"]
    transport.write(b"alone")
    await asyncio.sleep(0)
    assert sent.told == [b"head body", b"alone"]


async def test_what_was_written_goes_before_the_end(sent: Sent):
    transport = over(sent)
    transport.write(b"last")
    assert not transport.is_closing()
    transport.close()
    await asyncio.sleep(0)
    assert sent.told == [b"last", "closed"]
    assert transport.is_closing()


async def answer(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"chunked")]})
    for number in range(3):
        await send({"type": "http.response.body", "body": b"%d" % number * 100_000, "more_body": number < 2})
        await asyncio.sleep(0.01)


async def test_answers_arrive_whole_on_kept_and_closed_connections():
    (port,) = free_ports(1)
    config = uvicorn.Config(answer, port=port, http=OnePieceProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for headers in ({}, {}, {"connection": "close"}, {}):
                assert (await client.get("/", headers=headers)).text == "0" * 100_000 + "1" * 100_000 + "2" * 100_000
    finally:
        server.should_exit = True
        await serving
