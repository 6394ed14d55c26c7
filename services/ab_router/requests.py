"""Requests for predictions, checked before they are assigned, so that refused rows can't skew a split."""

import math
from collections.abc import Iterable, Mapping, Sequence

from contender.contracts.ab_router import PredictionRow
from contender.contracts.columns import fault_of
from contender.contracts.inference_service import InputColumn, ModelVersion
from contender.contracts.limits import FUTURE_S, INTEGERS, WALL_S
from contender.contracts.problems import FieldError
from contender.contracts.values import REQUEST, ClockName, Dtype, Scalar
from contender.features.limits import MOST_CHARACTERS, MOST_EXACT
from services.ab_router.catalog import Catalog

FAULTS_SHOWN = 20
_DTYPES: dict[str, Dtype] = {"float": "float", "int": "integer", "str": "string", "bool": "boolean"}
_ORDINARY = 1e38
"""A float below this needs no further check in a float column; most values are, and this takes a fifth of the time."""
_SCALAR_BYTES = 24
"""A number as JSON has it, or the quotes and the comma of a text."""
_UTF8_BYTES = 4
"""The longest character."""


class RowSchema:
    """The values that a model's rows must have so that any of the given versions could answer them.

    A row may also carry the columns of the model's other versions, so that callers can send what a challenger needs
    before its experiment starts.

    Args:
        versions: those that might answer.
        others: all versions of the model.
        catalog: knows the inputs of views.
        text_limit: longest string, in characters.
        key_limit: most keys of a row's entities or context.
    """

    def __init__(
        self,
        versions: Sequence[ModelVersion],
        others: Iterable[ModelVersion],
        catalog: Catalog,
        text_limit: int,
        key_limit: int,
    ) -> None:
        self._columns = _request_columns(versions, catalog)
        self._others = _request_columns(others, catalog)
        self._features = {column.name: column.source for version in versions for column in version.inputs}
        views = [catalog.served_features(version)[1] for version in versions]
        self._join_keys = {key for inputs in views for key in inputs.join_keys}
        self._computed_from = {name for inputs in views for name in inputs.request}
        self._floats = {name for name, same in self._columns.items() if {column.dtype for column in same} == {"float"}}
        self._text_limit = text_limit
        self._key_limit = key_limit

    def faults(self, row: PredictionRow, now: float, clock: ClockName | None = None) -> list[FieldError]:
        """The faults of a row, at most 20. Whether it may do without a unit is for experiments to say.

        Args:
            row: as it came.
            now: the router's time.
            clock: that of the running experiment; None where none runs.
        """
        faults = [
            FieldError(name, fault)
            for name, fault in (
                ("unit", row.unit and self._text_fault(row.unit)),
                ("time", _time_fault(row.time, now, clock)),
            )
            if fault
        ]
        faults += [FieldError(f"entities.{key}", "is missing") for key in self._join_keys - row.entities.keys()]
        for group, values in (("entities", row.entities), ("context", row.context)):
            if len(values) > self._key_limit or any(len(key) > self._text_limit for key in values):
                message = f"has more than {self._key_limit} keys, or one longer than {self._text_limit} characters"
                faults.append(FieldError(group, message))
                continue
            faults += [
                FieldError(f"{group}.{key}", fault)
                for key, value in values.items()
                if (fault := self._entity_fault(value) if group == "entities" else self._scalar_fault(value))
            ]
        return (faults + self._input_faults(row.inputs))[:FAULTS_SHOWN]

    def _input_faults(self, inputs: Mapping[str, Scalar]) -> list[FieldError]:
        others = inputs.keys() - self._columns.keys()
        faults = [
            FieldError(f"inputs.{name}", fault) for name in others if (fault := self._other_fault(name, inputs[name]))
        ]
        for name, columns in self._columns.items():
            if name not in inputs:
                is_needed = any(column.required and column.default is None for column in columns)
                if is_needed or name in self._computed_from:
                    faults.append(FieldError(f"inputs.{name}", "is missing"))
                continue
            value = inputs[name]
            if type(value) is float and -_ORDINARY < value < _ORDINARY and name in self._floats:
                continue
            for column in columns:
                if fault := fault_of(column, value, self._text_limit):
                    faults.append(FieldError(f"inputs.{name}", fault))
                    break
        return faults

    def _other_fault(self, name: str, value: Scalar) -> str:
        """The fault of a column that no version needs which might answer; its value must suit another version."""
        if name in self._others:
            return (
                "" if value is None else min(fault_of(column, value, self._text_limit) for column in self._others[name])
            )
        return f"is served as {self._features[name]}" if name in self._features else "is not a column of this model"

    def _text_fault(self, text: str) -> str:
        return text_fault(text, self._text_limit)

    def _entity_fault(self, value: Scalar) -> str:
        """The fault of a join key by the features' own limits: rows are looked up together, so none may fail others."""
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            return f"is longer than {MOST_CHARACTERS} characters"
        if isinstance(value, int) and abs(value) > MOST_EXACT:
            return "is beyond 2**53, up to which whole numbers are exact: send it as text"
        return self._scalar_fault(value)

    def _scalar_fault(self, value: Scalar) -> str:
        return scalar_fault(value, self._text_limit)


def scalar_fault(value: Scalar, text_limit: int) -> str:
    """The fault of a value of the context; empty for a valid one."""
    if isinstance(value, str):
        return text_fault(value, text_limit)
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    return "is outside 64 bits" if isinstance(value, int) and abs(value) >= INTEGERS else ""


def text_fault(text: str, limit: int) -> str:
    """The fault of a text that must not be empty; empty for a valid one."""
    if not text:
        return "is empty"
    return f"is longer than {limit} characters" if len(text) > limit else ""


def _request_columns(versions: Iterable[ModelVersion], catalog: Catalog) -> dict[str, list[InputColumn]]:
    """The columns that versions take from the request, for themselves or for their features, by name."""
    columns: dict[str, list[InputColumn]] = {}
    for version in versions:
        own = [column for column in version.inputs if column.source == REQUEST]
        # A column that on-demand features are computed from: they decide what a null means.
        request = catalog.served_features(version)[1].request.items()
        for column in [*own, *(InputColumn(name, _DTYPES[kind], required=False) for name, kind in request)]:
            same = columns.setdefault(column.name, [])
            if column not in same:
                same.append(column)
    return columns


def size_bytes(row: PredictionRow) -> int:
    """About how many bytes of JSON a row's values take, at most."""
    size = _SCALAR_BYTES * (len(row.inputs) + len(row.entities) + len(row.context))
    for values in (row.inputs, row.entities, row.context):
        for value in values.values():
            if isinstance(value, str):
                size += len(value) if value.isascii() else _UTF8_BYTES * len(value)
    return size


def _time_fault(time: float | None, now: float, clock: ClockName | None) -> str:
    if time is None:
        return ""
    if not (math.isfinite(time) and time >= 0):
        return "is not a time in seconds since 1970"
    if clock == "wall" and abs(time - now) > WALL_S:
        return (
            f"is more than {WALL_S:g} s off the router's clock, by which the running experiment goes: leave it out, or "
            'declare an experiment with clock: "event" for a replay'
        )
    return f"is more than {FUTURE_S:g} s in the future" if time > now + FUTURE_S else ""
