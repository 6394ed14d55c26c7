"""The calls of docs/http.md run against a stack, and their answers hold what the page shows."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.docs.blocks import Block, blocks_of
from tests.docs.conftest import Documented
from tests.stack import DEADLINE_S

BLOCKS = blocks_of("http.md", ("python", "sh", "http"))
_POLL_S = 0.1


def test_the_page_shows_an_answer_to_each_call():
    languages = [block.language for block in BLOCKS]
    assert languages.count("sh") == languages.count("http") > 15
    assert {following for language, following in pairwise(languages) if language == "sh"} == {"http"}


@pytest.mark.timeout(600)  # the start of the stack counts, too
def test_the_calls_are_answered_as_shown(documented: Documented):
    variables = {**documented.environment, "CURL_HOME": str(documented.folder)}
    (documented.folder / ".curlrc").write_text("silent\nshow-error\ninclude\nmax-time = 30\n")
    for block, following in pairwise([*BLOCKS, Block("", "", "")]):
        if block.language == "python":
            printed = run([sys.executable, "-c", block.text], variables)
            variables |= dict(re.findall(r"(\w+)=(\S+)", printed))
        elif block.language == "sh":
            variables |= dict(fields_of(answered(documented.localized(block.text), following.text, variables)))


def answered(call: str, shown: str, variables: dict[str, str]) -> Any:
    """The answer's JSON, once it is as shown: what is only read may need a moment to get there."""
    shown_head, _, shown_body = shown.partition("\n\n")
    is_read = not re.search(r" -d | -X ", call)
    end = time.monotonic() + DEADLINE_S
    while True:
        head, _, body = run(["bash", "-euc", call], variables).replace("\r\n", "\n").partition("\n\n")
        status, answer = head.splitlines()[0].strip(), json.loads(body)
        differences = list(differing(json.loads(shown_body), answer))
        if status.split()[1] == shown_head.split()[1] and not differences:
            return answer
        assert is_read, f"{call}\n{status}\n{differences}\n{body}"
        assert time.monotonic() < end, f"{call}\n{status}\n{differences}\n{body}"
        time.sleep(_POLL_S)


def run(command: list[str], variables: dict[str, str]) -> str:
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, f"{command[-1]}\n{ended.stderr}"
    return ended.stdout


def differing(shown: Any, answer: Any, where: str = "") -> Iterator[str]:
    """Where an answer lacks what is shown; it may have more fields.

    An ellipsis stands for any text, a float for a number near it.
    """
    if isinstance(shown, dict) and isinstance(answer, dict):
        yield from (f"{where}.{name} is missing" for name in shown.keys() - answer.keys())
        for name in shown.keys() & answer.keys():
            yield from differing(shown[name], answer[name], f"{where}.{name}")
    elif isinstance(shown, list) and isinstance(answer, list) and len(shown) == len(answer):
        for index, (element, actual) in enumerate(zip(shown, answer, strict=True)):
            yield from differing(element, actual, f"{where}[{index}]")
    elif not is_alike(shown, answer):
        yield f"{where} is {answer!r}, shown is {shown!r}"


def is_alike(shown: Any, answer: Any) -> bool:
    if isinstance(shown, str) and isinstance(answer, str):
        return re.fullmatch(".+".join(map(re.escape, shown.split("…"))), answer, re.DOTALL) is not None
    if isinstance(shown, float):
        return isinstance(answer, int | float) and abs(shown - answer) < 0.001
    return type(shown) is type(answer) and bool(shown == answer)


def fields_of(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """An answer's ids by the names that later calls have for them: $PREDICTION_ID, $FRAME_ID."""
    for name, value in answer.items():
        if name.endswith("_id"):
            yield name.upper(), value
        elif name.endswith("_ids"):
            yield name.upper().removesuffix("S"), value[0]
