"""The two projects agree: one version, and an environment for development that has what the services need."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LIBRARY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STACK = tomllib.loads((ROOT / "stack" / "pyproject.toml").read_text())["project"]
OWN = ("contender-ml", "contender-ml-stack")


def requirements(lines: list[str]) -> set[str]:
    """Names with their extras, without versions."""
    parsed = [Requirement(line) for line in lines]
    return {
        f"{requirement.name}[{','.join(sorted(requirement.extras))}]"
        for requirement in parsed
        if requirement.name not in OWN
    }


def test_both_have_one_version_and_pin_each_other_to_it():
    assert STACK["version"] == LIBRARY["version"]
    pins = [line for lines in (STACK["dependencies"], *STACK["optional-dependencies"].values()) for line in lines]
    pins += LIBRARY["optional-dependencies"]["stack"]
    specifiers = {str(pin.specifier) for pin in map(Requirement, pins) if pin.name in OWN}
    assert specifiers == {"", f"=={LIBRARY['version']}"}


def test_development_installs_all_that_the_services_need_and_neither_of_the_two_by_name():
    extras = LIBRARY["optional-dependencies"]
    installed = requirements(
        [*LIBRARY["dependencies"], *extras["notebook"], *extras["boosting"], *extras["openfeature"], *extras["dev"]]
    )
    needed = requirements(
        [*STACK["dependencies"], *(line for lines in STACK["optional-dependencies"].values() for line in lines)]
    )
    assert needed <= installed
    assert not [line for line in extras["dev"] if line.startswith("contender-ml-stack")]
    lock = (ROOT / "requirements.lock").read_text()
    assert not any(line.startswith("contender") for line in lock.splitlines())
