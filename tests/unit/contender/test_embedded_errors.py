"""What went wrong with a process of the embedded stack is told in its own words."""

import json
from pathlib import Path

import pytest

from embedded.errors import DiedError

TRACEBACK = (
    'Traceback (most recent call last):\n  File "x.py", line 1\nproblems.DefinitionError: there is no file a.csv.\n'
)


def line(**fields: str) -> str:
    return json.dumps({"level": "error", **fields}) + "\n"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            line(event=TRACEBACK) + line(event="Application startup failed. Exiting."),
            "exit code 3: there is no file a.csv; ",
        ),
        (line(event="started") + line(event="failed", exception=TRACEBACK), "exit code 3: there is no file a.csv; "),
        ("CONTENDER_FEATURES: there is no module a\n\n", "CONTENDER_FEATURES: there is no module a; "),
        ("[1, 2]\n" + "x" * 600, "x" * 500 + "; "),
        (line(event=TRACEBACK) + line(event="of the run after it", level="info"), "read "),
        ("", "read "),
        (None, "read "),
    ],
)
def test_a_process_that_died_says_why(tmp_path: Path, log: str | None, cause: str):
    path = tmp_path / "service.log"
    if log is not None:
        path.write_text(log)
    message = str(DiedError("feature_service", "ended with exit code 3", path))
    assert message.startswith("feature_service ended with exit code 3: ")
    assert f"{cause}{path}" in message
