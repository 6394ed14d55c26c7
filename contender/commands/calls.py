"""Calls of the commands to services: an error is printed as one sentence and ends the command."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from contender.client import Client
from contender.commands.terminal import fail
from contender.contracts.operation import Operation
from contender.errors import ContenderError, UnreachableError
from contender.transport import ServiceName, Transport

_TIMEOUT_S = 120.0
AnswerT = TypeVar("AnswerT")


@contextmanager
def connected() -> Iterator[Client]:
    """A client whose errors end the command."""
    try:
        with Client() as client:
            yield client
    except ContenderError as error:
        raise fail(error) from error


def call(
    operation: Operation[AnswerT],
    *,
    body: Any = None,
    query: Mapping[str, Any] | None = None,
    service: ServiceName = "feature_service",
) -> AnswerT:
    """The answer of a service.

    Raises:
        typer.Exit: with 1, where the service refuses or does not answer.
    """
    try:
        with Transport(timeout_s=_TIMEOUT_S) as transport:
            return transport.call(service, operation, body=body, query=query)
    except UnreachableError as error:
        name, url = service.replace("_", " "), transport.urls[service]
        raise fail(f"The {name} on {url} does not answer: is `contender up` running?") from error
    except ContenderError as error:
        raise fail(error) from error
