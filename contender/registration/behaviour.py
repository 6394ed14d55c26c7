"""How a version treats rows unlike those of training: each kind is tried with the file and with the pipeline."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from contender.contracts.inference_service import InputColumn
from contender.contracts.tasks import ScoreError
from contender.errors import ExportError, ParityError
from contender.registration.failures import FOREIGN
from contender.registration.parity import UNSEEN, Comparer
from contender.registration.rows import Rows

_ROWS = 20
_ODD = "\u00c4rger\u2603snow"
"""A text with a capital letter beyond ASCII, and a sign within a word."""
_FAR = 1_000_003
"""A category of whole numbers that training hardly had; the first that it did not have is tried."""
_SCORED, _REFUSED, _DEFAULT = "is scored as the pipeline scores it", "is refused", "is scored with the default"


@dataclass
class Behaviour:
    """How each column's nulls and unseen categories are treated, and warnings of what may surprise."""

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def note(self, column: str, what: str, outcome: str) -> None:
        """Note an outcome."""
        self.columns.setdefault(column, {})[what] = outcome


def observe(
    comparer: Comparer,
    rows: Rows,
    sources: Mapping[str, str],
    never_null: Collection[str],
    tolerance: float,
) -> tuple[Behaviour, list[InputColumn]]:
    """Try nulls and unseen categories; also returns the columns, required where a null has no score.

    Raises:
        ExportError: the file scores a category that the pipeline refuses.
        ParityError: the file scores a category differently from the pipeline.
    """
    behaviour, inputs = Behaviour(), list(comparer.inputs)
    few = rows.subset(list(range(min(_ROWS, len(rows)))))
    for index, column in enumerate(comparer.inputs):
        served = column.source != "request"
        if column.default is not None:
            behaviour.note(column.name, "null", _DEFAULT)
        elif not column.required and _null_is_scored(comparer, few, index, tolerance):
            behaviour.note(column.name, "null", _SCORED)
        else:
            behaviour.note(column.name, "null", _REFUSED)
            inputs[index] = msgspec.structs.replace(column, required=True)
            if served and column.name not in never_null:
                behaviour.warnings.append(
                    f"fails for new entities: {column.name} ({sources[column.name]}) is null there, and the row is "
                    f"refused; add an imputer to the pipeline, or a default: defaults={{{column.name!r}: ...}}"
                )
        if column.dtype in ("string", "integer"):
            _try_unseen(comparer, few, index, behaviour, tolerance)
    return behaviour, inputs


def _null_is_scored(comparer: Comparer, rows: Rows, index: int, tolerance: float) -> bool:
    nulls = rows.replaced(index, None)
    if any(comparer.refuses(nulls)):
        return False
    try:
        return comparer.compare(nulls).worst <= tolerance
    except (*FOREIGN, ScoreError):
        return False


def _is_odd(comparer: Comparer, rows: Rows) -> bool:
    """Whether the file refuses what the pipeline scores."""
    return comparer.refuses(rows) == (False, True)


def _unseen_number(rows: Rows, index: int) -> int:
    seen = set(rows.values(index))
    return next(number for number in itertools.count(_FAR) if number not in seen)


def _try_unseen(comparer: Comparer, rows: Rows, index: int, behaviour: Behaviour, tolerance: float) -> None:
    column = comparer.inputs[index]
    unseen = rows.replaced(index, UNSEEN if column.dtype == "string" else _unseen_number(rows, index))
    pipeline_refuses, file_refuses = comparer.refuses(unseen)
    if pipeline_refuses and not file_refuses:
        raise ExportError(
            f"column {column.name}: the pipeline refuses an unseen category and the exported file scores it; fit the "
            "encoder with handle_unknown='ignore', an OrdinalEncoder with 'use_encoded_value'"
        )
    if not file_refuses and column.dtype == "string" and _is_odd(comparer, rows.replaced(index, _ODD)):
        behaviour.note(column.name, "capital letters beyond ASCII, signs within words", _REFUSED)
        behaviour.warnings.append(
            f"refuses some texts: a row whose {column.name} has a capital letter beyond ASCII, or a sign such as emoji "
            "right beside a word, gets no score; fit on and send plain words, such as "
            f"frame[{column.name!r}].str.lower().str.replace(r'\\W+', ' ', regex=True)"
        )
    if file_refuses:
        behaviour.note(column.name, "unseen category", _REFUSED)
        behaviour.warnings.append(
            f"refuses unseen categories: a row with a new value of {column.name} gets no score; fit the encoder "
            "with handle_unknown='ignore' to score it"
        )
        return
    compared = comparer.compare(unseen)
    if compared.worst > tolerance or compared.labels_differ.any():
        raise ParityError(
            f"column {column.name}: the file scores an unseen category differently from the pipeline, by "
            f"{compared.worst:.3g}"
        )
    behaviour.note(column.name, "unseen category", _SCORED)
