"""Exports a fitted pipeline: the first file with the same scores, what it does with odd rows, and the manifest."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import pandas as pd
from onnx import ModelProto, helper

from contender.contracts.columns import fault_of
from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import TEXT_CHARACTERS
from contender.contracts.tasks import ScoreError, Task
from contender.contracts.values import Scalar
from contender.errors import ExportError, ParityError
from contender.registration import text
from contender.registration.behaviour import Behaviour, observe
from contender.registration.checks import check_fitted, check_labels, check_named, check_scored
from contender.registration.conversion import Converted, conversions, refusal
from contender.registration.failures import FOREIGN
from contender.registration.file import File, Scores
from contender.registration.manifest import code, data, environment
from contender.registration.parity import Comparer, Parity, compare_all
from contender.registration.pipelines import of_pipeline, plain, task_of
from contender.registration.rows import Rows

TOLERANCE = 1e-5
"""Largest difference of a score: 64-bit files differ by 1e-15, 32-bit boosted trees by 4e-7 (measured)."""
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
        defaults: per column the value that stands in for every null, and for a feature that is not served.
        description: one sentence on what the version is.
        tolerance: largest accepted difference of a score, in units of the largest one where that is beyond 1.
        tolerance_reason: why a tolerance above the service's limit is right; recorded.
        training_set: the source of `columns`; its record enters the manifest.
        never_null: columns whose feature always has a value.

    Raises:
        ExportError: a step or column can't be served; it is named, with what to do instead.
        ParityError: a score or label differs from scikit-learn's.
    """
    rows = Rows.of(columns)
    names = [column.name for column in rows.columns]
    serving = Serving(_named(sources), _named(defaults), set(map(str, never_null)))
    check_named(names, sources=serving.sources, defaults=serving.defaults)
    check_labels(labels, len(rows))
    check_fitted(pipeline, names)
    check_scored(pipeline)
    task, classes = task_of(pipeline, rows)
    checked = _Trial(pipeline, rows, task, classes, serving, tolerance).first_fitting()
    inputs = [msgspec.to_builtins(column) for column in checked.inputs]
    # The empty object stands for a field of earlier releases, so that the same pipeline stays the same version.
    onnx = marked(checked.converted.onnx, [task.name, classes, inputs, checked.label, {}])
    manifest = {
        "task": task.name,
        "classes": classes,
        "inputs": inputs,
        "score_output": checked.converted.outputs.score,
        "label_output": checked.label,
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
        "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
        "data": data(rows.frame, labels),
        **({"training_set": dict(training_set.manifest)} if training_set is not None else {}),
        "parameters": {name: repr(value) for name, value in sorted(pipeline.get_params(deep=True).items())},
        "environment": environment(),
        "code": code(),
    }
    return Export(onnx, manifest, checked.parity.sample(task))


def _named(by_column: Mapping[str, Any] | None) -> dict[str, Any]:
    return {str(name): plain(value) for name, value in (by_column or {}).items()}


def marked(onnx: bytes, served: list[Any]) -> bytes:
    """The file with a digest of how it is served, so that other sources or defaults make another version."""
    model = ModelProto.FromString(onnx)
    digest = hashlib.sha256(msgspec.json.encode(served, order="deterministic")).hexdigest()
    helper.set_model_props(model, {"contender.served": digest})
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@dataclass(frozen=True)
class _Trial:
    """A pipeline, what is known of it, and how close a file must come."""

    pipeline: Any
    rows: Rows
    task: Task
    classes: list[Scalar]
    serving: Serving
    tolerance: float

    def first_fitting(self) -> _Checked:
        """The first conversion that answers as the pipeline does."""
        refused: list[ExportError | ParityError] = []
        for converted in conversions(self.pipeline, self.rows.columns):
            if isinstance(converted, ExportError):
                refused.append(converted)
                continue
            typed = self.rows.retyped(converted.dtypes)
            try:
                return self._checked(converted, typed, self._inputs(typed, converted.unused))
            except (ExportError, ParityError) as error:
                refused.append(error)
            except (*FOREIGN, ScoreError) as error:
                refused.append(refusal(self.pipeline, error))
        raise min(refused, key=lambda error: isinstance(error, ExportError))

    def _inputs(self, rows: Rows, unused: Collection[str]) -> list[InputColumn]:
        inputs = []
        for number, column in enumerate(rows.columns):
            source = self.serving.sources.get(column.name, "request")
            default = self.serving.defaults.get(column.name)
            may_be_null = column.nulls > 0 or source != "request" or column.name in unused
            null = column.dtype in ("float", "string") and may_be_null
            served = column.input(f"c{number}", source, default, required=not null and default is None)
            if default is not None and (fault := fault_of(served, default, TEXT_CHARACTERS)):
                raise ExportError(f"the default of column {column.name}, {default!r}, {fault}: give a {column.dtype}")
            if column.nulls and not null and default is None:
                raise ExportError(
                    f"column {column.name} holds nulls, and a step takes it as {column.dtype}, which has none: fill it "
                    f"before fit, or give it a default: defaults={{{column.name!r}: ...}}"
                )
            inputs.append(served)
        return inputs

    def _checked(self, converted: Converted, rows: Rows, inputs: list[InputColumn]) -> _Checked:
        ready = rows.filled(inputs)
        expected = self._own_answers(ready)
        outputs = converted.outputs
        parity: Parity | None = None
        for label in dict.fromkeys([outputs.label, outputs.label if outputs.is_own_rule else ""]):
            file = File(converted.onnx, inputs, self.task, self.classes, [outputs.score, label])
            comparer = Comparer(self.pipeline, file, self.task, inputs)
            parity = compare_all(comparer, ready, expected, strict=converted.way == "64-bit floats")
            if parity.worst <= self.tolerance and not parity.labels_differ:
                behaviour, final = observe(
                    comparer, ready, self.serving.sources, self.serving.never_null, self.tolerance
                )
                return _Checked(converted, final, label, parity, behaviour)
        raise _difference(parity, self.tolerance, converted)

    def _own_answers(self, rows: Rows) -> Scores:
        try:
            expected = of_pipeline(self.pipeline, rows, self.task)
        except FOREIGN as error:
            raise ExportError(
                f"the pipeline fails on its own rows ({type(error).__name__}): give the columns that it was fitted on, "
                f"in the types they had: {' '.join(str(error).split())[:200]}"
            ) from error
        if not np.isfinite(expected.scores).all():
            raise ExportError("the pipeline gives some rows no finite score: leave them out, or add an imputer")
        return expected


def _difference(parity: Parity | None, tolerance: float, converted: Converted) -> ParityError:
    if parity is None:
        return ParityError("the ONNX file could not be compared")
    texts = [column.name for column in parity.originals.rows.columns if column.dtype == "string"]
    if np.isinf(parity.originals.worst) and text.ODD.encode() in converted.onnx:
        rows = int(np.isinf(parity.originals.differences).sum())
        return ParityError(
            f"the ONNX file gives {rows} rows no score for a text of {', '.join(texts)}: ONNX lower-cases ASCII alone, "
            "and does not split words at every sign, such as emoji; fit on and send plain words, such as "
            f"frame[{texts[0]!r}].str.lower().str.replace(r'\\W+', ' ', regex=True)"
        )
    beyond = _beyond_single(parity.originals.rows) if not converted.way.startswith("64") else []
    where = (
        f"{', '.join(beyond[:_COLUMNS_SHOWN])} hold numbers beyond {_FLOAT32_BITS} bits, which 32-bit floats round: "
        "fit on smaller ones, such as days instead of seconds, or differences"
        if beyond
        else "a step rounds otherwise, or treats ties or missing values otherwise; docs/models.md lists the steps that "
        "are exported"
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
    names = []
    for number, column in enumerate(rows.columns):
        if column.dtype in ("float", "integer"):
            values = pd.to_numeric(rows.frame.iloc[:, number].astype(object), errors="coerce").to_numpy(float)
            large = values[np.abs(values) > 2**_FLOAT32_BITS]
            if len(large) and bool((large.astype(np.float32).astype(np.float64) != large).any()):
                names.append(column.name)
    return names
