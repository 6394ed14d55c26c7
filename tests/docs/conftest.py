"""One stack for all pages: the tutorial's first half starts it, with the features that the page defines."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks_of, run_blocks
from tests.stack import Stack, stack_in

START_S = 240
_PORTS = {"AB_ROUTER": 8400, "FEATURE_SERVICE": 8401, "INFERENCE_SERVICE": 8402, "FEEDBACK_SERVICE": 8403}


@dataclass(frozen=True)
class Documented:
    """A running stack, the folder that the tutorial works in, and the tutorial's blocks that are still to run."""

    stack: Stack
    folder: Path
    environment: dict[str, str]
    remaining: list[Block]

    def localized(self, text: str) -> str:
        """The text with this stack's ports in place of the default ones."""
        for name, port in _PORTS.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.environment[f'CONTENDER_{name}_PORT']}")
        return text


@pytest.fixture(scope="package")
def documented(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documented]:
    stack = stack_in(tmp_path_factory.mktemp("home"), kafka_jars)
    folder = tmp_path_factory.mktemp("tutorial")
    environment = {
        **stack.environment,
        "CONTENDER_URL": stack.settings.url("ab_router"),
        "PATH": f"{_commands(tmp_path_factory.mktemp('bin'))}:{stack.environment['PATH']}",
    }
    blocks = blocks_of("tutorial.md", ("python", "sh"))
    start = next(index for index, block in enumerate(blocks) if "contender up" in block.text) + 1
    try:
        started = run_blocks(blocks[:start], folder, environment, START_S)
        assert started.returncode == 0, started.stdout + started.stderr
        yield Documented(stack, folder, environment, blocks[start:])
    finally:
        stack.run("down")


def _commands(folder: Path) -> Path:
    """A folder with the command `contender` of this checkout."""
    command = folder / "contender"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m contender.cli "$@"\n')
    command.chmod(0o755)
    return folder
