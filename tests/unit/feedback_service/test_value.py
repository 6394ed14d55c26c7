"""The metric `value`, its curve over thresholds, and winsorised errors, from the records of the topics to results."""

import operator
import random
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import Results
from services.feedback_service.domain.entries import CHUNK_ROWS
from services.feedback_service.domain.formulas import THRESHOLDS
from services.feedback_service.domain.results import results_of
from tests.unit.feedback_service.test_join import (
    Worker,
    apply,
    at_rest,
    block,
    catch_up,
    feedback,
    flush,
    joined,
    numbers,
    predictions,
)
from tests.unit.feedback_service.worlds import World

FORMULA = "if(outcome == 'late', 20, 0) - if(score > 0.3, 2 * plan, 0)"
CLASSES = {"classes": ["on time", "late"]}


def declared(**design) -> ExperimentRevision:
    return msgspec.structs.replace(World().revision, window_s=100.0, **design)


def results(join, **design) -> Results:
    """What readers see once all rows have matured."""
    catch_up(join)
    flush(join)
    look = results_of("e", declared(**design), [numbers(join)], 1e9)
    assert look is not None
    return look.results


def one_frame(*reports, **changes):
    """A join of one block, with reports (row, outcome)."""
    join = joined()
    apply(join, predictions("f", block(**{"clock": "wall", **changes})))
    apply(join, feedback(*(("f", row, outcome, 5.0) for row, outcome in reports)))
    return join


def totals(join) -> dict[str, float]:
    """The sum of each metric over the labelled rows."""
    [group] = numbers(join).groups
    sums: dict[str, float] = {}
    for cohort in group.cohorts:
        for name, by_key in cohort.labelled.totals.items():
            sums[name] = sums.get(name, 0.0) + sum(by_key.values())
    return sums


def refused(join) -> int:
    return numbers(join).counts.refused


def test_a_row_is_worth_what_the_formula_says():
    join = one_frame(
        (0, "late"),
        (1, "on time"),
        score=[0.2, 0.7],
        value=FORMULA,
        inputs={"plan": [1, 3], "colour": ["r", "g"]},
        **CLASSES,
    )
    assert totals(join)["value"] == 20.0 - 6.0
    [kept] = [frame.blocks[0] for frame in [join.partitions[0]._frame("f")]]
    assert kept.inputs == {"plan": [1, 3]}


@pytest.mark.parametrize(
    ("formula", "reports", "changes", "value"),
    [
        ("label == outcome", ["late", "late"], {"label": ["late", "on time"], **CLASSES}, 1.0),
        ("if(label == null, 5, 0)", ["late", "late"], {"label": ["unknown", "late"], **CLASSES}, 5.0),
        ("outcome == 1", [True, "0"], {}, 1.0),
        ("outcome * 3", [True, True], {"classes": [False, True]}, 6.0),
        (
            "if(outcome == label, score, 0)",
            ["b", "b"],
            {"task": "multiclass", "classes": ["a", "b", "c"], "score": [[0.25, 0.5, 0.25]] * 2, "label": ["b", "a"]},
            0.5,
        ),
        ("outcome - score + label", ["2.5", 1], {"task": "regression", "classes": [], "score": [1.0, 3.0]}, 3.5),
        ("if(lacking == null, 1, 2)", [1, 1], {}, 2.0),
    ],
)
def test_a_formula_knows_outcome_label_and_score_as_callers_do(formula, reports, changes, value):
    join = one_frame(*enumerate(reports), value=formula, **changes)
    assert totals(join)["value"] == value


def test_a_label_that_the_formula_has_no_value_with_is_refused():
    join = one_frame((0, 1), (1, 1), value="1 / plan", inputs={"plan": [0, 4]})
    assert totals(join)["value"] == 0.25
    assert refused(join) == 1
    assert sum(cohort.counts.labelled for group in numbers(join).groups for cohort in group.cohorts) == 1


def test_a_missing_label_counts_as_negative_only_where_that_has_a_value():
    join = one_frame((0, 1), rows=3, value="10 * outcome - plan", inputs={"plan": [1, 2, None]}, missing="negative")
    [group] = numbers(join).groups
    assert sum(sum(cohort.assumed.rows.values()) for cohort in group.cohorts) == 1
    found = results(join, value="10 * outcome - plan", missing="negative")
    assert found.variants[0].metrics["value"].mean == pytest.approx((9.0 - 2.0) / 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": "1 +"}, "value"),
        ({"error_limit": -1.0}, "error_limit"),
        ({"value": "plan", "inputs": {"plan": [1]}}, r"inputs.plan has 1 entries for 2 rows"),
    ],
)
def test_a_block_whose_formula_or_limit_is_impossible_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        apply(joined(), predictions("f", block(**changes)))


def test_only_declared_metrics_are_counted_and_shown():
    assert not totals(one_frame((0, 1))).keys() & {"value"}
    regression = {"task": "regression", "classes": [], "score": [1.0, 3.0]}
    join = one_frame((0, 2.0), (1, 90.0), error_limit=10.0, **regression)
    assert totals(join) == {
        "absolute_error": 88.0,
        "squared_error": 1.0 + 87.0**2,
        "winsorised_absolute_error": 11.0,
        "winsorised_squared_error": 101.0,
    }
    shown = [
        set(results(join, metric="absolute_error", error_limit=limit).variants[0].metrics) for limit in (None, 10.0)
    ]
    assert shown[1] - shown[0] == {"winsorised_absolute_error", "winsorised_squared_error"}
    assert "value" not in shown[1]


def curve_of(rows: list[tuple[float, int, float]], acts: Callable[[float, float], bool]) -> list[float]:
    """The mean value of rows (score, outcome, plan) at each threshold, computed row by row."""
    return [
        float(
            np.mean([20.0 * outcome - (2.0 * plan if acts(score, threshold) else 0.0) for score, outcome, plan in rows])
        )
        for threshold in THRESHOLDS
    ]


def seeded_rows(n: int) -> list[tuple[float, int, float]]:
    rng = np.random.default_rng(7)
    scores = np.where(rng.random(n) < 0.3, rng.integers(0, 21, n) / 20, rng.random(n))  # some at a threshold itself
    return [
        (float(s), int(o), float(p)) for s, o, p in zip(scores, rng.integers(0, 2, n), rng.normal(size=n), strict=True)
    ]


@pytest.mark.parametrize("missing", ["excluded", "negative"])
@pytest.mark.parametrize(("condition", "acts"), [("0.3 < score", operator.gt), ("score >= 0.3", operator.ge)])
def test_the_curve_is_the_mean_value_at_every_threshold(missing, condition, acts):
    rows = seeded_rows(200)
    labelled = [row for row in rows if row[1] or missing == "excluded"]
    join = one_frame(
        *((index, row[1]) for index, row in enumerate(rows) if row in labelled),
        rows=200,
        at=0.0,
        score=[row[0] for row in rows],
        time=[0.0] * 200,
        inputs={"plan": [row[2] for row in rows]},
        value=f"if(outcome == 1, 20, 0) - if({condition}, 2 * plan, 0)",
        missing=missing,
    )
    found = results(join, value="declared", missing=missing)
    [curve] = [points for variant, points in found.value_curve.items() if variant == "champion"]
    assert [point.threshold for point in curve] == list(THRESHOLDS)
    assert [point.value for point in curve] == pytest.approx(curve_of(rows, acts), abs=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": "20 * outcome"},
        {"value": "if(score > 0.3, 1, 0)", "task": "regression", "classes": [], "score": [1.0, 3.0]},
        {"value": "if(score > 0.3, 1 / 0, 0)", "score": [0.1, 0.2]},
    ],
)
def test_without_a_threshold_a_probability_or_a_value_there_is_no_curve(changes):
    join = one_frame((0, 1), (1, 1), **changes)
    assert results(join, metric="value", value=changes["value"]).value_curve == {}
    assert "value" in totals(join)


@pytest.mark.parametrize("seed", range(6))
def test_values_and_curves_are_exact_whatever_the_order_and_the_crashes(seed):
    rows = 3 * CHUNK_ROWS // 2
    records = [
        predictions(
            f"f{number}",
            block(
                rows=rows,
                at=float(number),
                value="if(outcome == 1, 7.3, 0) - if(score > 0.3, 2 / plan, 0)",
                inputs={"plan": [row % 5 for row in range(rows)]},
            ),
            offset=number,
        )
        for number in range(3)
    ]
    chance = random.Random(seed)
    reports = [
        feedback(
            *((f"f{chance.randrange(3)}", chance.randrange(rows), chance.randrange(2), 9.0) for _ in range(40)),
            offset=number,
        )
        for number in range(8)
    ]
    topics = {"predictions": records, "feedback": reports}
    straight = Worker(topics, random.Random(0))
    while straight.step():
        pass
    wanted = at_rest(straight.finish())
    assert at_rest(Worker(topics, chance).run()) == wanted
    assert any(cohort.ledgers for group in wanted.groups for cohort in group.cohorts)
