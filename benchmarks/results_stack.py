"""What freshness and pages are measured on: the embedded stack, in a folder and on ports of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from contender import Client
from embedded.jars import ensure_jars
from embedded.settings import StackSettings
from tests.stack import Stack, stack_in

MODEL = "toy"
EXPERIMENT = "toy-live"
WINDOW_S = 3_600.0
UP_S = 240.0


@contextmanager
def open_stack() -> Iterator[Stack]:
    """A stack that runs; all of it is gone afterwards.

    Raises:
        RuntimeError: it does not start.
    """
    jars = ensure_jars(StackSettings.load().jar_cache)
    with tempfile.TemporaryDirectory(prefix="contender-results-") as name:
        stack = stack_in(Path(name), jars)
        up = stack.run("up", "--detach", timeout_s=UP_S)
        try:
            if up.returncode:
                raise RuntimeError(f"the stack does not start: {up.stderr[-2_000:]}")
            yield stack
        finally:
            stack.run("down")


def start_experiment(client: Client) -> str:
    """A running experiment on two versions of a toy model; its name."""
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"age": random.normal(40, 10, 300), "spend": random.normal(5, 2, 300)})
    stays = rows["age"] + 3 * rows["spend"] > 55  # noqa: PLR2004 - about half of them
    client.register(MODEL, LogisticRegression(C=1e-4).fit(rows, stays), rows, stays)
    challenger = client.register(MODEL, LogisticRegression().fit(rows, stays), rows, stays)
    return client.experiment(MODEL, challenger=challenger, window_s=WINDOW_S, name=EXPERIMENT).start().name
