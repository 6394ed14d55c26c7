"""A further metric is one module and one line: in a copy of the packages that has one, everything else knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUPLE = "METRICS: tuple[Metric, ...] = ("
TOY = '''"""How far a probability is from the outcome."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import BINARY


def distance(outcomes: Floats, scores: Floats) -> Floats:
    """The size of the difference."""
    return np.abs(outcomes - scores)


DISTANCE = Metric("distance", "distance to the outcome", values={BINARY.name: distance})
'''


def copy_with_a_metric(folder: Path) -> None:
    for package in ("contender", "services", "shared"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    metrics = folder / "contender" / "contracts" / "metrics"
    (metrics / "distance.py").write_text(TOY)
    table = (metrics / "__init__.py").read_text()
    assert table.count(TUPLE) == 1
    line = "from contender.contracts.metrics.distance import DISTANCE\n\n"
    (metrics / "__init__.py").write_text(table.replace(TUPLE, line + TUPLE + "DISTANCE, "))


def test_a_metric_that_is_a_mean_is_one_module_and_one_line(tmp_path: Path) -> None:
    copy_with_a_metric(tmp_path)
    checks = shutil.copy(Path(__file__).with_name("metric_checks.py"), tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, checks], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "distance decides\n"
