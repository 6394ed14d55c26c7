"""Bodies of calls as JSON: numpy's scalars become plain values, and an error names the field."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from contender.errors import ContenderError


def encoded(body: object) -> bytes:
    """The body as JSON.

    Raises:
        ContenderError: JSON can't hold a value; the message names the field, such as `rows[3].inputs.age`.
    """
    return msgspec.json.encode(plain(body))


def plain(body: object) -> Any:
    """The body as plain values, which JSON and msgspec know.

    Raises:
        ContenderError: JSON can't hold a value; the message names the field.
    """
    return _plain(body, "")


def _plain(value: object, field: str) -> object:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, Mapping):
        return {_text(str(key), field): _plain(part, f"{field}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{field}[{index}]") for index, part in enumerate(value)]
    return _scalar(value, field)


def _scalar(value: object, field: str) -> object:
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return _number(float(value), field)
    try:
        return msgspec.to_builtins(value)
    except TypeError as error:
        raise _fault(field, f"has the type {type(value).__name__}; pass a number, a text or a boolean") from error


def _number(value: float, field: str) -> float:
    if not math.isfinite(value):
        raise _fault(field, f"is {value}, which JSON can't hold; pass None where a value is missing")
    return value


def _text(value: str, field: str) -> str:
    try:
        return value.encode().decode()  # drops the types of numpy's strings and of enumerations
    except UnicodeEncodeError as error:
        raise _fault(field, f"contains a character that UTF-8 can't encode: {value!a}") from error


def _fault(field: str, message: str) -> ContenderError:
    return ContenderError(f"{field.removeprefix('.') or 'the body'} {message}")
