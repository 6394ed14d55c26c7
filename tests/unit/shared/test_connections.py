"""No connection takes more memory or time than it may, whatever its client sends or leaves out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from embedded.ports import free_ports
from shared.connections import ConnectionLimits, serving
from shared.settings import Settings
from tests.unit.shared.manual_time import ManualTimeLoop, until

pytestmark = pytest.mark.usefixtures("manual_time")

LIMITS = ConnectionLimits(
    head_bytes=2_000,
    head_fields=20,
    head_s=0.3,
    body_s=0.3,
    body_bytes_per_s=1_000_000,
    idle_s=1.0,
    connections=10,
    look_s=0.02,
    linger_s=0.1,
)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
Connect = Callable[[], Any]


class App:
    """Reads the body; notes its length and who left; may wait before it reads or answers."""

    def __init__(self) -> None:
        self.calls = 0
        self.received_bytes = 0
        self.read: list[int] = []
        self.left = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.answer = b"well"
        self.may_read = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_read.set()
        self.may_answer.set()

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        self.calls += 1
        await self.may_read.wait()
        length = 0
        try:
            async for part in request.stream():
                length += len(part)
                self.received_bytes += len(part)
            self.read.append(length)
        except ClientDisconnect:
            self.left += 1
        self.headers = list(scope["headers"])
        await self.may_answer.wait()
        await Response(self.answer)(scope, receive, send)


@asynccontextmanager
async def served(app: Any, limits: ConnectionLimits = LIMITS) -> AsyncIterator[Connect]:
    (port,) = free_ports(1)
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    connect.port = port  # type: ignore[attr-defined]
    async with serving(app, limits, "127.0.0.1", port):
        yield connect
        for writer in writers:
            writer.transport.abort()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end, be it a reset."""
    answer = b""
    try:
        while part := await reader.read(65536):
            answer += part
    except ConnectionError:
        pass
    return answer


async def exchange(connect: Connect, sent: bytes) -> bytes:
    reader, writer = await connect()
    writer.write(sent)
    return await rest(reader)


def assert_problem(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"x-content-type-options: nosniff" in head
    assert b"content-security-policy: default-src 'none'" in head
    assert b"connection: close" in head
    assert msgspec.json.decode(body)["status"] == status


async def pass_time(seconds: float) -> None:
    """Let the server look at its connections for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ManualTimeLoop)
    await loop.advance(seconds, LIMITS.look_s)


async def rest_in_time(reader: asyncio.StreamReader) -> bytes:
    """As `rest`, while time passes."""
    answer = asyncio.create_task(rest(reader))
    while not answer.done():
        await pass_time(LIMITS.look_s)
    return await answer


async def trickle(connect: Connect, begin: bytes, piece: bytes) -> bytes:
    """Send a piece every so often until the connection ends; what came."""
    reader, writer = await connect()
    writer.write(begin)
    await writer.drain()
    answer = asyncio.create_task(rest(reader))
    while not answer.done():
        if piece and not writer.is_closing():
            writer.write(piece)
        await pass_time(2 * LIMITS.look_s)
    return await answer


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X: " + b"a" * 3_000 + b"\r\n\r\n",
        GET + b"X: " + b"a" * 3_000_000 + b"\r\n\r\n",
        GET + b"X: " + b"a" * 3_000,
        GET + b"".join(b"X-%d: a\r\n" % i for i in range(30)) + b"\r\n",
        GET + b"".join(b"X: a\r\n" for i in range(300_000)) + b"\r\n",
        b"GET /" + b"a" * 3_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 3_000,
        GET + b"a" * 3_000 + b": b\r\n\r\n",
        b"\r\n" * 2_000,
    ],
    ids=lambda head: f"{head[:20]!r} {len(head)}",
)
async def test_a_large_head_is_refused_before_its_end(head: bytes):
    app = App()
    async with served(app) as connect:
        answer = await exchange(connect, head)
    assert_problem(answer, 431)
    assert app.read == []


async def test_a_large_head_behind_another_request_is_refused():
    async with served(App()) as connect:
        answer = await trickle(connect, GET + b"\r\n" + GET + b"X: " + b"a" * 3_000 + b"\r\n\r\n", b"")
    second = answer.rpartition(b"well")[2]
    assert not second or second.startswith(b"HTTP/1.1 431 ")  # the first answer may be under way


async def test_a_head_within_the_limits_is_read():
    app = App()
    async with served(app) as connect:
        answer = await exchange(connect, GET + b"X: " + b"a" * 1_500 + b"\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"well")


@pytest.mark.parametrize(
    "sent",
    [b"\x00\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", GET + b"a b: c\r\n\r\n"],
)
async def test_what_is_no_request_is_a_problem(sent: bytes):
    async with served(App()) as connect:
        assert_problem(await exchange(connect, sent), 400)


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"", b"", None),
        (b"", b"\r\n", None),
        (b"G", b"", 408),
        (GET + b"X: ", b"a", 408),
        (GET, b"X: a\r\n", 408),
        (POST + b"Content-Length: 1000\r\n\r\n", b"", 408),
        (POST + b"Content-Length: 1000\r\n\r\n{", b"a", 408),
        (POST + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n", b"", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n", b"a", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;a", b"a", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n", 408),
    ],
)
async def test_who_is_silent_or_slow_is_cut(begin: bytes, piece: bytes, status: int | None):
    app = App()
    async with served(app) as connect:
        answer = (await trickle(connect, begin, piece)).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if status is None:
        assert answer == b""
    else:
        assert_problem(answer, status)
    assert app.read == []


async def test_the_application_learns_that_a_slow_client_was_cut():
    app = App()
    async with served(app) as connect:
        assert_problem(await trickle(connect, POST + b"Content-Length: 1000\r\n\r\n", b"a"), 408)
        await until(lambda: app.left)
    assert app.left == 1


async def test_a_kept_connection_waits_for_its_next_request_and_no_longer():
    async with served(App()) as connect:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(GET + b"\r\n")
            await reader.readuntil(b"well")
            await pass_time(0.4)  # longer than a head may take
        assert await rest_in_time(reader) == b""


async def test_the_time_in_which_we_do_not_read_is_not_the_clients():
    app = App()
    app.may_read.clear()
    body = b"a" * 3_000_000
    async with served(app, replace(LIMITS, body_bytes_per_s=1_000_000_000)) as connect:
        reader, writer = await connect()
        writer.write(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: app.calls)
        await pass_time(3 * LIMITS.body_s)
        app.may_read.set()
        assert (await rest(reader)).endswith(b"well")
    assert app.read == [len(body)]


async def test_a_long_answer_is_waited_for():
    app = App()
    app.may_answer.clear()
    async with served(app) as connect:
        reader, writer = await connect()
        writer.write(GET + b"Connection: close\r\n\r\n")
        await until(lambda: app.read)
        await pass_time(2 * LIMITS.idle_s)
        app.may_answer.set()
        assert (await rest(reader)).endswith(b"well")


async def test_a_body_at_the_allowed_rate_is_read_however_long_it_takes():
    app = App()
    piece = b"a" * 50_000
    async with served(app, replace(LIMITS, body_bytes_per_s=200_000)) as connect:
        reader, writer = await connect()
        writer.write(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (20 * len(piece)))
        for count in range(1, 21):
            writer.write(piece)
            await until(lambda count=count: app.received_bytes == count * len(piece))
            await pass_time(0.2)  # 50,000 bytes buy 0.25 s
        assert (await rest(reader)).endswith(b"well")
    assert app.read == [1_000_000]


async def test_a_body_that_began_fast_may_stand_still_no_longer_than_others():
    app = App()
    begin = POST + b"Content-Length: 60000000\r\n\r\n" + b"a" * 50_000_000  # 50 s at the slowest rate
    async with served(app) as connect:
        assert_problem(await trickle(connect, begin, b""), 408)


async def test_while_we_do_not_ask_for_a_body_its_time_does_not_run():
    app = App()
    app.may_read.clear()
    async with served(app) as connect:
        reader, writer = await connect()
        writer.write(POST + b"Connection: close\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        await until(lambda: app.calls)
        await pass_time(3 * LIMITS.body_s)
        app.may_read.set()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"a")
        assert (await rest(reader)).endswith(b"well")


async def test_an_answer_that_nobody_reads_is_given_up():
    app = App()
    app.answer = b"a" * 50_000_000
    async with served(app) as connect:
        reader, writer = await connect()
        writer.write(GET + b"\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: app.read)
        await pass_time(3 * LIMITS.idle_s)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await rest(reader)) < len(app.answer)


async def test_a_body_that_goes_on_behind_its_answer_ends():
    class Hasty:
        async def __call__(self, scope, receive, send) -> None:
            await Response(b"no", 413)(scope, receive, send)

    async with served(Hasty()) as connect:
        begin = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = await trickle(connect, begin, b"1000\r\n" + b"a" * 4096 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_fields_behind_a_body_do_not_reach_the_application():
    app = App()
    chunked = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: evil.example\r\n\r\n"
    async with served(app) as connect:
        assert (await exchange(connect, chunked)).endswith(b"well")
    assert [value for name, value in app.headers if name == b"host"] == [b"localhost"]


async def test_endless_fields_behind_a_body_end():
    async with served(App()) as connect:
        begin = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "
        assert_problem(await exchange(connect, begin + b"a" * 3_000_000), 431)


async def test_requests_that_are_sent_without_waiting_are_answered_in_order_and_only_so_many():
    async with served(App()) as connect:
        few = await exchange(connect, (GET + b"\r\n") * 9 + GET + b"Connection: close\r\n\r\n")
        assert few.count(b"HTTP/1.1 200") == few.count(b"well") == 10
        many = await exchange(connect, (GET + b"\r\n") * 1_000)
    assert many.count(b"HTTP/1.1 200") < 20


async def test_the_connection_that_has_waited_longest_makes_room():
    async with served(App(), replace(LIMITS, head_s=60, idle_s=60)) as connect:
        silent = []
        for _ in range(3 * LIMITS.connections):
            silent.append(await connect())
            await pass_time(LIMITS.look_s)
        answer = await exchange(connect, GET + b"Connection: close\r\n\r\n")
        assert answer.endswith(b"well")
        for reader, _ in silent[: 2 * LIMITS.connections]:
            assert await rest(reader) == b""
        newest = silent[-1]
        newest[1].write(GET + b"Connection: close\r\n\r\n")
        assert (await rest(newest[0])).endswith(b"well")


async def test_where_all_connections_are_being_answered_a_further_one_is_told_so():
    app = App()
    app.may_answer.clear()
    async with served(app) as connect:
        busy = [await connect() for _ in range(LIMITS.connections)]
        for _, writer in busy:
            writer.write(GET + b"Connection: close\r\n\r\n")
        await until(lambda: len(app.read) == LIMITS.connections)
        answer = await exchange(connect, GET + b"\r\n")
        assert_problem(answer, 503)
        assert b"retry-after: 1" in answer
        app.may_answer.set()
        for reader, _ in busy:
            assert (await rest(reader)).endswith(b"well")


OFFERS = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Key: a\r\n",
)


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_a_request_that_offers_to_speak_something_else_is_answered_as_http(offer, piece):
    app = App()
    sent = (
        POST + offer + b"Content-Length: 5\r\n\r\nabcde" + GET + offer + b"\r\n"
        b"POST / HTTP/1.1\r\n" + offer + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    async with served(app) as connect:
        reader, writer = await connect()
        for start in range(0, len(sent), piece):
            writer.write(sent[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0)
        answer = await rest(reader)
    assert app.read == [5, 0, 3, 0]
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"well") == 4


async def test_an_offer_with_a_large_head_or_a_tunnel_is_refused():
    async with served(App()) as connect:
        for sent, status in (
            (POST + OFFERS[0] + b"A: " + b"a" * LIMITS.head_bytes + b"\r\n\r\n", 431),
            (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
            (b"CONNECT localhost:443 HTTP/1.1\r\n" + OFFERS[0] + b"\r\n", 400),
        ):
            assert_problem(await exchange(connect, sent), status)


async def test_a_large_upload_goes_through():
    app = App()
    async with served(app, ConnectionLimits.of(Settings())) as connect, httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{connect.port}/", content=b"a" * 64 * 1024**2, timeout=60)
    assert answer.status_code == 200
    assert app.read == [64 * 1024**2]
