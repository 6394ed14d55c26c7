"""The fenced blocks of a page, and a run of them in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

PAGES = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)(?: ([\w.]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM = """
import json, pathlib, subprocess, sys
sys.path.insert(0, "")
names = {"__name__": "__main__"}
for number, (language, file, code) in enumerate(json.load(sys.stdin)):
    print(f"-- block {number}", flush=True)
    if file:
        pathlib.Path(file).write_text(code)
    elif language == "python":
        exec(compile(code, f"block {number}", "exec"), names)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is to be saved as, and its text."""

    language: str
    file: str
    text: str


def blocks_of(page: str, languages: Iterable[str]) -> list[Block]:
    """The blocks of a page of `docs/` in these languages, in order."""
    blocks = [Block(*match) for match in _BLOCK.findall((PAGES / page).read_text())]
    return [block for block in blocks if block.language in languages]


def run_blocks(
    blocks: Iterable[Block], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run blocks in order as one session: Python shares its names, shell starts anew, files are written."""
    listed = msgspec.json.encode([(block.language, block.file, block.text) for block in blocks])
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=listed.decode(),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
