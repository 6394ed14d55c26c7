"""Named columns become arrays: every value is checked, and every fault names its column and row."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from shared.columns import array_of, fault_of
from shared.events import InputColumn, Scalar
from shared.problems import FieldError, TooLarge, Unprocessable, shortened

Arrays = dict[str, NDArray[Any]]
_FAULTS_SHOWN = 20


def check_columns(
    schema: Sequence[InputColumn], inputs: Mapping[str, Sequence[Scalar]], *, row_limit: int, text_limit: int
) -> Arrays:
    """Arrays of shape (rows,) by column, in the schema's order: float64, int64, bool or object (str).

    Nulls are what `shared.columns.array_of` makes of them; a column that has no null refuses them.

    Raises:
        TooLarge: more rows than allowed.
        Unprocessable: a column is unknown or missing, lengths differ, or a value is not of its column's type.
    """
    unknown = inputs.keys() - _names(schema)
    faults = [FieldError(f"inputs.{shortened(name)}", "is not a column of this model") for name in unknown]
    missing = [column.name for column in schema if column.name not in inputs]
    faults += [FieldError(f"inputs.{name}", "is missing") for name in missing]
    _refuse(faults)
    lengths = {name: len(values) for name, values in inputs.items()}
    rows = lengths[schema[0].name]
    faults = [
        FieldError(f"inputs.{name}", f"has {length} rows, {schema[0].name} has {rows}")
        for name, length in lengths.items()
        if length != rows
    ]
    _refuse(faults)
    if rows > row_limit:
        raise TooLarge.at("inputs", f"has {rows} rows, at most {row_limit} are answered at once")
    if rows == 0:
        raise Unprocessable.at("inputs", "has no rows")
    for column in schema:
        faults += _faults(column, inputs[column.name], text_limit)
    _refuse(faults)
    return {column.name: array_of(column, inputs[column.name]) for column in schema}


def _faults(column: InputColumn, values: Sequence[Scalar], text_limit: int) -> list[FieldError]:
    found = []
    for row, value in enumerate(values):
        if fault := _null_fault(column, value) or fault_of(column, value, text_limit):
            found.append(FieldError(f"inputs.{column.name}[{row}]", fault))
            if len(found) == _FAULTS_SHOWN:
                break
    return found


def _null_fault(column: InputColumn, value: Scalar) -> str:
    if value is None and column.default is None and column.dtype in ("integer", "boolean"):
        return f"is null, and the {column.dtype} column has no default"
    return ""


def _names(schema: Sequence[InputColumn]) -> set[str]:
    return {column.name for column in schema}


def _refuse(faults: list[FieldError]) -> None:
    if faults:
        shown = faults[:_FAULTS_SHOWN]
        raise Unprocessable("; ".join(f"{fault.field} {fault.message}" for fault in shown[:3]), shown)
