"""The Dockerfile makes what the compose file and pyproject.toml ask for, from files that exist."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from embedded.service import SERVICES

ROOT = Path(__file__).parents[2]
Stage = list[tuple[str, str]]


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    """Per stage its instructions, each a keyword and the rest."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages_so_far: list[Stage] = []
    for keyword, rest in (line.split(maxsplit=1) for line in text.splitlines() if line.strip()):
        if keyword == "FROM":
            stages_so_far.append([])
        stages_so_far[-1].append((keyword, rest))
    return stages_so_far


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    whole: dict[str, object] = tomllib.loads((ROOT / "stack" / "pyproject.toml").read_text())["project"]
    return whole


def values(stage: Stage, keyword: str) -> list[str]:
    return [rest for name, rest in stage if name == keyword]


def test_what_is_copied_from_the_project_exists_and_is_not_ignored(stages: list[Stage]):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert "*" in lines
    copied = [source for rest in values(stages[0], "COPY") for source in rest.split()[:-1]]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / source).exists() for source in copied)
    ignored = [line for line in lines if line not in ("*", *kept) and not line.startswith(("!", "#"))]
    assert not any(fnmatch(source, pattern.removeprefix("**/")) for source in copied for pattern in ignored)


def test_every_package_of_the_project_that_a_service_needs_is_copied(stages: list[Stage]):
    copied = {source for rest in values(stages[0], "COPY") for source in rest.split()[:-1]}
    code = "".join(path.read_text() for part in ("services", "shared") for path in (ROOT / part).rglob("*.py"))
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", code, flags=re.MULTILINE)) & packages
    assert {"services", "shared"} <= imported <= copied
    # The default of CONTENDER_FEATURES.
    assert "examples" in copied


def test_the_image_has_the_python_that_the_project_requires(stages: list[Stage], project):
    lowest = project["requires-python"].removeprefix(">=")
    bases = [rest.split()[0] for stage in stages for rest in values(stage, "FROM")]
    assert bases == [f"python:{lowest}-slim"] * 2


def test_all_comes_from_the_lock_by_its_hashes_and_from_no_named_index(stages: list[Stage]):
    commands = [command for rest in values(stages[0], "RUN") for command in rest.split("&&")]
    installs = [command for command in commands if command.split()[0] == "pip"]
    assert len(installs) == 3
    assert "--require-hashes" in installs[0]
    assert "--requirement requirements.lock" in installs[0]
    assert all("--no-index" in install for install in installs[1:])
    for name in ("Dockerfile", "requirements.lock"):
        assert not re.search(r"://|--(?:extra-)?index-url|--trusted-host", (ROOT / name).read_text()), name


def test_the_services_are_extras_of_the_project(stages: list[Stage], project):
    install = values(stages[0], "RUN")[-1]
    assert '"contender-ml-stack[${SERVICE:?}]"' in install
    # pip only warns of an extra that does not exist.
    assert 'python -P -c "import services.${SERVICE}.main"' in install
    assert values(stages[0], "ARG") == ["SERVICE"]
    extras = set(project["optional-dependencies"])
    assert {process.service.replace("_", "-") for process in SERVICES} <= extras


def test_the_services_folder_is_on_the_path_and_the_working_directory_is_not(stages: list[Stage]):
    assert "/site-packages/contender_stack /venv/stack" in values(stages[0], "RUN")[-1]
    [environment] = values(stages[1], "ENV")
    assert {"PYTHONPATH=/venv/stack", "PYTHONSAFEPATH=1"} <= set(environment.split())


def test_the_final_stage_takes_only_the_installed_environment_and_leaves_no_installer(stages: list[Stage]):
    assert len(stages) == 2
    assert values(stages[1], "COPY") == ["--from=build /venv /venv"]
    assert "venv --without-pip" in values(stages[0], "RUN")[-1]
    assert "pip uninstall --yes" in values(stages[1], "RUN")[0]


def test_the_application_is_not_root_and_gets_the_signals(stages: list[Stage]):
    (user,) = values(stages[1], "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert [json.loads(entry) for entry in values(stages[1], "ENTRYPOINT")] == [["python"]]
    assert values(stages[1], "CMD") == []
    assert all(keyword != "SHELL" for stage in stages for keyword, _ in stage)
