"""What the documentation says is what there is."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from typer.main import get_command

from contender.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
GUIDES = [page for page in PAGES if page.name not in ("CHANGELOG.md", "reference.md")]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
by_guide = pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)

METRICS = set(re.findall(r"^\| `(contender_\w+)` \|", REFERENCE, re.MULTILINE))
SETTINGS = set(re.findall(r"^\| `(CONTENDER_\w+)` \|", REFERENCE, re.MULTILINE))
CLIENT_VARIABLES = {"CONTENDER_URL"}


def test_the_reference_is_the_codes_own():
    written = runpy.run_path(str(ROOT / "deploy" / "reference.py"))["reference"]()
    assert written == REFERENCE, "run `make docs`"


def test_the_readme_names_every_command_and_no_other():
    assert set(re.findall(r"^\| `contender (\w+)`", README, re.MULTILINE)) == set(get_command(app).commands)


def test_every_command_is_shown_on_some_page():
    shown = {command for page in GUIDES for command in named_commands(page.read_text())}
    assert set(commands(get_command(app))) - shown == set()


@by_page
def test_a_page_names_no_command_that_there_is_not(page: Path):
    known = {*commands(get_command(app)), *get_command(app).commands}
    assert set(named_commands(page.read_text())) - known == set()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_make_targets_that_a_page_names_exist(page: str):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert {"demo", "test", "check"} <= named <= targets


@by_page
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text().replace("\n", " "))
    assert [link for link in links if not (page.parent / link).exists()] == []


@by_guide
def test_the_settings_that_a_page_names_exist(page: Path):
    named = set(re.findall(r"CONTENDER_[A-Z0-9_]*[A-Z0-9]\b(?![_*<])", page.read_text()))
    assert named - SETTINGS - CLIENT_VARIABLES == set()


@by_page
def test_the_metrics_that_a_page_names_exist(page: Path):
    assert named_metrics(page.read_text()) - METRICS == set()


def test_every_alert_is_about_a_metric():
    assert len(alerts()) > 10
    assert [alert for alert in alerts() if not (named_metrics(alert) or alert.startswith("up{"))] == []


def test_alerts_ask_for_labels_that_their_metrics_have():
    runpy.run_path(str(ROOT / "deploy" / "reference.py"))  # imports whatever counts
    for alert in alerts():
        labels = {name for listed in re.findall(r"by \(([^)]*)\)", alert) for name in listed.split(", ")}
        labels |= set(re.findall(r"[{,](\w+)=~?\"", alert))
        known = {label for name in named_metrics(alert) for label in labels_of(name)}
        assert labels <= known | {"le", "job"}, alert


def test_first_aid_quotes_what_is_printed():
    folders = ("embedded", "shared", "services")
    code = "".join(path.read_text() for name in folders for path in sorted((ROOT / name).rglob("*.*")) if is_text(path))
    printed = re.sub(r'"\s+f?"', "", code)  # a sentence may go over several lines
    symptoms = re.findall(r"^\| ([^|]+) \|", section("operations.md", "First aid"), re.MULTILINE)
    quoted = [
        part.strip() for symptom in symptoms for quote in re.findall(r'"([^"]+)"', symptom) for part in quote.split("…")
    ]
    assert len(quoted) > 5
    assert [part for part in quoted if part not in printed] == []


@by_guide
def test_the_endpoints_that_a_page_names_exist(page: Path):
    rows = re.findall(r"^\| (GET|POST|PUT|DELETE) \| `([^`]+)` \|", REFERENCE, re.MULTILINE)
    patterns = [(method, re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(path))) for method, path in rows]
    for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?\s]+)[^`]*`", page.read_text()):
        assert any(method == known and re.fullmatch(pattern, path) for known, pattern in patterns), (method, path)


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_exist(page: str):
    spans = re.findall(
        r"`((?:contender|services|shared|embedded|tests|docs)/[\w./]+)`(?! \(new\))", (ROOT / page).read_text()
    )
    assert len(spans) > 10
    assert [path for path in spans if not (ROOT / path).exists()] == []


def test_decisions_are_numbered_without_a_gap():
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def is_text(path: Path) -> bool:
    return path.suffix in (".py", ".html")


def alerts() -> list[str]:
    """The expressions that the page of operations suggests."""
    return re.findall(r"^\| [^|]+ \| `([^`]*)`", section("operations.md", "Metrics and alerts"), re.MULTILINE)


def labels_of(metric: str) -> tuple[str, ...]:
    """The labels of one of our metrics."""
    return REGISTRY._names_to_collectors[metric]._labelnames


def section(page: str, heading: str) -> str:
    """The text below a heading of the second level."""
    return (ROOT / "docs" / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def named_metrics(text: str) -> set[str]:
    """The metrics in a text, of a histogram's series the histogram."""
    series = re.findall(r"\bcontender_[a-z_]+\b", text)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in series}


def named_commands(text: str) -> Iterator[str]:
    """The commands in code: `contender features check` of a span or a line of a block."""
    groups = {name for name, command in get_command(app).commands.items() if hasattr(command, "commands")}
    for first, second in re.findall(r"(?:`|^(?:\$ )?)contender ([a-z]+)(?:\s+([a-z]+)\b)?", text, re.MULTILINE):
        yield f"{first} {second}" if first in groups and second else first


def commands(group, above: str = "") -> Iterator[str]:
    """Every command with the groups that it stands below: `features check`."""
    for name, command in group.commands.items():
        yield from commands(command, f"{above}{name} ") if hasattr(command, "commands") else [f"{above}{name}"]
