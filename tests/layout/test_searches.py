"""Knowledge stands in one place: what a search of the source must not find."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = r"(==|!=|\bin) *[\[({]?[\"']"


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Each Python file of some folders by its path from the root, with its text."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def lines_with(pattern: str, files: Iterator[tuple[str, str]]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in files
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        rf"\bmetric(\.name)? {KINDS}",
        rf"\btask(\.name)? {KINDS}",
        rf"\.kind {KINDS}",
        rf"\blayout\.name {KINDS}",
        r"\bmetric == |\btask == |\blayout\.name == ",
    ],
)
def test_no_metric_task_kind_or_layout_is_compared_by_its_name(pattern):
    assert lines_with(pattern, sources("services", "shared")) == []


def test_only_stores_know_the_errors_of_redis():
    outside = [line for line in lines_with("RedisError", sources("services", "shared")) if "/store" not in line]
    assert outside == []


def test_use_cases_and_domains_know_no_http():
    use_cases = ((name, text) for name, text in sources("services") if "/handlers" in name or "/domain/" in name)
    assert lines_with(r"\b(40[0-9]|41[0-9]|42[0-9]|50[0-5])\b|\bProblem\b|HTTPStatus", use_cases) == []


def test_a_file_imports_from_few_places():
    counts = sorted(
        sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(text).body)
        for _, text in sources("contender", "services", "shared", "embedded")
    )
    assert counts[int(0.9 * len(counts))] <= 12
