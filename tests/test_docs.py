"""What the documentation says is what there is."""

import re
import runpy
from pathlib import Path

import pytest
from typer.main import get_command

from contender.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_reference_is_the_codes_own():
    written = runpy.run_path(str(ROOT / "deploy" / "reference.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text() == written, "run `make docs`"


def test_the_readme_names_every_command_and_no_other():
    commands = set(get_command(app).commands)
    assert set(re.findall(r"^\| `contender (\w+)`", README, re.MULTILINE)) == commands
    assert set(re.findall(r"contender (up|down|status|logs|parked|demo)\b", README)) == commands


def test_the_make_targets_that_the_readme_names_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"demo", "down", "test", "check"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text().replace("\n", " "))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
