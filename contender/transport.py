"""Sends calls of the services over HTTP, for the client, the command line and registration."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import httpx

from contender.addresses import ServiceName as ServiceName  # noqa: PLC0414 - whoever has a transport names services
from contender.addresses import service_urls
from contender.calls import AnswerT, Call, Upload
from contender.contracts.operation import Operation
from contender.errors import RefusedError, UnreachableError
from contender.retrying import Retrying


class Transport:
    """Sends calls.

    Args:
        urls: by service; default: those of `service_urls()`.
        timeout_s: longest wait for an answer, all attempts together.
        retries: how often a call that may be repeated is sent again.
        transport: another way to send; for tests.

    Raises:
        ContenderError: a URL is invalid.
    """

    def __init__(
        self,
        urls: Mapping[ServiceName, str] | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.urls = service_urls() if urls is None else urls
        self.retrying = Retrying(retries)
        self._timeout_s = timeout_s
        self._http = httpx.Client(transport=transport)
        self.sleep = time.sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        service: ServiceName,
        operation: Operation[AnswerT],
        /,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        files: Upload | None = None,
        timeout_s: float | None = None,
        **path: str,
    ) -> AnswerT:
        """The answer to one call, whose parts are as Call has them; `path` are the parameters of its path.

        Raises:
            RefusedError, UnreachableError, ContenderError: as `send` does.
        """
        return self.send(Call(service, operation, path, body, query or {}, files), timeout_s=timeout_s)

    def send(self, call: Call[AnswerT], *, timeout_s: float | None = None) -> AnswerT:
        """The answer to one call; `timeout_s` is the longest wait for it, by default that of the transport.

        Raises:
            RefusedError: the service refuses.
            UnreachableError: the service does not answer.
            ContenderError: the body or a name can't be sent, or something other than Contender answers.
        """
        request = call.request(self.urls)
        attempts = self.retrying.attempts(
            self._timeout_s if timeout_s is None else timeout_s, repeatable=call.is_repeatable
        )
        while True:
            timeout_s = attempts.timeout_s
            try:
                try:
                    answer = self._http.request(**request, headers=call.headers(timeout_s), timeout=timeout_s)
                except httpx.HTTPError as error:
                    raise _unreachable(request, error) from error
                return call.read(answer)
            except (RefusedError, UnreachableError) as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    raise
            self.sleep(pause_s)


class AsyncTransport:
    """Sends calls without blocking the event loop; its arguments are those of Transport."""

    def __init__(
        self,
        urls: Mapping[ServiceName, str] | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.urls = service_urls() if urls is None else urls
        self.retrying = Retrying(retries)
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(transport=transport)
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[AnswerT], *, timeout_s: float | None = None) -> AnswerT:
        """The answer to one call, as Transport gives it, with the same errors."""
        request = call.request(self.urls)
        attempts = self.retrying.attempts(
            self._timeout_s if timeout_s is None else timeout_s, repeatable=call.is_repeatable
        )
        while True:
            timeout_s = attempts.timeout_s
            try:
                try:
                    async with asyncio.timeout(timeout_s):
                        headers = call.headers(timeout_s)
                        answer = await self._http.request(**request, headers=headers, timeout=timeout_s)
                except (httpx.HTTPError, TimeoutError) as error:
                    raise _unreachable(request, error) from error
                return call.read(answer)
            except (RefusedError, UnreachableError) as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    raise
            await self.sleep(pause_s)


def _unreachable(request: Mapping[str, Any], error: Exception) -> UnreachableError:
    return UnreachableError(f"{request['url']} does not answer: {str(error) or 'timed out'}")
