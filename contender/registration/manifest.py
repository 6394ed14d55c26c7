"""An export with its manifest, which records what the version was made from: data, environment and code."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

_PACKAGES = (
    "lightgbm",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "pandas",
    "polars",
    "scikit-learn",
    "skl2onnx",
    "xgboost-cpu",
)


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
        """How the version treats rows unlike those of training, where a caller may not expect it."""
        return list(self.manifest.get("warnings", []))


class Recorded(Protocol):
    """Something with a record of what it was made from, such as a `contender.training.TrainingSet`."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The record, as JSON takes it."""
        ...


def record(
    onnx: bytes, columns: pd.DataFrame, labels: Any, training_set: Recorded | None, *, has_classes: bool
) -> dict[str, Any]:
    """The part of every manifest that says what the version was made from; numbers to be predicted have a range."""
    targets = None if has_classes or labels is None else _target_range(labels)
    return {
        **({"target_range": targets} if targets else {}),
        "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
        "data": _data(columns, labels),
        **({"training_set": dict(training_set.manifest)} if training_set is not None else {}),
        "environment": _environment(),
        "code": _code(),
    }


def _data(columns: pd.DataFrame, labels: Any) -> dict[str, Any]:
    """What the version was fitted on, in its row order."""
    digest = hashlib.sha256()
    for name in columns.columns:
        digest.update(_digest(columns[name]))
    if labels is not None:
        digest.update(_digest(pd.Series(np.ravel(np.asarray(labels)))))
    return {"rows": len(columns), "columns": list(map(str, columns.columns)), "sha256": digest.hexdigest()}


def _target_range(labels: Any) -> list[float] | None:
    """The lowest and the highest finite target; None without any."""
    try:
        targets = np.ravel(np.asarray(labels)).astype(np.float64)
    except (TypeError, ValueError):  # the outcomes of a ready file's rows may be of any type
        return None
    finite = targets[np.isfinite(targets)]
    return [float(finite.min()), float(finite.max())] if len(finite) else None


def _digest(values: "pd.Series[Any]") -> bytes:
    try:
        hashed = pd.util.hash_pandas_object(values, index=False)
    except TypeError:  # objects that hold several types
        hashed = pd.util.hash_pandas_object(values.map(repr), index=False)
    return hashed.to_numpy().tobytes()


def _environment() -> dict[str, Any]:
    """Versions of Python and of the packages that an export depends on."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = installed(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": versions}


def _code() -> dict[str, Any]:
    """The commit of the folder this runs in, and whether it had changes; nulls outside a repository."""
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": None if commit is None else bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=Path.cwd(),
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
