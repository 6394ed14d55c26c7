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
    assert set(re.findall(r"^\| `contender ([\w ]+)`", README, re.MULTILINE)) == set(commands(get_command(app)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_no_command_of_features_that_there_is_not(page: Path):
    named = {f"features {name}" for name in re.findall(r"contender features ([a-z]+)", page.read_text())}
    assert named <= set(commands(get_command(app)))


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


def commands(group, above: str = ""):
    """Every command with the groups that it stands below: `features check`."""
    for name, command in group.commands.items():
        yield from commands(command, f"{above}{name} ") if hasattr(command, "commands") else [f"{above}{name}"]
