"""Which label is judged: the one that was served, where the router has recorded it."""

import pytest

from contender.contracts.tasks import REGRESSION
from contender.contracts.tasks.task import class_number
from tests.unit.feedback_service.test_join import apply, block, feedback, joined, numbers, predictions


def accuracy(*blocks, reports) -> float:
    """The sum of the metric over all labelled rows."""
    join = joined()
    apply(join, predictions("f", *blocks))
    apply(join, feedback(*(("f", row, outcome, 5.0) for row, outcome in enumerate(reports))))
    cohorts = [cohort for group in numbers(join).groups for cohort in group.cohorts]
    return sum(sum(cohort.labelled.totals["accuracy"].values()) for cohort in cohorts)


@pytest.mark.parametrize(
    ("changes", "reports", "right"),
    [
        ({"score": [0.3, 0.3], "label": [1, 0]}, [1, 1], 1.0),
        ({"score": [0.3, 0.3]}, [1, 0], 1.0),
        ({"score": [0.5, 0.5], "classes": ["no", "yes"], "label": ["yes", "yes"]}, ["yes", "no"], 1.0),
        ({"score": [0.5, 0.5], "classes": ["no", "yes"]}, ["no", "no"], 2.0),
        ({"score": [0.9, 0.9], "label": [True, False]}, [1, 0], 2.0),
        ({"score": [0.9, 0.9], "label": ["unknown", None]}, [1, 0], 0.0),
        ({"score": [0.9, 0.9], "classes": [], "label": [0, 1]}, [0, 1], 2.0),
        (
            {"task": "multiclass", "classes": ["a", "b", "c"], "score": [[0.4, 0.4, 0.2]] * 2, "label": ["b", "a"]},
            ["b", "b"],
            1.0,
        ),
        (
            {"task": "multiclass", "classes": ["x" * 900, "b"], "score": [[0.4, 0.6]] * 2, "label": ["x" * 900, "b"]},
            ["x" * 900, "x" * 900],
            1.0,
        ),
    ],
)
def test_accuracy_is_that_of_the_label_that_was_served(changes, reports, right):
    assert accuracy(block(**changes), reports=reports) == right


def test_a_block_with_labels_for_some_rows_only_is_refused():
    join = joined()
    with pytest.raises(ValueError, match=r"blocks\[0\].label has 1 entries for 2 rows"):
        apply(join, predictions("f", block(label=[1])))


@pytest.mark.parametrize(
    ("outcome", "classes", "number"),
    [
        ("1", [0, 1], 1.0),
        ("1.0", [0, 1], 1.0),
        (1.0, [0, 1], 1.0),
        (True, [0, 1], 1.0),
        ("true", [False, True], 1.0),
        (True, ["false", "true"], 1.0),
        (1.0, ["0", "1"], 1.0),
        (2.5, ["2.5", "3"], 0.0),
        ("1", [1, "1"], 1.0),  # a class stands for itself
        ("01", [0, 1], None),
        ("nan", [0, 1], None),
        ("1e400", [0, 1], None),
        ("Yes", ["no", "yes"], None),
        ("", [0, 1], None),
        ("\ud800", [0, 1], None),
        ("[1]", [0, 1], None),
    ],
)
def test_an_outcome_is_converted_where_nothing_is_lost(outcome, classes, number):
    assert class_number(outcome, classes) == number


@pytest.mark.parametrize(
    ("outcome", "value"),
    [("2.5", 2.5), (2, 2.0), ("-3", -3.0), ("true", None), (True, None), ("2,5", None), ("inf", None), ("", None)],
)
def test_a_regressions_outcome_is_a_number_or_spells_one(outcome, value):
    assert REGRESSION.outcome_value(outcome, []) == value


def test_refused_outcomes_are_told_apart_by_their_reason():
    join = joined()
    apply(join, predictions("f", block(rows=3, at=100.0, label_probability=[1.0, 0.0, 0.5])))
    apply(join, feedback(("f", 0, 1, 90.0), ("f", 0, "odd", 120.0), ("f", 1, 1, 120.0), ("f", 2, 0, 120.0)))
    (cohort,) = [cohort for group in numbers(join).groups for cohort in group.cohorts]
    counts = cohort.counts
    assert (counts.labelled, counts.refused, counts.early, counts.hidden) == (1, 3, 1, 1)
    assert counts.reports == 4
