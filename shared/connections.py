"""Bounds of connections: the size and time of heads and bodies, idle time, and how many are open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from math import ceil, inf
from typing import Any, Self, cast

import httptools
import uvicorn
from prometheus_client import Counter
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from shared.guard import ANSWER_HEADERS
from shared.problems import http_problem, problem_response
from shared.settings import Settings

CUT = Counter("contender_http_connections_cut_total", "Connections that the server cut, by reason", ["reason"])
_PIPELINED = 16
"""Requests that may wait on one connection: each is 2 kB here and 18 bytes on the wire."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that the protocol itself gives, before it ends the connection."""

    reason: str
    status: HTTPStatus
    detail: str

    def encode(self) -> bytes:
        """The whole answer as it is sent."""
        retry = {"Retry-After": "1"} if self.status is HTTPStatus.SERVICE_UNAVAILABLE else None
        answer = problem_response(http_problem(int(self.status), self.detail), retry)
        lines = [f"HTTP/1.1 {answer.status_code} {self.status.phrase}".encode()]
        lines += [name + b": " + value for name, value in (*answer.raw_headers, *ANSWER_HEADERS)]
        return b"\r\n".join([*lines, b"connection: close", b"", bytes(answer.body)])


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds of connections; the settings of the same names say why.

    Attributes:
        look_s: seconds between two looks at each connection.
        linger_s: seconds for which a refused client's bytes are discarded; closed at once, it would miss the answer.
    """

    head_bytes: int
    head_fields: int
    head_s: float
    body_s: float
    body_bytes_per_s: int
    idle_s: float
    connections: int
    look_s: float = 1.0
    linger_s: float = 1.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The bounds that the settings name."""
        return cls(
            head_bytes=settings.head_limit_bytes,
            head_fields=settings.head_fields_limit,
            head_s=settings.head_timeout_s,
            body_s=settings.body_timeout_s,
            body_bytes_per_s=settings.body_slowest_bytes_per_s,
            idle_s=settings.idle_timeout_s,
            connections=settings.connection_limit,
        )


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds. It looks now and then at how long the present phase lasts.

    A connection waits for a head, or reads a head, or a body, or its request is being answered.
    """

    def __init__(self, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._since = self.loop.time()
        self._in_head = False
        self._in_body = False
        self._body_budget_s = 0.0
        self._body_bytes = 0  # since the last look
        self._unread_bytes = 0  # that neither ended a head nor belonged to a body
        self._unsent_bytes = 0
        self._stalled_s = 0.0
        self._refusal: Refusal | None = None
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a connection. Where too many are open, the one that has waited longest makes room."""
        super().connection_made(transport)
        self._look_later()
        if len(self.connections) > self._limits.connections:
            waiting = [other for other in self._others() if other.waits]
            if waiting:
                min(waiting, key=lambda other: other._since).cut("room")  # noqa: SLF001 - of the same class
            else:
                self._refuse(Refusal("room", HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching a connection."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, or discard it after a refusal."""
        if self._ended:
            return
        self._unset_keepalive_if_required()
        self._unread_bytes += len(data)
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError:
            self._refuse(
                self._refusal or Refusal("malformed", HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
            )
        else:
            if self._unread_bytes > self._limits.head_bytes:
                self._refuse(self._large_head())

    def _parse(self, data: bytes) -> bytes:
        """Parse, and return what to parse next: a request that offers another protocol, without its offer.

        The parser takes whatever follows such an offer for the other protocol. This server speaks HTTP/1.1 alone, so
        it is the request's body: Java's client makes this offer with each POST.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            version = self.parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
            lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            return b"\r\n".join([*lines, b"", data[offer.args[0] :]])
        return b""

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._since = True, self.loop.time()

    def on_headers_complete(self) -> None:
        """A head is read: check it before its request goes on."""
        limits = self._limits
        size = (
            sum(len(name) + len(value) for name, value in self.headers) if self._unread_bytes > limits.head_bytes else 0
        )
        if len(self.headers) > limits.head_fields or size + len(self.url) > limits.head_bytes:
            self._refusal = self._large_head()
        elif len(self.pipeline) >= _PIPELINED:
            self._refusal = Refusal(
                "pipelined", HTTPStatus.TOO_MANY_REQUESTS, "too many requests wait on this connection"
            )
        if self._refusal is not None:
            raise ValueError(self._refusal.detail)  # ends the parser's step
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return  # `_parse` has it read again without the offer
        super().on_headers_complete()
        self.headers = []  # trailers behind the body do not belong to the head
        self._in_head, self._in_body, self._since = False, True, self.loop.time()
        self._body_budget_s = limits.body_s
        self._body_bytes = self._unread_bytes = 0

    def on_body(self, body: bytes) -> None:
        """A part of a body is read."""
        self._body_bytes += len(body)
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A body is read to its end."""
        if self._in_head:  # of a request that is read again
            return
        super().on_message_complete()
        self._in_body = False
        self._unread_bytes = 0

    def on_response_complete(self) -> None:
        """A request is answered."""
        self._since = self.loop.time()
        super().on_response_complete()

    @property
    def waits(self) -> bool:
        """Whether it waits for a request, for the rest of a head, or for its end."""
        return self._ended or not (self._in_body or self._answering)

    def cut(self, reason: str) -> None:
        """End the connection without an answer."""
        CUT.labels(reason).inc()
        self._ended = True
        self.connections.discard(self)
        self.transport.abort()

    @property
    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _others(self) -> list["BoundedProtocol"]:
        return [other for other in cast("set[BoundedProtocol]", self.connections) if other is not self]

    def _look_later(self) -> None:
        self._timer = self.loop.call_later(self._limits.look_s, self._look)

    def _look(self) -> None:
        """End the connection when its phase lasts too long."""
        self._look_later()
        unsent = self.transport.get_write_buffer_size()
        self._stalled_s = self._stalled_s + self._limits.look_s if 0 < self._unsent_bytes <= unsent else 0.0
        self._unsent_bytes = unsent
        if self._stalled_s > self._limits.idle_s:
            self.cut("unread answer")
        elif self.flow.read_paused or (self._answering and self.cycle.waiting_for_100_continue):
            self._since += self._limits.look_s  # this side does not read
        elif self._in_body and self._answering:
            self._look_at_body()
        elif self.loop.time() - self._since > self._allowed_s():
            if self._in_head:
                self._refuse(Refusal("slow head", HTTPStatus.REQUEST_TIMEOUT, "the head came too slowly"))
            else:
                self.cut("idle")

    def _look_at_body(self) -> None:
        """Take the time since the last look from the body's budget; the bytes that came buy some of it back."""
        limits = self._limits
        bought_s = self._body_bytes / limits.body_bytes_per_s
        self._body_bytes = 0
        self._body_budget_s = min(limits.body_s, self._body_budget_s + bought_s) - limits.look_s
        if self._body_budget_s < 0:
            self._refuse(Refusal("slow body", HTTPStatus.REQUEST_TIMEOUT, "the body came too slowly"))

    def _allowed_s(self) -> float:
        """Seconds that the present phase may last; `_look_at_body` limits the body of an unanswered request."""
        limits = self._limits
        if self._in_body:
            return limits.body_s
        if self._answering:
            return inf
        return limits.head_s if self._in_head or self.cycle is None else limits.idle_s

    def _large_head(self) -> Refusal:
        limits = self._limits
        return Refusal(
            "large head",
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the head is longer than {limits.head_bytes} bytes, or has more than {limits.head_fields} fields",
        )

    def _refuse(self, refusal: Refusal) -> None:
        """End the connection, with a problem if it is this request's turn and its answer has not begun."""
        others_turn = self._answering and (self.pipeline or not self._in_body or self.cycle.response_started)
        if others_turn or self.transport.is_closing():
            self.cut(refusal.reason)
            return
        CUT.labels(refusal.reason).inc()
        self._ended = True
        if self._answering:  # the application learns that its client is gone
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        self.transport.write(refusal.encode())
        self.transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._limits.linger_s, self.transport.abort)


def bounded_config(app: ASGIApp, limits: ConnectionLimits, **options: Any) -> uvicorn.Config:
    """Uvicorn's configuration of a server with these bounds; `options` are uvicorn's own."""
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, limits)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody reads the client's address
        timeout_keep_alive=ceil(limits.idle_s),
        **options,
    )


@asynccontextmanager
async def serving(
    app: ASGIApp, limits: ConnectionLimits, host: str, port: int, state: Mapping[str, Any] | None = None
) -> AsyncIterator[None]:
    """Serve in the running loop for the length of a block, beside what else runs there.

    Args:
        app: the application; its lifespan is not run.
        limits: the bounds of its connections.
        host: the address where it listens.
        port: its port.
        state: what requests find in their state.

    Raises:
        OSError: another process listens there, or the address is not this machine's.
    """
    config = bounded_config(app, limits, lifespan="off")
    config.load()
    server_state = ServerState()
    make = cast("Callable[..., BoundedProtocol]", config.http_protocol_class)
    server = await asyncio.get_running_loop().create_server(
        lambda: make(config=config, server_state=server_state, app_state=dict(state or {})), host, port
    )
    try:
        yield
    finally:
        server.close()
        for connection in list(server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets their `connection_lost` run
