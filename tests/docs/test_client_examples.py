"""The programs of docs/clients.md run against a stack, where their language is installed."""

import shutil
import subprocess
from importlib.util import find_spec

import pytest

from tests.docs.blocks import Block, blocks_of, run_blocks
from tests.docs.conftest import Documented


def blocks(*languages: str) -> list[Block]:
    return blocks_of("clients.md", languages)


@pytest.fixture(scope="module")
def registered(documented: Documented) -> Documented:
    (first, *_) = blocks("python")
    ended = run_blocks([first], documented.folder, documented.environment, 120)
    assert ended.returncode == 0, ended.stderr
    return documented


@pytest.mark.timeout(600)  # the start of the stack counts, too
def test_the_programs_in_python_run(registered: Documented):
    (_, *programs) = blocks("python")
    ran = [program for program in programs if "openfeature" not in program.text or find_spec("openfeature")]
    ended = run_blocks(ran, registered.folder, registered.environment, 120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.timeout(600)  # the start of the stack counts, too
@pytest.mark.parametrize(
    ("command", "language", "said"),
    [
        ("node", "js", ["feedback 202", "inputs.age"]),
        ("go", "go", ["refused: inputs.age"]),
    ],
)
def test_a_program_predicts_and_names_what_is_refused(
    registered: Documented, command: str, language: str, said: list[str]
):
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    (program,) = blocks(language)
    (registered.folder / program.file).write_text(program.text)
    environment = {
        **registered.environment,
        "CONTENDER_FEEDBACK_SERVICE_URL": registered.stack.settings.url("feedback_service"),
    }
    (run,) = (block.text for block in blocks("sh") if program.file in block.text)
    ended = subprocess.run(
        ["bash", "-euc", run],
        cwd=registered.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "score 0." in ended.stdout
    for part in said:
        assert part in ended.stdout
