"""Named columns become arrays: every value is checked, and every fault names its column and row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from contender.contracts.columns import array_of, fault_of
from contender.contracts.inference_service import InputColumn, RowFault
from contender.contracts.problems import INVALID_FIELD, FieldError
from contender.contracts.values import Scalar
from shared.errors import InvalidField, TooLarge, shortened

Arrays = dict[str, NDArray[Any]]
_FAULTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Rows that a model may be asked for, and why the others may not.

    `arrays` holds, by column in the schema's order, the rows that are in `rows`, of shape (len(rows),).
    """

    arrays: Arrays
    rows: list[int]
    faults: list[RowFault]


def check_rows(
    schema: Sequence[InputColumn], inputs: Mapping[str, Sequence[Scalar]], *, row_limit: int, text_limit: int
) -> CheckedRows:
    """The rows whose values fit their columns as arrays, and one fault for each of the others.

    Raises:
        TooLarge: more rows than allowed.
        InvalidField: a column is unknown or missing, lengths differ, or there are no rows.
    """
    rows = count_rows(schema, inputs, row_limit)
    faults: dict[int, RowFault] = {}
    for column in schema:
        for row, value in enumerate(inputs[column.name]):
            if fault := _null_fault(column, value) or fault_of(column, value, text_limit):
                faults.setdefault(row, RowFault.of(INVALID_FIELD, row, f"inputs.{column.name}", fault))
    if not faults:
        arrays = {column.name: array_of(column, inputs[column.name]) for column in schema}
        return CheckedRows(arrays, list(range(rows)), [])
    fitting = [row for row in range(rows) if row not in faults]
    arrays = {column.name: array_of(column, [inputs[column.name][row] for row in fitting]) for column in schema}
    return CheckedRows(arrays, fitting, list(faults.values()))


def check_columns(
    schema: Sequence[InputColumn], inputs: Mapping[str, Sequence[Scalar]], *, row_limit: int, text_limit: int
) -> Arrays:
    """Arrays of shape (rows,) by column, in the schema's order: float64, int64, bool or object (str).

    Nulls are what `contender.contracts.columns.array_of` makes of them; a column that has no null refuses them.

    Raises:
        TooLarge: more rows than allowed.
        InvalidField: a column is unknown or missing, lengths differ, or a value is not of its column's type.
    """
    checked = check_rows(schema, inputs, row_limit=row_limit, text_limit=text_limit)
    _refuse([FieldError(f"{fault.field}[{fault.row}]", fault.message) for fault in checked.faults])
    return checked.arrays


def neutral_row(schema: Sequence[InputColumn]) -> Arrays:
    """A row to measure a model with, where there is no sample: its score does not matter."""
    stand_in: Mapping[str, Scalar] = {"float": 0.0, "integer": 0, "boolean": False, "string": ""}
    inputs = {column.name: [stand_in[column.dtype]] for column in schema}
    return check_columns(schema, inputs, row_limit=1, text_limit=1)


def count_rows(schema: Sequence[InputColumn], inputs: Mapping[str, Sequence[Scalar]], row_limit: int) -> int:
    """How many rows a well-formed question has.

    Raises:
        TooLarge: more than allowed.
        InvalidField: a column is unknown or missing, lengths differ, or there are no rows.
    """
    known = _names(schema)
    unknown = islice((name for name in inputs if name not in known), _FAULTS_SHOWN)
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
        raise InvalidField.at("inputs", "has no rows")
    return rows


def _null_fault(column: InputColumn, value: Scalar) -> str:
    if value is None and column.default is None and column.dtype in ("integer", "boolean"):
        return f"is null, and the {column.dtype} column has no default"
    return ""


def _names(schema: Sequence[InputColumn]) -> set[str]:
    return {column.name for column in schema}


def _refuse(faults: list[FieldError]) -> None:
    if faults:
        shown = faults[:_FAULTS_SHOWN]
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in shown[:3]), shown)
