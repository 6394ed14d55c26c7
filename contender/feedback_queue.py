"""Feedback that a thread of its own sends, so that whoever reports it does not wait for the network."""

import atexit
import logging
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from queue import Empty, Full, Queue
from typing import Any, Protocol

from contender.errors import ContenderError, RefusedError

MOST_WAITING = 10_000
"""Reports that wait while the service does not answer; further ones are dropped."""
MOST_SENT = 500
"""Reports of one call."""
EXIT_S = 2.0
"""Longest that a process which ends waits for the reports that are not sent yet."""
_LOG = logging.getLogger(__name__)

Report = Mapping[str, Any]


class Sender(Protocol):
    """What sends reports, such as a Client."""

    def feedback_batch(self, outcomes: Sequence[Report]) -> None:
        """Send reports, all or none."""
        ...


class FeedbackQueue:
    """Takes reports, and sends them in the order in which they came, together where several wait.

    What can't be sent is logged and dropped: once when the service stops answering, and each report that it refuses.
    A process that ends sends what waits, for a moment at most.
    """

    def __init__(self, sender: Sender, most_waiting: int = MOST_WAITING) -> None:
        self._sender = sender
        self._reports: Queue[Report | None] = Queue(most_waiting)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._is_failing = False

    def add(self, report: Report) -> None:
        """Let a report be sent; it is dropped where too many wait."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="contender-feedback", daemon=True)
                self._thread.start()
                atexit.register(self.close, EXIT_S)
        try:
            self._reports.put_nowait(report)
        except Full:
            self._note_failure("too many reports wait")

    def close(self, timeout_s: float) -> None:
        """Send what waits, and wait for that; after the timeout the rest is lost."""
        with self._starting:
            thread, self._thread = self._thread, None
        atexit.unregister(self.close)
        if thread is not None:
            try:
                self._reports.put(None, timeout=timeout_s)
            except Full:
                return
            thread.join(timeout_s)

    def _run(self) -> None:
        while (report := self._reports.get()) is not None:
            reports = [report]
            is_last = False
            while len(reports) < MOST_SENT and not is_last:
                try:
                    following = self._reports.get_nowait()
                except Empty:
                    break
                is_last = following is None
                reports += [] if following is None else [following]
            self._send(reports)
            if is_last:
                return

    def _send(self, reports: Sequence[Report]) -> None:
        try:
            self._sender.feedback_batch(reports)
        except RefusedError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                self._note_failure(str(error))
            elif len(reports) > 1:  # one of them is at fault, and the others are not to be lost with it
                for report in reports:
                    self._send([report])
            else:
                _LOG.warning("feedback on %s is refused: %s", reports[0].get("prediction_id"), error)
        except ContenderError as error:
            self._note_failure(str(error))
        else:
            self._is_failing = False

    def _note_failure(self, reason: str) -> None:
        if not self._is_failing:
            _LOG.warning("feedback is lost until the service takes it again: %s", reason)
        self._is_failing = True
