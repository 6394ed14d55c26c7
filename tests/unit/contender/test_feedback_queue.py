"""Feedback that a thread sends: in order, together, and without harm to whoever reports it."""

import logging
import subprocess
import sys
import threading

import pytest

from contender import RefusedError, UnreachableError
from contender.feedback_queue import MOST_SENT, FeedbackQueue

WAIT_S = 30.0


class Sender:
    """Remembers calls; refuses those with a report of `bad`, and waits until it may answer."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.error: Exception | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_asked = threading.Event()

    def feedback_batch(self, outcomes) -> None:
        self.is_asked.set()
        assert self.may_answer.wait(WAIT_S)
        ids = [report["prediction_id"] for report in outcomes]
        self.calls.append(ids)
        if self.error:
            raise self.error
        if "bad" in ids:
            raise RefusedError(422, "feedback[0].prediction_id is no id")


def report(prediction_id: str) -> dict:
    return {"prediction_id": prediction_id, "conversion": True}


def test_reports_that_wait_are_sent_together_and_in_order():
    sender = Sender()
    sender.may_answer.clear()
    queue = FeedbackQueue(sender)
    queue.add(report("first"))
    assert sender.is_asked.wait(WAIT_S)
    for number in range(MOST_SENT + 1):
        queue.add(report(str(number)))
    sender.may_answer.set()
    queue.close(WAIT_S)
    assert [len(call) for call in sender.calls] == [1, MOST_SENT, 1]
    assert [each for call in sender.calls for each in call] == ["first", *map(str, range(MOST_SENT + 1))]


def test_a_refused_report_takes_no_other_with_it(caplog):
    sender = Sender()
    sender.may_answer.clear()
    queue = FeedbackQueue(sender)
    queue.add(report("first"))
    assert sender.is_asked.wait(WAIT_S)
    for prediction_id in ("a", "bad", "c"):
        queue.add(report(prediction_id))
    with caplog.at_level(logging.WARNING):
        sender.may_answer.set()
        queue.close(WAIT_S)
    assert sender.calls == [["first"], ["a", "bad", "c"], ["a"], ["bad"], ["c"]]
    assert [record.getMessage() for record in caplog.records] == [
        "feedback on bad is refused: feedback[0].prediction_id is no id"
    ]


@pytest.mark.parametrize("error", [UnreachableError("nobody answers"), RefusedError(503, "busy")])
def test_an_outage_is_logged_once_and_what_follows_it_is_sent(caplog, error):
    sender = Sender()
    sender.error = error
    queue = FeedbackQueue(sender)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            queue.add(report("lost"))
            queue.close(WAIT_S)
        sender.error = None
        queue.add(report("sent"))
        queue.close(WAIT_S)
        sender.error = error
        queue.add(report("lost"))
        queue.close(WAIT_S)
    assert len(caplog.records) == 2
    assert sender.calls[-2:] == [["sent"], ["lost"]]


def test_a_queue_that_is_full_drops_reports_and_says_so(caplog):
    sender = Sender()
    sender.may_answer.clear()
    queue = FeedbackQueue(sender, most_waiting=2)
    queue.add(report("first"))
    assert sender.is_asked.wait(WAIT_S)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            queue.add(report(str(number)))
    assert len(caplog.records) == 1
    sender.may_answer.set()
    queue.close(WAIT_S)
    assert [each for call in sender.calls for each in call] == ["first", "0", "1"]


def test_closing_a_queue_that_had_nothing_to_send_is_quick():
    FeedbackQueue(Sender()).close(WAIT_S)


ENDING = """
from contender.feedback_queue import FeedbackQueue

class Sender:
    def feedback_batch(self, outcomes):
        print(*(report["prediction_id"] for report in outcomes), flush=True)

queue = FeedbackQueue(Sender())
for prediction_id in "abc":
    queue.add({"prediction_id": prediction_id})
"""


def test_a_process_that_ends_sends_what_waits():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout.split() == ["a", "b", "c"]
    assert done.stderr == ""
