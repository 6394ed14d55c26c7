"""A further task is one module and one line: in a copy of the packages that has one, everything else knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUPLE = "TASKS: tuple[Task, ...] = ("
TOY = '''"""Several numbers a row; the score is a list of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from contender.contracts.tasks.regression import Regression
from contender.contracts.tasks.task import ScoreArray
from contender.contracts.values import Scalar, Score

_MOST = 100


@dataclass(frozen=True)
class Several(Regression):
    """Several numbers."""

    def takes_outputs(self, count: int) -> bool:
        """Two or more."""
        return 1 < count <= _MOST

    def tensor_widths(self, classes: int) -> frozenset[int]:
        """Two or more."""
        return frozenset(range(2, _MOST + 1))

    def labels_from(self, scores: ScoreArray, classes: Sequence[Scalar]) -> list[Scalar]:
        """The first of the numbers."""
        return [float(value) for value in scores[:, 0]]

    def answered_scores(self, scores: ScoreArray) -> list[Score]:
        """All of them."""
        return scores.tolist()

    def score_fault(self, scores: Sequence[Score], classes: int) -> str:
        """Anything but a list per row."""
        return "" if all(isinstance(score, list) for score in scores) else "must be a list per row"


SEVERAL = Several("several", "the predicted values", has_classes=False)
'''


def copy_with_a_task(folder: Path) -> None:
    for package in ("contender", "services", "shared"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    tasks = folder / "contender" / "contracts" / "tasks"
    (tasks / "several.py").write_text(TOY)
    table = (tasks / "__init__.py").read_text()
    assert table.count(TUPLE) == 1
    line = "from contender.contracts.tasks.several import SEVERAL\n\n"
    (tasks / "__init__.py").write_text(table.replace(TUPLE, line + TUPLE + "SEVERAL, "))


def test_a_task_is_one_module_and_one_line(tmp_path: Path) -> None:
    copy_with_a_task(tmp_path)
    checks = shutil.copy(Path(__file__).with_name("task_checks.py"), tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, checks], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "several numbers are served\n"
