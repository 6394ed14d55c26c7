"""Both wheels, installed from their files into clean environments, do what each extra promises.

The commands run in a folder that has its own `services`, `shared` and `contender`. Other packages have the versions of
the lock.
"""

import os
import re
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_DIRECT = 6
MOST_INSTALLED = 20
PIN = re.compile(r"^([\w.-]+==[^\s\\]+)", re.MULTILINE)
OTHERS = "raise SystemExit('of somebody else')\n"
DEFINITIONS = """from contender.features import Entity, EventSource, FeatureView, count, mean

shop = Entity("shop", "shop")
orders = EventSource("orders", {"shop": str, "amount": float})
sales = FeatureView("sales", shop, orders, [count("1h"), mean("amount", "1h")], hop="1h")
"""


def python(*arguments: str | Path, program: Path | str = sys.executable, folder: Path = ROOT, code: int = 0) -> str:
    """Output and errors of a Python command that ends with `code`, without any path but its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CONTENDER_"))}
    environment |= {"CONTENDER_HOME": str(folder / "home"), "COLUMNS": "200", "NO_COLOR": "1"}
    run = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture(scope="session")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock's versions; skips where pip can't download one of them."""
    folder = tmp_path_factory.mktemp("constraints")
    pins = PIN.findall((ROOT / "requirements.lock").read_text())
    (folder / "constraints.txt").write_text("\n".join(pins))
    [small] = [pin for pin in pins if pin.startswith("typer==")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), small]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("pip can't download packages here")
    return folder / "constraints.txt"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The built wheels by the name of their distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "stack"):
        python("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, project)
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's folder, with packages of the same names as ours and a module of definitions."""
    for name in ("services", "shared", "embedded", "examples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OTHERS)
    (tmp_path / "contender").mkdir()
    (tmp_path / "shop_features.py").write_text(DEFINITIONS)
    return tmp_path


class Environment:
    """A clean virtual environment with one extra of contender-ml."""

    def __init__(self, folder: Path, constraints: Path, *requirements: str | Path) -> None:
        python("-m", "venv", "--without-pip", folder)
        self.bin = folder / "bin"
        install = ["install", "--quiet", "--no-compile", "--constraint", constraints, *requirements]
        python("-m", "pip", "--python", self.bin / "python", *install)

    def run(self, *arguments: str | Path, folder: Path, code: int = 0) -> str:
        return python(*arguments, program=self.bin / "python", folder=folder, code=code)

    def contender(self, *arguments: str, folder: Path, code: int = 0) -> str:
        return python(*arguments, program=self.bin / "contender", folder=folder, code=code)

    def installed(self, folder: Path) -> set[str]:
        names = "from importlib.metadata import distributions as d; print(*{x.metadata['Name'] for x in d()})"
        return set(self.run("-c", names, folder=folder).split())


@pytest.fixture(scope="session")
def base(wheels, constraints, tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("base"), constraints, wheels["contender-ml"])


@pytest.fixture(scope="session")
def notebook(wheels, constraints, tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("notebook"), constraints, f"{wheels['contender-ml']}[notebook]")


@pytest.fixture(scope="session")
def stack(wheels, constraints, tmp_path_factory) -> Environment:
    requirements = [f"{wheels['contender-ml']}[stack]", wheels["contender-ml-stack"]]
    return Environment(tmp_path_factory.mktemp("stack"), constraints, *requirements)


@pytest.mark.parametrize(
    ("distribution", "package"), [("contender-ml", "contender"), ("contender-ml-stack", "contender_stack")]
)
def test_a_wheel_has_one_top_level_package(wheels, distribution: str, package: str):
    with zipfile.ZipFile(wheels[distribution]) as archive:
        files = archive.namelist()
    assert {name.split("/")[0] for name in files if ".dist-info/" not in name} == {package}
    assert not [name for name in files if "__pycache__" in name or "/tests/" in name]


def test_the_stack_has_every_file_of_its_folders(wheels):
    with zipfile.ZipFile(wheels["contender-ml-stack"]) as archive:
        files = set(archive.namelist())
    command = ["git", "ls-files", "services", "shared", "embedded", "examples"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert {f"contender_stack/{name}" for name in listed if (ROOT / name).exists()} <= files


def test_the_library_has_few_direct_dependencies_and_one_version_with_the_stack(wheels):
    headers = {}
    for name, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            [metadata] = [file for file in archive.namelist() if file.endswith(".dist-info/METADATA")]
            headers[name] = HeaderParser().parsestr(archive.read(metadata).decode())
    library, stack = headers["contender-ml"], headers["contender-ml-stack"]
    needs = library.get_all("Requires-Dist", [])
    assert len([need for need in needs if "extra ==" not in need]) <= MOST_DIRECT
    version = library["Version"]
    assert stack["Version"] == version
    assert f"contender-ml=={version}" in stack.get_all("Requires-Dist", [])
    assert [need for need in needs if need.startswith("contender-ml-stack[")] == [
        f"contender-ml-stack[embedded]=={version}; extra == 'stack'"
    ]


def test_the_base_is_small_and_has_client_definitions_and_commands(base: Environment, folder: Path):
    assert len(base.installed(folder)) <= MOST_INSTALLED
    base.run("-c", "from contender import Client, RefusedError; Client('http://127.0.0.1:1').close()", folder=folder)
    base.run("-c", "import shop_features; assert shop_features.sales.name == 'sales'", folder=folder)
    assert "Compare two models" in base.contender("--help", folder=folder)
    for module in ("shop_features", "shop_features.py"):
        assert f"{module} is " in base.contender("features", "check", module, folder=folder)
    assert "sales:mean_amount_1h" in base.contender("features", "list", "shop_features", folder=folder)


@pytest.mark.parametrize("command", ["up", "down", "status", "logs", "parked", "demo"])
def test_without_the_stack_its_commands_name_the_extra(base: Environment, folder: Path, command: str):
    assert base.contender(command, folder=folder, code=1) == (
        f"`contender {command}` needs the extra `stack`: pip install 'contender-ml[stack]' "
        "(missing: contender-ml-stack)\n"
    )


@pytest.mark.parametrize(
    ("code", "purpose"),
    [
        ("import contender.training", "building training sets"),
        ("import contender.registration", "registering models"),
        ("from contender import Client; Client().register('m', object(), [])", "registering models"),
    ],
)
def test_without_the_notebook_its_parts_name_the_extra(base: Environment, folder: Path, code: str, purpose: str):
    output = base.run("-c", code, folder=folder, code=1).splitlines()[-1]
    assert f"{purpose} needs the extra `notebook`: pip install 'contender-ml[notebook]'" in output


NOTEBOOK = """
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from contender.registration import export_pipeline
from contender.training import build_training_set
import shop_features

events = pd.DataFrame({"time": [10.0, 20.0, 30.0], "shop": ["a", "a", "b"], "amount": [1.0, 3.0, 5.0]})
rows = pd.DataFrame({"time": [3599.0, 3599.0], "shop": ["a", "b"]})
training = build_training_set([shop_features.sales], rows, {"orders": events})
print(training["sales__mean_amount_1h"].to_list())
columns = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0] * 20})
labels = [False, False, True, True] * 20
print(len(export_pipeline(make_pipeline(LogisticRegression()).fit(columns, labels), columns, labels).onnx) > 0)
"""


def test_a_notebook_builds_a_training_set_and_exports_a_pipeline(notebook: Environment, folder: Path):
    (folder / "notebook.py").write_text(NOTEBOOK)
    assert notebook.run("notebook.py", folder=folder).splitlines()[-2:] == ["[2.0, 5.0]", "True"]


CLOSED = """
import sys
from importlib.metadata import distribution, packages_distributions, PackageNotFoundError
from contender.commands.stack import stack_folder
from packaging.requirements import Requirement

todo, closure = [Requirement(f"contender-ml-stack[{sys.argv[2]}]")], set()
while todo:
    need = todo.pop()
    name = need.name.lower().replace("_", "-").replace(".", "-")
    if (name, *need.extras) in closure:
        continue
    closure.add((name, *need.extras))
    try:
        requires = map(Requirement, distribution(name).requires or [])
    except PackageNotFoundError:
        continue
    todo += [n for n in requires if not n.marker or any(n.marker.evaluate({"extra": e}) for e in need.extras or {""})]
names = {name for name, *_ in closure}
for package, distributions in packages_distributions().items():
    if not names & {name.lower().replace("_", "-").replace(".", "-") for name in distributions}:
        sys.modules[package] = None
sys.path.insert(0, str(stack_folder()))
__import__(f"services.{sys.argv[1]}.main")
__import__(f"services.{sys.argv[1]}.__main__")
"""


@pytest.mark.parametrize("service", ["ab_router", "feature_service", "inference_service", "feedback_service"])
def test_a_service_needs_no_package_outside_of_its_extra(stack: Environment, folder: Path, service: str):
    (folder / "closed.py").write_text(CLOSED)
    stack.run("closed.py", service, service.replace("_", "-"), folder=folder)


STARTED = """
import subprocess, sys
from contender.commands.stack import stack_folder
sys.path.insert(0, str(stack_folder()))
from embedded.settings import import_environment
code = '''
import examples.flights.demo, embedded.stack, shared, services
from services.ab_router import main
from services.feature_service import main
from services.feedback_service import main
from services.inference_service import main
print(services.__file__, shared.__file__)
'''
subprocess.run([sys.executable, "-c", code], env=import_environment(), check=True)
"""


def test_the_stack_runs_its_commands_and_starts_its_own_services(stack: Environment, folder: Path):
    output = stack.contender("status", folder=folder, code=1)
    assert output.startswith("Nothing is running: start it with `contender up`.\n")
    assert "Java" not in output
    assert "Most flights to replay" in stack.contender("demo", "--help", folder=folder)
    (folder / "started.py").write_text(STARTED)
    site_packages = next((stack.bin.parent / "lib").glob("python3*")) / "site-packages"
    assert stack.run("started.py", folder=folder).split() == [
        str(site_packages / "contender_stack" / name / "__init__.py") for name in ("services", "shared")
    ]
