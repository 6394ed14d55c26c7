"""Our packages are imported whatever packages of the same names the working directory has."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import contender
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


@pytest.mark.parametrize("python_path", ["", ".", "relative"])
def test_a_process_of_the_stack_imports_ours_and_nothing_of_the_folder(folder: Path, monkeypatch, python_path):
    monkeypatch.setenv("PYTHONPATH", python_path)
    monkeypatch.chdir(folder)
    (folder / "redis.py").write_text(OTHERS)
    code = "import redis, services, shared, contender; print(services.__file__, shared.__file__)"
    environment = import_environment()
    assert run(folder, "-c", code, **environment).split() == [
        str(ROOT / name / "__init__.py") for name in ("services", "shared")
    ]
    # A process that such a process starts finds the same.
    nested = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {code!r}], text=True))"
    assert str(ROOT / "services") in run(folder, "-c", nested, **environment)
    with pytest.raises(AssertionError, match="No module named 'my_features'"):
        run(folder, "-c", "import my_features", **environment)


@pytest.mark.parametrize("module", ["my_features", "my_features.py", "package.features", "no_init.features"])
def test_a_process_of_the_stack_loads_definitions_from_the_folder_by_name_or_path(folder: Path, monkeypatch, module):
    monkeypatch.chdir(folder)
    (folder / "my_keys.py").write_text("KEY = 'customer'\n")
    text = "from my_keys import KEY\n"
    for name in ("package", "no_init"):
        (folder / name).mkdir()
        (folder / name / "features.py").write_text(text)
    (folder / "package" / "__init__.py").touch()
    (folder / "my_features.py").write_text(text)
    code = f"from contender.features.modules import load_module; print(load_module({module!r}).KEY)"
    assert run(folder, "-c", code, **import_environment()) == "customer\n"


def test_the_command_line_and_the_client_work_beside_such_folders(folder: Path):
    environment = {"PYTHONPATH": str(ROOT)}
    (folder / "embedded").mkdir()
    (folder / "embedded" / "__init__.py").write_text(OTHERS)
    assert run(folder, "-m", "contender.cli", "--version", **environment).startswith("contender ")
    assert "Nothing was running" in run(
        folder, "-m", "contender.cli", "down", CONTENDER_HOME=str(folder), **environment
    )
    assert run(folder, "-c", "from contender import Client; print(Client.__name__)", **environment) == "Client\n"


def test_the_library_loads_its_parts_when_they_are_used():
    code = "import contender, sys; print('httpx' in sys.modules); contender.Client; print('httpx' in sys.modules)"
    assert run(ROOT, "-c", code) == "False\nTrue\n"
    assert all(getattr(contender, name) is not None for name in contender.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        contender.__getattr__("Nothing")


@pytest.mark.parametrize(
    ("module", "package", "sentence"),
    [
        ("contender.registration", "onnx", "registering models needs the extra `notebook`"),
        ("contender.training", "polars", "building training sets needs the extra `notebook`"),
    ],
)
def test_a_part_whose_packages_are_missing_names_its_extra(module: str, package: str, sentence: str):
    code = f"import sys; sys.modules[{package!r}] = None\ntry: import {module}\nexcept ImportError as e: print(e)"
    output = run(ROOT, "-c", code)
    assert output == f"{sentence}: pip install 'contender-ml[notebook]' (missing: {package})\n"


def test_an_editable_install_is_a_plain_entry_of_the_path(tmp_path: Path):
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    wheels.mkdir()
    shutil.copytree(ROOT / "contender", source / "contender", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(
        source, "-c", "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])", str(wheels)
    )
    [wheel] = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [entry] = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(entry).decode().split() == [str(source)]
