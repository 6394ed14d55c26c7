"""Ends runs of onnxruntime that take too long."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime

_LOOK_S = 0.02
"""Pause between two looks at the runs: the accuracy of their limits, and no cost while nothing runs."""


class Run:
    """One run under a limit: its options for onnxruntime, and whether the limit ended it."""

    def __init__(self, ends_at: float) -> None:
        self.options = onnxruntime.RunOptions()
        self.ends_at = ends_at
        self.late = False

    def end(self) -> None:
        """Make onnxruntime give up at the next node, or the next round of a loop."""
        self.late = True
        self.options.terminate = True


class Watchdog:
    """One thread that looks at all runs of the process; it starts with the first one and ends with the process."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._running = threading.Event()
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[Run]:
        """A run that is ended `seconds` from now, unless the block has ended before."""
        run = Run(time.monotonic() + seconds)
        self._runs[id(run)] = run
        if self._thread is None:
            self.start()
        self._running.set()
        try:
            yield run
        finally:
            del self._runs[id(run)]

    def start(self) -> None:
        """Start the thread, which a limit on memory might refuse later."""
        with self._started:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            self._running.wait()
            self._running.clear()
            while runs := list(self._runs.values()):
                now = time.monotonic()
                for run in runs:
                    if now > run.ends_at and not run.late:
                        run.end()
                time.sleep(_LOOK_S)
