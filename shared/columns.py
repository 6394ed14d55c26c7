"""What a value of a model's input column may be: the router and the inference service judge it alike."""

import math

from shared.events import InputColumn, Scalar

_FLOAT32_MAX = (2 - 2**-23) * 2.0**127
_INTEGER_LIMIT = 2**63


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
    if not -math.inf < value < math.inf:  # math.isfinite fails on an integer that is too long for a float
        return "is not a finite number"
    if column.dtype == "integer":
        if value != int(value):
            return "is not a whole number"
        return "is outside 64 bits" if abs(value) >= _INTEGER_LIMIT else ""
    return "is outside 32-bit floats" if abs(value) > _FLOAT32_MAX else ""
