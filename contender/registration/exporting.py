"""Exports a fitted pipeline: the first file with the same scores, what it does with odd rows, and the manifest."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from onnx import ModelProto, helper

from contender.registration.checks import check_fitted, check_labels, check_named, check_scored
from contender.registration.manifest import Export, Recorded, record
from contender.registration.pipelines import plain, task_of
from contender.registration.rows import Rows
from contender.registration.trial import Serving, Trial

TOLERANCE = 1e-5
"""Largest difference of a score: 64-bit files differ by 1e-15, 32-bit boosted trees by 4e-7 (measured)."""


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
        labels: the labels it was fitted to, shape (rows,); its hash enters the manifest, and for a
            regression the lowest and the highest, which say what outcomes are possible.
        sources: `view:feature` per column that the router fetches; other columns come with the request.
        defaults: per column the value that stands in for every null, and for a feature that is not served.
        description: one sentence on what the version is.
        tolerance: largest accepted difference of a score, relative to the largest score where that is beyond 1.
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
    checked = Trial(pipeline, rows, task, classes, serving, tolerance).first_fitting()
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
        **({"categories": checked.converted.categories} if checked.converted.categories else {}),
        "parameters": {name: repr(value) for name, value in sorted(pipeline.get_params(deep=True).items())},
        **record(onnx, rows.frame, labels, training_set, has_classes=task.has_classes),
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
