"""Export of a fitted pipeline: the first file that answers as it does, what becomes of odd rows, and the manifest."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec
import numpy as np
import pandas as pd

from contender.errors import ExportError, ParityError
from contender.registration.answers import Answered, File, of_pipeline, plain, task_of
from contender.registration.behaviour import Behaviour, observe
from contender.registration.conversion import FOREIGN, Converted, conversions, refusal
from contender.registration.manifest import code, data, environment
from contender.registration.parity import Comparer, Parity, changed_rows, filled
from contender.registration.preparing import check_fitted, is_scored
from contender.registration.rows import Rows, check_labels, check_named
from shared.columns import fault_of
from shared.events import InputColumn, Scalar, Task
from shared.scores import ScoreError

TOLERANCE = 1e-5
"""Largest difference of a score: 64-bit files differ by 1e-15, 32-bit boosted trees by 4e-7 (measured)."""
_TEXT_LIMIT = 1_000
_FLOAT32_BITS = 24
_COLUMNS_SHOWN = 3


@dataclass(frozen=True)
class Export:
    """What is uploaded: an ONNX file, its manifest, and sample rows with scikit-learn's own answers."""

    onnx: bytes
    manifest: dict[str, Any]
    sample: dict[str, Any]

    @property
    def version(self) -> str:
        """The version's name: the sha256 of the ONNX file."""
        return hashlib.sha256(self.onnx).hexdigest()

    @property
    def warnings(self) -> list[str]:
        """What the version does with rows that training had none of, where a caller may not expect it."""
        return list(self.manifest.get("warnings", []))


class Recorded(Protocol):
    """Something with a record of what it was made from, such as a `contender.training.TrainingSet`."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The record, as JSON takes it."""
        ...


@dataclass(frozen=True)
class Serving:
    """Where the columns' values come from when the version is live."""

    sources: Mapping[str, str]
    defaults: Mapping[str, Any]
    entities: Mapping[str, list[str]]
    never_null: Collection[str] = ()
    """Columns whose feature always has a value, such as a count."""


@dataclass(frozen=True)
class _Checked:
    """A file that answers as its pipeline."""

    converted: Converted
    inputs: list[InputColumn]
    label: str
    parity: Parity
    behaviour: Behaviour


def export_pipeline(
    pipeline: Any,
    columns: Any,
    labels: Any = None,
    *,
    sources: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    entities: Mapping[str, list[str]] | None = None,
    description: str = "",
    tolerance: float = TOLERANCE,
    tolerance_reason: str = "",
    training_set: Recorded | None = None,
    never_null: Collection[str] = (),
) -> Export:
    """Export a fitted pipeline and check that the ONNX file answers as scikit-learn does.

    All rows are compared, and rows with fractions where training had whole numbers, extremes and values between.

    Args:
        pipeline: a fitted scikit-learn pipeline, classifier or regressor, or boosted trees of LightGBM or XGBoost.
        columns: the rows it was fitted on, shape (rows, inputs): a frame of pandas or polars, an array, or texts.
        labels: what it was fitted to, shape (rows,); only its hash enters the manifest.
        sources: `view:feature` per column that the router fetches; other columns come with the request.
        defaults: per column the value that stands in for every null, and when a feature can't be had.
        entities: per join key the views it looks up; default: found out by the router.
        description: one sentence on what the version is.
        tolerance: largest accepted difference of a score, in units of the largest one where that is beyond 1.
        tolerance_reason: why a tolerance above the service's limit is right; recorded.
        training_set: what `columns` were taken from; its record enters the manifest.
        never_null: columns whose feature always has a value.

    Raises:
        ExportError: a step or column can't be served; it is named, with what to do instead.
        ParityError: a score or label differs from scikit-learn's.
    """
    rows = Rows.of(columns)
    names = [column.name for column in rows.columns]
    serving = Serving(_named(sources), _named(defaults), entities or {}, set(map(str, never_null)))
    check_named(names, sources=serving.sources, defaults=serving.defaults)
    check_labels(labels, len(rows))
    check_fitted(pipeline, names)
    is_scored(pipeline)
    task, classes = task_of(pipeline)
    checked = _first_fitting(pipeline, rows, task, classes, serving, tolerance)
    manifest = {
        "task": task,
        "classes": classes,
        "inputs": [msgspec.to_builtins(column) for column in checked.inputs],
        "score_output": checked.converted.outputs.score,
        "label_output": checked.label,
        "entities": dict(serving.entities),
        "description": description,
        "tolerance": tolerance,
        **({"tolerance_reason": tolerance_reason} if tolerance_reason else {}),
        "parity": {
            "rows": checked.parity.rows,
            "given": len(rows),
            "worst": checked.parity.worst,
            "arithmetic": checked.converted.way,
        },
        "behaviour": checked.behaviour.columns,
        "warnings": checked.behaviour.warnings,
        "onnx_sha256": hashlib.sha256(checked.converted.onnx).hexdigest(),
        "data": data(rows.frame, labels),
        **({"training_set": dict(training_set.manifest)} if training_set is not None else {}),
        "parameters": {name: repr(value) for name, value in sorted(pipeline.get_params(deep=True).items())},
        "environment": environment(),
        "code": code(),
    }
    return Export(checked.converted.onnx, manifest, checked.parity.sample(task))


def _named(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {str(name): plain(value) for name, value in (given or {}).items()}


def _first_fitting(
    pipeline: Any, rows: Rows, task: Task, classes: Sequence[Scalar], serving: Serving, tolerance: float
) -> _Checked:
    refused: list[ExportError | ParityError] = []
    for converted in conversions(pipeline, rows.columns):
        if isinstance(converted, ExportError):
            refused.append(converted)
            continue
        typed = rows.retyped(converted.dtypes)
        inputs = _inputs(typed, serving)
        try:
            return _checked(pipeline, converted, typed, inputs, task, classes, serving, tolerance)
        except (ExportError, ParityError) as error:
            refused.append(error)
        except (*FOREIGN, ScoreError) as error:
            refused.append(refusal(pipeline, error))
    raise min(refused, key=lambda error: isinstance(error, ExportError))


def _inputs(rows: Rows, serving: Serving) -> list[InputColumn]:
    inputs = []
    for number, column in enumerate(rows.columns):
        source, default = serving.sources.get(column.name, "request"), serving.defaults.get(column.name)
        null = column.dtype in ("float", "string") and (column.nulls > 0 or source != "request")
        made = column.input(f"c{number}", source, default, required=not null and default is None)
        if default is not None and (fault := fault_of(made, default, _TEXT_LIMIT)):
            raise ExportError(f"the default of column {column.name}, {default!r}, {fault}: give a {column.dtype}")
        if column.nulls and not null and default is None:
            raise ExportError(
                f"column {column.name} holds nulls, and a step takes it as {column.dtype}, which has none: fill it before "
                f"fit, or give it a default: defaults={{{column.name!r}: ...}}"
            )
        inputs.append(made)
    return inputs


def _checked(
    pipeline: Any,
    converted: Converted,
    rows: Rows,
    inputs: list[InputColumn],
    task: Task,
    classes: Sequence[Scalar],
    serving: Serving,
    tolerance: float,
) -> _Checked:
    given = filled(rows, inputs)
    try:
        wanted = of_pipeline(pipeline, given, task)
    except FOREIGN as error:
        raise ExportError(
            f"the pipeline fails on its own rows ({type(error).__name__}): give the columns that it was fitted on, in "
            f"the types they had: {' '.join(str(error).split())[:200]}"
        ) from error
    if not np.isfinite(wanted.scores).any(axis=1).all():
        raise ExportError("the pipeline gives rows no finite score: leave those rows out, or add an imputer")
    outputs = converted.outputs
    labels = [outputs.label, ""] if outputs.label and "threshold" not in outputs.label else [outputs.label]
    parity: Parity | None = None
    for label in dict.fromkeys(labels):
        file = File(converted.onnx, inputs, task, classes, [outputs.score, label])
        comparer = Comparer(pipeline, file, task, inputs)
        parity = _parity(comparer, given, wanted, converted)
        if parity.worst <= tolerance and not parity.labels_differ:
            behaviour, final = observe(comparer, given, serving.sources, serving.never_null, tolerance)
            return _Checked(converted, final, label, parity, behaviour)
    raise _difference(parity, tolerance, converted)


def _parity(comparer: Comparer, given: Rows, wanted: Answered, converted: Converted) -> Parity:
    parity = Parity(comparer.compare(given, wanted))
    whole = {number for number, column in enumerate(given.columns) if column.dtype != "float"}
    for how, changed in changed_rows(given, whole):
        ready = filled(changed, comparer.inputs)
        try:
            answered = of_pipeline(comparer.pipeline, ready, comparer.task)
        except FOREIGN:
            continue  # the pipeline takes no such rows: there is nothing to compare with
        parity.changed[how] = comparer.compare(ready, answered, strict=converted.way.startswith("64"))
    return parity


def _difference(parity: Parity | None, tolerance: float, converted: Converted) -> ParityError:
    if parity is None:
        return ParityError("the ONNX file could not be compared")
    beyond = _beyond_single(parity.given.rows) if not converted.way.startswith("64") else []
    where = (
        f"{', '.join(beyond[:_COLUMNS_SHOWN])} hold numbers beyond {_FLOAT32_BITS} bits, which 32-bit floats round: "
        "fit on smaller ones, such as days instead of seconds, or differences"
        if beyond
        else "a scaler in front of 32-bit trees is the usual cause: leave it out, trees need none"
    )
    if parity.worst <= tolerance:
        return ParityError(
            f"{parity.labels_differ} of {parity.rows} labels differ from the pipeline's own predict, though the scores "
            "agree: two classes are even there, and rounding decides"
        )
    return ParityError(
        f"the ONNX file's scores differ from the pipeline's by up to {parity.worst:.3g} on {parity.rows} rows, "
        f"{tolerance:.3g} is accepted: {where}"
    )


def _beyond_single(rows: Rows) -> list[str]:
    """Columns whose numbers a 32-bit float does not hold to the last unit."""
    found = []
    for number, column in enumerate(rows.columns):
        if column.dtype in ("float", "integer"):
            values = pd.to_numeric(rows.frame.iloc[:, number].astype(object), errors="coerce").to_numpy(float)
            large = values[np.abs(values) > 2**_FLOAT32_BITS]
            if len(large) and bool((large.astype(np.float32).astype(np.float64) != large).any()):
                found.append(column.name)
    return found


__all__ = ["TOLERANCE", "Export", "Recorded", "Serving", "export_pipeline", "replace"]
