"""HTTP calls to one other service: each has a deadline, and the log says when they begin to fail and to work again."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Any, TypeVar

import msgspec
from prometheus_client import Counter

from contender.contracts.operation import JSON, Operation
from contender.contracts.problems import read_problem
from services.ab_router.clients import CallError, CallTimeoutError, QuestionRefusedError
from shared.http_client import Answer, ServiceClient
from shared.logs import logger

_LOG = logger(__name__)
_LOGGED_CHARACTERS = 500
_REFUSAL_LINES_EVERY_S = 1.0
_FAILING_LIMIT = 1_000
"""Failing paths that are remembered, to log their recovery."""
_NOT_ABOUT_THE_QUESTION = frozenset({401, 403, 404, 405, 408, 425, 429})
"""4xx that another question would get as well: about keys, routes and pace."""
AnswerT = TypeVar("AnswerT")
ContentT = TypeVar("ContentT")
CALL_FAILURES = Counter("contender_router_call_failures_total", "Calls to another service that failed", ["service"])


class Caller:
    """Calls one service.

    Args:
        client: sends, to the URL of the service.
        service: its name, for the log and the metrics.
        timeout_s: longest a call may take, from the connection to the answer's last byte.
        body_limit_bytes: longest body that the service reads; a longer one is refused here, as the service would.
    """

    def __init__(self, client: ServiceClient, service: str, timeout_s: float, body_limit_bytes: int) -> None:
        self._client = client
        self._service = service
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
        self, operation: Operation[AnswerT], check: Callable[[AnswerT], ContentT], body: object = None, **path: str
    ) -> ContentT:
        """What `check` makes of an operation's answer; `check` raises ValueError or KeyError for one of another shape.

        Raises:
            QuestionRefusedError: the service refuses the question.
            CallError: no answer within the timeout, an error, or an answer of another shape.
        """

        def read(answer: Answer) -> ContentT:
            return check(msgspec.json.decode(answer.content, type=operation.answer))

        return await self.send(operation, read, body, None, **path)

    async def send(
        self,
        operation: Operation[Any],
        read: Callable[[Answer], ContentT],
        body: object = None,
        headers: Mapping[str, str] | None = None,
        **path: str,
    ) -> ContentT:
        """As `call`, with headers, where `read` decodes the answer itself."""
        content = b"" if body is None else msgspec.json.encode(body)
        if len(content) > self._body_limit_bytes:
            message = (
                f"a body of {len(content)} bytes is longer than the {self._body_limit_bytes} that {self._service} reads"
            )
            raise QuestionRefusedError(message, 413, [])
        url = operation.url(**path)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(
                    operation.method, url, content, {"content-type": JSON, **(headers or {})}
                )
            if answer.status >= HTTPStatus.BAD_REQUEST:
                self._note_error(url, answer)
            result = read(answer)
        except (OSError, msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
            raise self._failure(url, error) from error
        self._note_answer(url)
        return result

    def _note_error(self, url: str, answer: Answer) -> None:
        """Raise what an answer means that is an error."""
        if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _NOT_ABOUT_THE_QUESTION:
            self._note_answer(url)
            raise self._refusal(answer)
        raise ValueError(f"status {answer.status} {_text(answer)[:_LOGGED_CHARACTERS]}")

    def _note_answer(self, url: str) -> None:
        self._is_silent = False
        self._answered_at = monotonic()
        if url in self._failing:
            self._failing.discard(url)
            _LOG.info("calls work again", service=self._service, path=url)

    def _failure(self, url: str, error: Exception) -> CallError:
        CALL_FAILURES.labels(self._service).inc()
        self._is_silent = True
        kind = CallTimeoutError if isinstance(error, TimeoutError) else CallError
        failure = kind(f"{self._service}: {type(error).__name__} {error}".strip())
        if url not in self._failing and len(self._failing) < _FAILING_LIMIT:
            self._failing.add(url)
            _LOG.warning("calls fail", service=self._service, path=url, error=str(failure))
        return failure

    def _refusal(self, answer: Answer) -> QuestionRefusedError:
        problem = read_problem(answer.content)
        detail = problem.detail or _text(answer)
        if monotonic() - self._refusal_logged_at >= _REFUSAL_LINES_EVERY_S:  # bad rows must not flood the log
            self._refusal_logged_at = monotonic()
            shown = detail[:_LOGGED_CHARACTERS]
            _LOG.info("a question is refused", service=self._service, status=answer.status, detail=shown)
        return QuestionRefusedError(f"{self._service}: {detail}", answer.status, problem.errors)


def _text(answer: Answer) -> str:
    return answer.content.decode(errors="replace")
