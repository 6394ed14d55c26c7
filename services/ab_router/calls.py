"""HTTP calls to one other service: each has a deadline, and the log tells when they begin and cease to fail."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import httpx
import msgspec
from prometheus_client import Counter

from contender.contracts.problems import FieldError

_LOG = logging.getLogger(__name__)
_LOGGED_CHARACTERS = 500
_REFUSAL_LINES_EVERY_S = 1.0
_FAILING_LIMIT = 1_000
"""Failing paths that are remembered, to log their recovery."""
_NOT_ABOUT_THE_QUESTION = frozenset({401, 403, 404, 405, 408, 425, 429})
"""4xx that another question would get as well: about keys, routes and pace."""
ShapeT = TypeVar("ShapeT")
ContentT = TypeVar("ContentT")
CALL_FAILURES = Counter("contender_router_call_failures_total", "Calls to another service that failed", ["service"])


class CallError(RuntimeError):
    """The other service did not answer, or can't at the moment. Its text, with internal addresses, is for the log."""


class QuestionRefusedError(CallError):
    """The other service refuses the question itself: asking it again does not help.

    Attributes:
        status: the HTTP status.
        errors: the fields that it names, in its own terms.
    """

    def __init__(self, detail: str, status: int, errors: list[FieldError]) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors


class _Problem(msgspec.Struct):
    detail: str = ""
    errors: list[FieldError] = []


class Caller:
    """Calls one service.

    Args:
        client: sends.
        service: its name, for the log and the metrics.
        url: where it is.
        timeout_s: longest a call may take, from the connection to the answer's last byte.
        body_limit_bytes: longest body that the service reads; a longer one is refused here, as the service would.
    """

    def __init__(
        self, client: httpx.AsyncClient, service: str, url: str, timeout_s: float, body_limit_bytes: int
    ) -> None:
        self._client = client
        self._service = service
        self._url = url
        self._timeout_s = timeout_s
        self._body_limit_bytes = body_limit_bytes
        self._failing: set[str] = set()
        self._is_silent = False
        self._answered_at = monotonic()
        self._refusal_logged_at = -_REFUSAL_LINES_EVERY_S

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer, where every call after it has failed; 0 when the last one was answered."""
        return monotonic() - self._answered_at if self._is_silent else 0.0

    async def call(
        self, shape: type[ShapeT], read: Callable[[ShapeT], ContentT], method: str, path: str, body: object = None
    ) -> ContentT:
        """What `read` makes of the answer; its KeyError or ValueError means an answer of another shape.

        Raises:
            QuestionRefusedError: the service refuses what it was asked.
            CallError: no answer within the timeout, an error, or an answer of another shape.
        """
        content = None if body is None else msgspec.json.encode(body)
        if content is not None and len(content) > self._body_limit_bytes:
            raise QuestionRefusedError(f"{len(content)} bytes are too many for {self._service}", 413, [])
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(
                    method,
                    self._url + path,
                    content=content,
                    headers={"content-type": "application/json"},
                    timeout=self._timeout_s,
                )
            if answer.is_client_error and answer.status_code not in _NOT_ABOUT_THE_QUESTION:
                self._note_answer(path)
                raise self._refusal(answer)
            answer.raise_for_status()
            result = read(msgspec.json.decode(answer.content, type=shape))
        except (httpx.HTTPError, TimeoutError, msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
            raise self._failure(path, error) from error
        self._note_answer(path)
        return result

    def _note_answer(self, path: str) -> None:
        self._is_silent = False
        self._answered_at = monotonic()
        if path in self._failing:
            self._failing.discard(path)
            _LOG.info("calls of %s to %s succeed again", path, self._service)

    def _failure(self, path: str, error: Exception) -> CallError:
        CALL_FAILURES.labels(self._service).inc()
        self._is_silent = True
        body = error.response.text[:_LOGGED_CHARACTERS] if isinstance(error, httpx.HTTPStatusError) else ""
        failure = CallError(f"{self._service}: {type(error).__name__} {error} {body}".strip())
        if path not in self._failing and len(self._failing) < _FAILING_LIMIT:
            self._failing.add(path)
            _LOG.warning("calls of %s fail: %s", path, failure)
        return failure

    def _refusal(self, answer: httpx.Response) -> QuestionRefusedError:
        try:
            problem = msgspec.json.decode(answer.content, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            problem = _Problem(answer.text)
        if (
            monotonic() - self._refusal_logged_at >= _REFUSAL_LINES_EVERY_S
        ):  # a caller's bad rows must not flood the log
            self._refusal_logged_at = monotonic()
            detail = problem.detail[:_LOGGED_CHARACTERS]
            _LOG.info("%s refuses a question with %d: %s", self._service, answer.status_code, detail)
        return QuestionRefusedError(f"{self._service}: {problem.detail}", answer.status_code, problem.errors)
