"""Converts a pipeline until a file answers as the pipeline does."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from contender.contracts.inference_service import InputColumn
from contender.contracts.tasks import ScoreError, Task
from contender.contracts.values import Scalar
from contender.errors import ExportError, ParityError
from contender.registration.behaviour import Behaviour, observe
from contender.registration.checks import check_default
from contender.registration.conversion import Converted, conversions, refusal
from contender.registration.differences import difference
from contender.registration.failures import FOREIGN
from contender.registration.file import File, Scores
from contender.registration.parity import Comparer, Parity, compare_all
from contender.registration.pipelines import of_pipeline
from contender.registration.rows import Rows


@dataclass(frozen=True)
class Serving:
    """Where the columns' values come from when the version is live."""

    sources: Mapping[str, str]
    defaults: Mapping[str, Any]
    never_null: Collection[str] = ()
    """Columns whose feature always has a value, such as a count."""


@dataclass(frozen=True)
class CheckedFile:
    """A file that answers as its pipeline."""

    converted: Converted
    inputs: list[InputColumn]
    label: str
    parity: Parity
    behaviour: Behaviour


@dataclass(frozen=True)
class Trial:
    """A pipeline, what is known of it, and how close a file must come."""

    pipeline: Any
    rows: Rows
    task: Task
    classes: list[Scalar]
    serving: Serving
    tolerance: float

    def first_fitting(self) -> CheckedFile:
        """The first conversion that answers as the pipeline does."""
        refused: list[ExportError | ParityError] = []
        for converted in conversions(self.pipeline, self.rows.columns):
            if isinstance(converted, ExportError):
                refused.append(converted)
                continue
            typed = self.rows.retyped(converted.dtypes)
            try:
                return self._check(converted, typed, self._inputs(typed, converted.unused))
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
            check_default(served)
            if column.nulls and not null and default is None:
                raise ExportError(
                    f"column {column.name} holds nulls, and a step takes it as {column.dtype}, which has none: fill it "
                    f"before fit, or give it a default: defaults={{{column.name!r}: ...}}"
                )
            inputs.append(served)
        return inputs

    def _check(self, converted: Converted, rows: Rows, inputs: list[InputColumn]) -> CheckedFile:
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
                return CheckedFile(converted, final, label, parity, behaviour)
        raise difference(parity, self.tolerance, converted)

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
