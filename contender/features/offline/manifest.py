"""What a training set was made from, as JSON: it goes into the manifest of a model that is trained on it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from contender.features.documents import digest, view_document
from contender.features.offline.plan import JoinPlan
from contender.features.offline.tables import SourceTable, TrainingRows

_CHUNK = 1 << 20


def training_manifest(
    plan: JoinPlan, rows: TrainingRows, sources: Mapping[str, SourceTable], *, seed: int | None, as_known: bool
) -> dict[str, Any]:
    """The record of a training set.

    Args:
        plan: its features.
        rows: its rows as they were given.
        sources: the events by source.
        seed: what the rows were drawn with.
        as_known: whether events that were ingested too late were left out.

    Returns:
        `rows` and `sources` with the sha256 of their files' bytes or of their content, `definitions` with the digest of
        each view by its version, `features` with the version that each is of, `seed` and `as_known`.
    """
    labels = {label: _version(plan, label) for label in plan.labels}
    return {
        "features": {feature.column: f"{labels[feature.label][0]}:{feature.name}" for feature in plan.features},
        "definitions": dict(labels.values()),
        "rows": {"count": rows.frame.height, **_content(rows.opened)},
        "sources": {name: _content(opened) for name, opened in sources.items()},
        "seed": seed,
        "as_known": as_known,
    }


def content_sha256(frame: pl.DataFrame) -> str:
    """The sha256 of a frame's names, types and values in their order; the same on every machine."""
    content = hashlib.sha256()
    for column in frame.get_columns():
        content.update(f"{column.name}\0{column.dtype}\0{len(column)}\0".encode())
        content.update(np.packbits(column.is_null().to_numpy()).tobytes())
        if column.dtype == pl.String:
            content.update(column.str.len_bytes().fill_null(0).to_numpy().astype("<u4").tobytes())
            content.update("".join(column.drop_nulls()).encode())
        elif column.dtype.is_nested() or column.dtype == pl.Object:
            content.update(repr(column.to_list()).encode())
        else:
            physical = column.cast(pl.String) if column.dtype.is_decimal() else column.to_physical()
            values = physical.drop_nulls().to_numpy()
            content.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    return content.hexdigest()


def _content(opened: SourceTable) -> dict[str, Any]:
    if not opened.files:
        return {"sha256": content_sha256(opened.frame.collect())}
    return {"files": {str(file): _file_sha256(file) for file in opened.files}}


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _version(plan: JoinPlan, label: str) -> tuple[str, str]:
    """A view's version and the digest of its meaning; its bare name where the catalogue has another such view."""
    view, catalogue = plan.labels[label], plan.catalogue
    newest = {**catalogue.views, **catalogue.on_demand}
    if label not in catalogue.kept and newest.get(label) != view:
        return label, digest(view_document(view))
    number = label if label in catalogue.kept else catalogue.newest(label)
    return number, next(version.digest for version in catalogue.versions if version.label == number)
