"""Named columns become arrays: every value is checked, and every fault names its column and row."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.events import InputColumn, Scalar
from shared.problems import FieldError, TooLarge, Unprocessable

Arrays = dict[str, NDArray[Any]]
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INTEGER_LIMIT = 2**63
_FAULTS_SHOWN = 20


def check_columns(
    schema: Sequence[InputColumn], inputs: Mapping[str, Sequence[Scalar]], *, row_limit: int, text_limit: int
) -> Arrays:
    """Arrays of shape (rows,) by column, in the schema's order: float32, int64, bool or object (str).

    A null stands for missing where the column is not required: NaN for floats, the column's default otherwise.

    Raises:
        TooLarge: more rows than allowed.
        Unprocessable: a column is unknown or missing, lengths differ, or a value is not of its column's type.
    """
    faults = [FieldError(f"inputs.{name}", "is not a column of this model") for name in inputs.keys() - _names(schema)]
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
        raise TooLarge(f"inputs has {rows} rows, at most {row_limit} are answered at once")
    if rows == 0:
        raise Unprocessable("inputs has no rows", [FieldError("inputs", "has no rows")])
    for column in schema:
        faults += _faults(column, inputs[column.name], text_limit)
    _refuse(faults)
    return {column.name: _array(column, inputs[column.name]) for column in schema}


def fault_of(column: InputColumn, value: Scalar, text_limit: int) -> str:
    """What is wrong with one value of a column; empty when nothing is."""
    if value is None:
        return "is null, and the column is required" if column.required and column.default is None else ""
    if column.dtype == "string":
        return _text_fault(value, text_limit)
    if column.dtype == "boolean":
        return "" if isinstance(value, bool) else "is not true or false"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    return _number_fault(column, value)


def _text_fault(value: Scalar, text_limit: int) -> str:
    if not isinstance(value, str):
        return "is not a string"
    return f"is longer than {text_limit} characters" if len(value) > text_limit else ""


def _number_fault(column: InputColumn, value: float) -> str:
    if not math.isfinite(value):
        return "is not a finite number"
    if column.dtype == "integer":
        if value != int(value):
            return "is not a whole number"
        return "is outside 64 bits" if abs(value) >= _INTEGER_LIMIT else ""
    return "is outside 32-bit floats" if abs(value) > _FLOAT32_MAX else ""


def _faults(column: InputColumn, values: Sequence[Scalar], text_limit: int) -> list[FieldError]:
    found = []
    for row, value in enumerate(values):
        if fault := fault_of(column, value, text_limit):
            found.append(FieldError(f"inputs.{column.name}[{row}]", fault))
            if len(found) == _FAULTS_SHOWN:
                break
    return found


def _array(column: InputColumn, values: Sequence[Scalar]) -> NDArray[Any]:
    default = column.default
    if column.dtype == "float":
        stand_in = float("nan") if default is None else float(default)
        return np.array([stand_in if value is None else value for value in values], dtype=np.float32)
    filled = [default if value is None else value for value in values]
    if column.dtype == "integer":
        return np.array([0 if value is None else int(value) for value in filled], dtype=np.int64)
    if column.dtype == "boolean":
        return np.array([bool(value) for value in filled], dtype=np.bool_)
    return np.array(["" if value is None else value for value in filled], dtype=object)


def _names(schema: Sequence[InputColumn]) -> set[str]:
    return {column.name for column in schema}


def _refuse(faults: list[FieldError]) -> None:
    if faults:
        shown = faults[:_FAULTS_SHOWN]
        raise Unprocessable("; ".join(f"{fault.field} {fault.message}" for fault in shown[:3]), shown)
