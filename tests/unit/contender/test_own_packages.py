"""Our packages are ours wherever somebody works, and a folder named like the package hides nothing."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from embedded.settings import import_environment

ROOT = Path(__file__).parents[3]
OTHERS = "raise SystemExit('of somebody else')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's folder, with packages of the same names as ours and a module of definitions."""
    for name in ("services", "shared", "examples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OTHERS)
    (tmp_path / "contender").mkdir()
    (tmp_path / "my_features.py").write_text("ENTITIES = 5\n")
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> str:
    command = [sys.executable, *arguments]
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("given", ["", ".", "relative"])
def test_a_process_of_the_stack_imports_ours_first_and_the_folders_modules_too(folder: Path, monkeypatch, given):
    monkeypatch.setenv("PYTHONPATH", given)
    monkeypatch.chdir(folder)
    code = "import services, shared, contender, my_features; print(services.__file__, shared.__file__)"
    environment = import_environment()
    assert run(folder, "-c", code, **environment).split() == [
        str(ROOT / name / "__init__.py") for name in ("services", "shared")
    ]
    # What such a process starts itself finds the same.
    nested = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {code!r}], text=True))"
    assert str(ROOT / "services") in run(folder, "-c", nested, **environment)


def test_the_command_line_and_the_client_work_beside_such_folders(folder: Path):
    environment = {"PYTHONPATH": str(ROOT)}
    assert run(folder, "-m", "contender.cli", "--version", **environment).startswith("contender ")
    assert run(folder, "-c", "from contender import Client; print(Client.__name__)", **environment) == "Client\n"
    own = "import contender, sys; sys.path.insert(0, ''); import services"
    with pytest.raises(AssertionError, match="of somebody else"):  # only what we need ourselves is taken from here
        run(folder, "-c", own, PYTHONPATH=str(ROOT), PYTHONSAFEPATH="1")


def test_an_editable_install_is_a_plain_entry_of_the_path(tmp_path: Path):
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    wheels.mkdir()
    for name in ("contender", "services", "shared", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    run(source, "-c", build, str(wheels), PYTHONWARNINGS="ignore")
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [entry] = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(entry).decode().split() == [str(source)]
