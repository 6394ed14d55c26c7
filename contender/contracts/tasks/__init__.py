"""The tasks that models solve, one module each. A further task is a module and a line in `TASKS`."""

from typing import Annotated

import msgspec

from contender.contracts.tasks.binary import BINARY
from contender.contracts.tasks.multiclass import MULTICLASS
from contender.contracts.tasks.regression import REGRESSION
from contender.contracts.tasks.task import EVEN, ScoreArray, ScoreError, Task

__all__ = [
    "BINARY",
    "EVEN",
    "MULTICLASS",
    "REGRESSION",
    "TASKS",
    "ScoreArray",
    "ScoreError",
    "Task",
    "TaskName",
    "fitting_task",
    "task_named",
]

TASKS: tuple[Task, ...] = (BINARY, MULTICLASS, REGRESSION)

_BY_NAME = {task.name: task for task in TASKS}

TaskName = Annotated[
    str,
    msgspec.Meta(
        pattern=f"^({'|'.join(_BY_NAME)})$",
        description="A score is " + ", ".join(f"{task.score_words} ({task.name})" for task in TASKS),
        extra_json_schema={"enum": list(_BY_NAME)},
    ),
]
"""A task as JSON spells it."""


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def fitting_task(classes: int, outputs: int = 1) -> Task:
    """The first task for models with so many classes (0: they predict numbers) and so many predictions a row.

    Raises:
        ValueError: no task fits.
    """
    for task in TASKS:
        if task.takes_classes(classes) and task.takes_outputs(outputs):
            return task
    raise ValueError(f"no task has {classes} classes and {outputs} predictions a row")
