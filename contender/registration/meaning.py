"""Infers what the scores of a ready ONNX file mean: the task and its classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contender.contracts.tasks import TASKS, Task, TaskName, fitting_task, task_named
from contender.contracts.values import Scalar
from contender.errors import ExportError
from contender.registration.pipelines import plain

_PAIR = 2


def infer_meaning(
    raw: NDArray[Any], labels: Any, name: TaskName | None, classes: Sequence[Any] | None
) -> tuple[Task, list[Scalar]]:
    """The task and its classes; with two labels a single score between 0 and 1 is a probability."""
    if name is not None and name not in [known.name for known in TASKS]:
        raise ExportError(f"task is {name!r}; it is one of {', '.join(known.name for known in TASKS)}")
    width = raw.size // len(raw)
    seen = sorted(set(_scalars("labels", labels)), key=str) if labels is not None else []
    known_classes = _scalars("classes", classes) if classes else sorted(seen, key=_order)
    if len(set(known_classes)) < len(known_classes):
        raise ExportError(f"classes name a class twice: {known_classes}")
    task = _inferred(raw, width, len(known_classes)) if name is None else task_named(name)
    if not task.has_classes:
        return task, []
    if not task.takes_classes(len(known_classes)) or width not in task.tensor_widths(len(known_classes)):
        count = max(width, _PAIR)
        if classes or labels is not None:
            raise ExportError(f"the file distinguishes {count} classes, not {len(known_classes)}: give classes=[...]")
        known_classes = list(range(count))
    return task, known_classes


def _inferred(raw: NDArray[Any], width: int, classes: int) -> Task:
    are_probabilities = bool(((raw >= 0) & (raw <= 1)).all())
    is_classifier = width > 1 or (classes == _PAIR and are_probabilities)
    return fitting_task(max(width, _PAIR) if is_classifier else 0)


def _scalars(what: str, values: Any) -> list[Any]:
    scalars = [plain(value) for value in np.ravel(np.asarray(values, dtype=object)).tolist()]
    for value in scalars:
        if not isinstance(value, bool | int | float | str):
            raise ExportError(f"{what} hold {value!r}: give numbers, text or booleans")
    return scalars


def _order(value: Any) -> Any:
    return (isinstance(value, str), value)
