"""The tasks that models solve, one module each. A further task is a module and a line in `TASKS`."""

from typing import Annotated

import msgspec

from contender.contracts.tasks.binary import BINARY
from contender.contracts.tasks.multiclass import MULTICLASS
from contender.contracts.tasks.regression import REGRESSION
from contender.contracts.tasks.task import EVEN, ScoreError, Scores, Task

__all__ = [
    "BINARY",
    "EVEN",
    "MULTICLASS",
    "REGRESSION",
    "TASKS",
    "ScoreError",
    "Scores",
    "Task",
    "TaskName",
    "classification",
    "task_named",
]

TASKS: tuple[Task, ...] = (BINARY, MULTICLASS, REGRESSION)

_BY_NAME = {task.name: task for task in TASKS}

TaskName = Annotated[
    str,
    msgspec.Meta(pattern=f"^({'|'.join(_BY_NAME)})$", extra_json_schema={"enum": list(_BY_NAME)}),
]
"""A task as JSON spells it."""


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def classification(classes: int) -> Task:
    """The first task that has so many classes.

    Raises:
        ValueError: none has.
    """
    for task in TASKS:
        if task.has_classes and task.takes_classes(classes):
            return task
    raise ValueError(f"no task has {classes} classes")
