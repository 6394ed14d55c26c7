"""Asks the router for the rows of a file, batch by batch."""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from contender.application_calls import Refusal
from contender.client import Client
from contender.contracts.ab_router import Prediction
from contender.errors import ContenderError, RefusedError, UnreachableError

_PAUSE_S = (0.2, 5.0)
_ROW_FIELD = re.compile(r"rows\[(\d+)\]\.(.*)", re.DOTALL)
_TEMPORARY = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Asking:
    """Sends batches again while they may succeed later.

    Args:
        client: calls the router.
        model: who answers.
        wait_s: longest that a call is tried again.
        waiting: is told the error before a call is tried again; several threads call it.
    """

    def __init__(
        self, client: Client, model: str, wait_s: float, waiting: Callable[[ContenderError], None] = lambda _: None
    ) -> None:
        self._client = client
        self._model = model
        self._wait_s = wait_s
        self._waiting = waiting
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Try no call again."""
        self._stopped.set()

    def ask(self, rows: Sequence[Mapping[str, Any]], request_id: str) -> Sequence[Prediction | Refusal | str]:
        """A prediction for each row, or why it is refused.

        Raises:
            ContenderError: the router refuses the call, or is away for too long.
        """
        end = time.monotonic() + self._wait_s
        pause_s = _PAUSE_S[0]
        while True:
            try:
                return self._client.predict_batch(self._model, rows, request_id=request_id)
            except RefusedError as error:
                if refusals := _refusals(error, len(rows)):
                    return refusals
                if error.status not in _TEMPORARY or self._gives_up(error, end, pause_s):
                    raise
            except UnreachableError as error:
                if self._gives_up(error, end, pause_s):
                    raise
            pause_s = min(2 * pause_s, _PAUSE_S[1])

    def _gives_up(self, error: ContenderError, end: float, pause_s: float) -> bool:
        """Pause before the next try; true where there is none."""
        if time.monotonic() > end:
            return True
        self._waiting(error)
        return self._stopped.wait(pause_s)


def _refusals(error: RefusedError, rows: int) -> list[str]:
    """Why each row of a batch is refused; empty where the call itself was refused."""
    faults: dict[int, list[str]] = {}
    for fault in error.errors:
        if match := _ROW_FIELD.match(fault.field):
            faults.setdefault(int(match[1]), []).append(f"{match[2]} {fault.message}")
    return ["; ".join(faults.get(row, [str(error)])) for row in range(rows)] if faults else []
