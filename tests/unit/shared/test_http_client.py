"""The client between services, against a server of bytes: connections are kept, and answers never mixed up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from shared.http_client import KEEP_S, ServiceClient, ServiceConnectionError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(
    serve: Serve, connections: int = 4, clock: Callable[[], float] = monotonic
) -> AsyncIterator[ServiceClient]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, ServiceClient(f"http://127.0.0.1:{port}/base/", connections, clock) as client:
        yield client


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The first line and the body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length"))
    return head.partition("\r\n")[0], await reader.readexactly(length)


def response(content: bytes, head: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {head}\r\nX-Name: value\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


async def test_a_connection_is_kept_and_names_of_headers_are_in_lower_case():
    connections = []

    async def echo(reader, writer):
        connections.append(writer)
        while True:
            line, body = await read_request(reader)
            writer.write(response(line.encode() + b"|" + body))

    async with served(echo) as client:
        for number in range(3):
            answer = await client.request("POST", "/a?b=1", b"body %d" % number, {"content-type": "text/plain"})
            assert (answer.status, answer.content) == (200, b"POST /base/a?b=1 HTTP/1.1|body %d" % number)
            assert answer.headers["x-name"] == "value"
    assert len(connections) == 1


async def test_concurrent_requests_get_their_own_answers_on_a_bounded_number_of_connections():
    connections = []

    async def echo(reader, writer):
        connections.append(writer)
        while True:
            _, body = await read_request(reader)
            await asyncio.sleep(0)
            for piece in response(body).partition(b"\r\n\r\n"):  # in several pieces
                writer.write(piece)
                await writer.drain()

    async with served(echo, connections=3) as client:
        answers = await asyncio.gather(*(client.request("POST", "/", b"%d" % number) for number in range(50)))
    assert [answer.content for answer in answers] == [b"%d" % number for number in range(50)]
    assert len(connections) == 3


async def test_a_caller_who_leaves_leaves_no_answer_behind():
    release = asyncio.Event()

    async def slow(reader, writer):
        while True:
            _, body = await read_request(reader)
            if body == b"slow":
                await release.wait()
            writer.write(response(body))

    async with served(slow) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.request("POST", "/", b"slow")
        release.set()
        assert (await client.request("POST", "/", b"quick")).content == b"quick"


async def test_bytes_that_keep_coming_do_not_hold_a_caller():
    async def trickle(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.001)

    async with served(trickle) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.request("GET", "/")


async def test_a_kept_connection_that_the_server_has_ended_is_replaced():
    counts = []

    async def once(reader, writer):
        _, body = await read_request(reader)
        counts.append(body)
        writer.write(response(body))
        await writer.drain()
        await reader.read(1)  # ends when the next request comes, before any answer

    async with served(once) as client:
        for number in range(3):
            assert (await client.request("POST", "/", b"%d" % number)).content == b"%d" % number
    assert counts == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1", "ended before the answer"),
        (b"", "ended before the answer"),
    ],
)
async def test_half_an_answer_and_none_are_errors(sent, words):
    async def broken(reader, writer):
        await read_request(reader)
        writer.write(sent)
        await writer.drain()

    async with served(broken) as client:
        with pytest.raises(ServiceConnectionError, match=words):
            await client.request("GET", "/")


async def test_chunks_and_interim_answers_are_read():
    async def chunked(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async with served(chunked) as client:
        answer = await client.request("GET", "/")
    assert (answer.status, answer.content) == (503, b"abcde")


async def test_bytes_behind_an_answer_end_the_connection():
    connections = []

    async def talkative(reader, writer):
        connections.append(writer)
        while True:
            _, body = await read_request(reader)
            writer.write(response(body) + (response(b"unasked") if len(connections) == 1 else b""))

    async with served(talkative) as client:
        assert (await client.request("POST", "/", b"1")).content == b"1"
        await asyncio.sleep(0.01)
        assert (await client.request("POST", "/", b"2")).content == b"2"
    assert len(connections) == 2


async def test_an_answer_that_ends_the_connection_is_the_last_on_it():
    connections = []

    async def closing(reader, writer):
        connections.append(writer)
        _, body = await read_request(reader)
        writer.write(response(body, "200 OK\r\nconnection: close"))
        await writer.drain()

    async with served(closing) as client:
        for number in range(2):
            assert (await client.request("POST", "/", b"%d" % number)).content == b"%d" % number
    assert len(connections) == 2


async def test_nobody_there_is_an_error():
    async with served(lambda *_: asyncio.sleep(0)) as client:
        pass
    with pytest.raises(ServiceConnectionError, match="no connection"):
        await client.request("GET", "/")


async def test_an_old_connection_is_not_used_again():
    connections = []

    async def echo(reader, writer):
        connections.append(writer)
        while True:
            _, body = await read_request(reader)
            writer.write(response(body))

    now = [0.0]
    async with served(echo, clock=lambda: now[0]) as client:
        for now[0], opened in ((0.0, 1), (0.9 * KEEP_S, 1), (1.8 * KEEP_S, 1), (2.8 * KEEP_S, 2)):
            await client.request("GET", "/")
            assert len(connections) == opened


@pytest.mark.parametrize("url", ["ftp://a", "a:80", "http://", ""])
def test_another_url_is_refused(url):
    with pytest.raises(ValueError, match="not the URL"):
        ServiceClient(url, 1)


async def test_requests_are_sent_again_within_a_budget_only():
    counts = []

    async def once(reader, writer):
        _, body = await read_request(reader)
        counts.append(body)
        writer.write(response(body))
        await writer.drain()
        await reader.read(1)  # ends when the next request comes, before any answer

    failures = 0
    async with served(once) as client:
        for number in range(100):
            try:
                await client.request("POST", "/", b"%d" % number)
            except ServiceConnectionError:
                failures += 1
    # The reserve, and a tenth of the calls; each call that fails ends the connection, so that the next one works.
    assert 100 - failures <= 1 + 20 + 10 + failures + 1
    assert failures > 30
