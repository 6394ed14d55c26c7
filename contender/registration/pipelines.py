"""The task, the scores and the labels of a pipeline."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from contender.contracts.limits import INTEGERS
from contender.contracts.tasks import Task, fitting_task
from contender.contracts.values import Scalar
from contender.errors import ExportError
from contender.registration.failures import FOREIGN
from contender.registration.file import Scores
from contender.registration.rows import Rows


def task_of(pipeline: Any, rows: Rows) -> tuple[Task, list[Scalar]]:
    """The task that a pipeline was fitted to, and its classes.

    Raises:
        ExportError: no task fits its targets or its classes.
    """
    if not is_classifier(pipeline):
        try:
            return fitting_task(0, _count_outputs(pipeline, rows)), []
        except ValueError as error:
            raise _several_targets(pipeline) from error
    if any(np.ndim(label) for label in pipeline.classes_) or getattr(pipeline, "multilabel_", False):
        raise _several_targets(pipeline)
    classes = [plain(label) for label in pipeline.classes_]
    if any(isinstance(label, int) and abs(label) >= INTEGERS for label in classes):
        raise ExportError("the labels hold whole numbers beyond 64 bits: fit on text, such as labels.astype(str)")
    if odd := [label for label in classes if not isinstance(label, bool | int | float | str)]:
        raise ExportError(
            f"the labels are {type(odd[0]).__name__}, which JSON does not hold: fit on numbers, text or booleans"
        )
    if len(classes) < 2:  # noqa: PLR2004 - a classifier needs two
        raise ExportError(f"the labels hold one class alone, {classes[0]!r}: fit on rows of two classes at least")
    return fitting_task(len(classes)), classes


def _count_outputs(pipeline: Any, rows: Rows) -> int:
    try:
        return int(np.asarray(pipeline.predict(rows.subset([0]).native())).size)
    except FOREIGN:
        return 1  # the comparison of all rows reports what is wrong


def _several_targets(pipeline: Any) -> ExportError:
    return ExportError(
        f"{type(pipeline).__name__} predicts several targets: a version has one, so fit and register a model for each"
    )


def plain(value: Any) -> Any:
    """As JSON takes it."""
    return value.item() if isinstance(value, np.generic) else value


def of_pipeline(pipeline: Any, rows: Rows, task: Task) -> Scores:
    """The pipeline's own scores and labels; raises whatever the pipeline raises."""
    native = rows.native()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        predicted = np.asarray(pipeline.predict(native))
        if not task.has_classes:
            values = predicted.astype(np.float64).reshape(len(rows), -1)
            return Scores(values, task.labels_from(values, []))
        if predicted.size != len(rows):
            raise _several_targets(pipeline)
        scores = np.asarray(pipeline.predict_proba(native), dtype=np.float64)
    return Scores(scores, [plain(label) for label in predicted])
