"""When a process is started again, and when it is ended because it answers nothing: with a clock of the test's own."""

import subprocess
from pathlib import Path

from embedded.process import ManagedProcess, Readiness
from embedded.watched import KILL_S, LAST_BACKOFF_S, STEADY_S, StallTimeouts, Watched


class Scripted(ManagedProcess):
    """A process that is what a test says."""

    running = False
    live = True
    status = Readiness(ready=True)
    fails_to_start = False

    def __init__(self) -> None:
        super().__init__("scripted", [], port=1, log=Path("missing.log"))
        self.signals: list[str] = []

    @property
    def pid(self) -> int | None:
        return None

    @property
    def alive(self) -> bool:
        return self.running

    @property
    def exit_code(self) -> int | None:
        return None if self.running else 3

    def start(self) -> None:
        if self.fails_to_start:
            raise subprocess.TimeoutExpired("format", 60)
        self.running = True

    def is_live(self, timeout_s: float) -> bool:
        return self.live

    def readiness(self) -> Readiness:
        return self.status

    def terminate(self) -> None:
        self.signals.append("terminate")

    def send_kill(self) -> None:
        self.signals.append("kill")
        self.running = False


def started(process: Scripted) -> Watched:
    watched = Watched(process, [], StallTimeouts(live_s=20, start_s=300))
    watched.start(1000.0)
    return watched


def end_and_start(watched: Watched, process: Scripted, now: float) -> float:
    """Let it end, and return how long it waited for the next start."""
    process.running = False
    watched.check(now)
    assert watched.check(watched.retry_at - 0.01) == ""
    waited_s = watched.retry_at - now
    watched.check(watched.retry_at)
    assert process.running
    return waited_s


def test_intervals_grow_to_a_minute_and_no_further():
    watched = started(process := Scripted())
    waits = [end_and_start(watched, process, watched.started_at) for _ in range(12)]
    assert [round(wait_s, 1) for wait_s in waits[:4]] == [0.2, 0.4, 0.8, 1.6]
    assert waits == sorted(waits)
    assert [round(wait_s) for wait_s in waits[-3:]] == [LAST_BACKOFF_S] * 3
    assert watched.restarts == 12


def test_one_that_has_run_steadily_begins_with_short_intervals_again():
    watched = started(process := Scripted())
    for _ in range(8):
        end_and_start(watched, process, watched.started_at)
    watched.answered_at = watched.started_at + STEADY_S + 1
    watched.check(watched.started_at + STEADY_S + 1)
    assert round(end_and_start(watched, process, watched.started_at + STEADY_S + 2), 1) == 0.2


def test_what_can_not_be_started_is_tried_again_later():
    watched = started(process := Scripted())
    process.running, process.fails_to_start = False, True
    watched.check(1001.0)
    line = watched.check(1002.0)
    assert line.startswith("scripted can't be started: Command 'format' timed out")
    assert line.endswith("restart 2 in 0.4 s")
    process.fails_to_start = False
    assert watched.check(1003.0) == "scripted was started again, restart 2"


def test_one_that_has_not_listened_yet_is_given_the_time_of_a_start():
    watched = started(process := Scripted())
    assert watched.check(1300.0) == ""
    assert watched.check(1300.1) == "scripted did not answer /livez for 300 s: it is ended and started again"
    assert process.signals == ["terminate"]


def test_one_that_answers_nothing_any_more_is_asked_to_end_and_then_killed():
    watched = started(process := Scripted())
    watched.probe(None)
    watched.answered_at = 1300.0
    assert "ready after" in watched.check(1301.0)
    assert watched.check(1320.0) == ""
    assert watched.check(1320.1) == "scripted did not answer /livez for 20 s: it is ended and started again"
    assert watched.check(1320.1 + KILL_S - 0.1) == ""
    assert process.signals == ["terminate"]
    watched.check(1320.1 + KILL_S)
    assert process.signals == ["terminate", "kill"]
    assert watched.check(1325.2) == "scripted did not answer /livez for 20 s and was ended; restart 1 in 0.2 s"
    watched.check(1326.0)
    assert process.running
    assert not watched.listening


def test_time_in_which_the_supervisor_slept_does_not_count():
    watched = started(process := Scripted())
    watched.probe(None)
    watched.answered_at = 1000.0
    watched.restart_timeouts(1500.0)
    watched.check(1519.0)
    assert process.signals == []
    watched.check(1521.0)
    assert process.signals == ["terminate"]


def test_what_waits_for_its_next_start_is_started_at_once_when_what_it_needs_is_back():
    watched = started(process := Scripted())
    for _ in range(10):
        end_and_start(watched, process, watched.started_at)
    process.running = False
    now = watched.started_at
    watched.check(now)
    assert watched.retry_at - now == LAST_BACKOFF_S
    watched.start_now(now + 1)
    assert watched.check(now + 1).startswith("scripted was started again")
    assert round(end_and_start(watched, process, now + 2), 1) == 0.2


def test_a_worker_is_waited_for_while_its_counters_move():
    watched = started(process := Scripted())
    process.essential = False
    process.status = Readiness(ready=False, progress="1 recovered")
    watched.probe(None)
    watched.progressed_at = 2000.0
    assert watched.keeps_waiting(2299.0)
    watched.probe(None)  # the same counter again
    assert watched.progressed_at == 2000.0
    assert not watched.keeps_waiting(2301.0)
    process.status = Readiness(ready=False, progress="2 recovered")
    watched.probe(None)
    assert watched.progressed_at != 2000.0
