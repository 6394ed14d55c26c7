"""A copy of the packages that has one more kind of thing, to see that everything else knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_packages(folder: Path) -> None:
    """Copy the product's packages into the folder."""
    for package in ("contender", "services", "shared"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


def add_entry(module: Path, table: str, imported: str, entry: str) -> None:
    """Import something in a module and put it first into the table that begins with `table`."""
    text = module.read_text()
    assert text.count(table) == 1
    module.write_text(text.replace(table, f"{imported}\n\n{table}{entry}, "))


def run_checks(folder: Path, name: str) -> str:
    """Run a script of this folder with the copy's packages; what it prints."""
    checks = shutil.copy(Path(__file__).with_name(name), folder)
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, checks], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
