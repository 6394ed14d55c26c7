"""Named columns become arrays, or every fault is named."""

import numpy as np
import pytest

from contender.contracts.inference_service import InputColumn, RowFault
from services.inference_service.domain.columns import check_columns, check_rows
from shared.errors import InvalidField, TooLarge

USAGE = InputColumn("usage", "float", required=False)
SEATS = InputColumn("seats", "integer", default=1, required=False)
PLAN = InputColumn("plan", "string")
TRIAL = InputColumn("trial", "boolean")
SCHEMA = [USAGE, SEATS, PLAN, TRIAL]
RIGHT = {"usage": [0.5, 2], "seats": [3, 4.0], "plan": ["free", "pro"], "trial": [True, False]}


def check(inputs, schema=SCHEMA, row_limit=100):
    return check_columns(schema, inputs, row_limit=row_limit, text_limit=10)


def faults(inputs, schema=SCHEMA) -> dict[str, str]:
    with pytest.raises(InvalidField) as caught:
        check(inputs, schema)
    return {error.field: error.message for error in caught.value.errors}


def test_arrays_come_in_the_order_and_with_the_types_of_the_schema():
    arrays = check(dict(reversed(RIGHT.items())))
    assert list(arrays) == ["usage", "seats", "plan", "trial"]
    assert [array.dtype for array in arrays.values()] == [np.float64, np.int64, object, np.bool_]
    assert [array.tolist() for array in arrays.values()] == [[0.5, 2.0], [3, 4], ["free", "pro"], [True, False]]


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("usage", "0.5", "is not a number"),
        ("usage", True, "is not a number"),
        ("usage", float("nan"), "is not a finite number"),
        ("usage", float("inf"), "is not a finite number"),
        pytest.param("usage", 10**400, "is outside 32-bit floats", id="longer than a float"),
        ("usage", 1e39, "is outside 32-bit floats"),
        ("seats", 1.5, "is not a whole number"),
        ("seats", False, "is not a number"),
        ("seats", 2**63, "is outside 64 bits"),
        ("plan", 1, "is not a string"),
        ("plan", None, "is null, and the column is required"),
        ("plan", "x" * 11, "is longer than 10 characters"),
        ("trial", 1, "is not true or false"),
        ("trial", "true", "is not true or false"),
        ("trial", None, "is null, and the boolean column has no default"),
    ],
)
def test_a_value_that_its_column_does_not_take_is_named_by_column_and_row(column, value, fault):
    inputs = {**RIGHT, column: [RIGHT[column][0], value]}
    assert faults(inputs) == {f"inputs.{column}[1]": fault}


def test_columns_that_are_missing_or_unknown_are_all_named():
    inputs = {"usage": [1.0], "colour": ["red"], "trial": [True]}
    assert faults(inputs) == {
        "inputs.colour": "is not a column of this model",
        "inputs.seats": "is missing",
        "inputs.plan": "is missing",
    }


def test_columns_of_other_lengths_are_named():
    assert faults({**RIGHT, "plan": ["free"], "trial": []}) == {
        "inputs.plan": "has 1 rows, usage has 2",
        "inputs.trial": "has 0 rows, usage has 2",
    }


def test_no_rows_are_refused():
    assert faults({name: [] for name in RIGHT}) == {"inputs": "has no rows"}


def test_as_many_rows_as_the_limit_are_answered_and_one_more_is_too_many():
    wide = {"usage": [1.0] * 100}
    assert len(check(wide, [USAGE])["usage"]) == 100
    with pytest.raises(TooLarge) as caught:
        check(wide, [USAGE], row_limit=99)
    assert [error.field for error in caught.value.errors] == ["inputs"]


def test_a_text_as_long_as_the_limit_is_taken():
    assert check({"plan": ["x" * 10]}, [PLAN])["plan"].tolist() == ["x" * 10]


def test_a_null_is_nan_for_floats_and_the_default_for_others():
    text = InputColumn("plan", "string", required=False)
    named = InputColumn("origin", "string", default="EWR", required=False)
    flag = InputColumn("trial", "boolean", default=True, required=False)
    schema = [USAGE, SEATS, text, named, flag]
    arrays = check({column.name: [None] for column in schema}, schema)
    assert np.isnan(arrays.pop("usage"))
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "seats": [1],
        "plan": [""],
        "origin": ["EWR"],
        "trial": [True],
    }


def test_an_optional_integer_without_default_has_no_null():
    seats = InputColumn("seats", "integer", required=False)
    assert faults({"seats": [None]}, [seats]) == {"inputs.seats[0]": "is null, and the integer column has no default"}


def test_no_more_than_twenty_faults_are_told():
    assert len(faults({**{name: RIGHT[name] * 50 for name in RIGHT}, "plan": [1] * 100})) == 20


def test_rows_that_fit_are_arrays_and_each_of_the_others_has_one_fault():
    inputs = {
        "usage": [0.5, "much", 2.5, 3.5],
        "seats": [1, 2, None, 2.5],
        "plan": ["free", "pro", "team", "x" * 11],
        "trial": [True, None, False, True],
    }
    checked = check_rows(SCHEMA, inputs, row_limit=100, text_limit=10)
    assert checked.rows == [0, 2]
    columns = [array.tolist() for array in checked.arrays.values()]
    assert columns == [[0.5, 2.5], [1, 1], ["free", "team"], [True, False]]
    assert sorted(checked.faults, key=lambda fault: fault.row) == [
        RowFault(1, 422, "inputs.usage", "is not a number"),
        RowFault(3, 422, "inputs.seats", "is not a whole number"),
    ]


def test_where_no_row_fits_the_arrays_are_empty():
    checked = check_rows([PLAN], {"plan": [1, 2]}, row_limit=100, text_limit=10)
    assert (checked.rows, checked.arrays["plan"].tolist(), len(checked.faults)) == ([], [], 2)
