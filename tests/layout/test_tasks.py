"""A further task is one module and one line: in a copy of the packages that has one, everything else knows it."""

from pathlib import Path

from tests.layout.package_copy import add_entry, copy_packages, run_checks

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


def test_a_task_is_one_module_and_one_line(tmp_path: Path) -> None:
    copy_packages(tmp_path)
    tasks = tmp_path / "contender" / "contracts" / "tasks"
    (tasks / "several.py").write_text(TOY)
    line = "from contender.contracts.tasks.several import SEVERAL"
    add_entry(tasks / "__init__.py", TUPLE, line, "SEVERAL")
    assert run_checks(tmp_path, "task_checks.py") == "several numbers are served\n"
