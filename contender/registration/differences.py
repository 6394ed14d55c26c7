"""Explains why an ONNX file answers differently from its pipeline, and what to change."""

import numpy as np
import pandas as pd

from contender.errors import ParityError
from contender.registration import text
from contender.registration.conversion import Converted
from contender.registration.parity import Parity
from contender.registration.rows import Rows

_FLOAT32_BITS = 24
_COLUMNS_SHOWN = 3


def difference(parity: Parity | None, tolerance: float, converted: Converted) -> ParityError:
    """The error of a file whose scores or labels differ by more than the tolerance."""
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
    cause = (
        f"{', '.join(beyond[:_COLUMNS_SHOWN])} hold numbers beyond {_FLOAT32_BITS} bits, which 32-bit floats round: "
        "fit on smaller ones, such as days instead of seconds, or differences"
        if beyond
        else "a step treats rounding, ties or missing values differently; docs/models.md lists the exported steps"
    )
    if parity.worst <= tolerance:
        return ParityError(
            f"{parity.labels_differ} of {parity.rows} labels differ from the pipeline's own predict, though the scores "
            "agree: two classes are tied there, and rounding decides"
        )
    return ParityError(
        f"the ONNX file's scores differ from the pipeline's by up to {parity.worst:.3g} on {parity.rows} rows; "
        f"at most {tolerance:.3g} is accepted: {cause}"
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
