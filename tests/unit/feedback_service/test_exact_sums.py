"""What a cell holds of metrics: taken back exactly, and read from what the first release stored and published."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from contender.contracts.metrics import LABELLED, METRICS, metrics_of
from contender.contracts.tasks import BINARY
from services.feedback_service.domain.cells import Cell
from services.feedback_service.domain.labelling import RowChanges
from services.feedback_service.domain.snapshots import CohortSnapshot
from services.feedback_service.domain.sums import SUMS, sums_of
from services.feedback_service.domain.sums.area import AreaUnderCurve
from services.feedback_service.domain.sums.exact import ExactSums, row_additions
from services.feedback_service.domain.sums.fixed_point import from_fixed_point, pack, to_fixed_point, unpack
from services.feedback_service.domain.sums.metric_sums import LabelledRows

ROWS = LabelledRows(
    "binary", np.array([1.0, 0.0, 1.0]), np.array([0.7, 0.1, 0.3]), None, np.array([3, 3, 9], dtype=np.uint8)
)
BINARY_METRICS = [metric for metric in metrics_of(BINARY, LABELLED) if not metric.needs]
FIRST_RELEASE = [
    41,
    17,
    5,
    {"predictions": 3, "labelled": 2},
    {3: 2, 9: 1},
    [{3: 1, 9: 1}, {"accuracy": {3: b"\x042\x01"}}, {"accuracy": b"\x042\x01"}, {100: 1}, {999: 1}],
    [{}, {}, {}, {}, {}],
]


def test_every_metric_has_a_type_of_sums():
    assert {metric.sums for metric in METRICS} <= set(SUMS)


def test_rows_that_are_taken_back_leave_no_trace():
    rows = row_additions(BINARY_METRICS, ROWS)
    sums = ExactSums()
    sums.add(1, rows[:1])
    before = sums.snapshot()
    sums.add(1, rows[1:])
    assert sums.snapshot() != before
    sums.add(-1, rows[1:])
    assert sums.snapshot() == before
    sums.add(-1, rows[:1])
    assert sums.snapshot() == ExactSums().snapshot()


def test_sums_are_stored_and_read_as_they_were():
    sums = ExactSums()
    sums.add(1, row_additions(BINARY_METRICS, ROWS))
    assert ExactSums.of(sums.entry()).snapshot() == sums.snapshot()


def test_a_metric_that_is_zero_in_every_row_is_still_counted():
    wrong = LabelledRows("binary", np.array([1.0]), np.array([0.1]), None, np.array([3], dtype=np.uint8))
    sums = ExactSums()
    sums.add(1, row_additions(BINARY_METRICS, wrong))
    assert ExactSums.of(sums.entry()).snapshot().totals["accuracy"] == {}


def test_metrics_merge_over_any_parts_of_the_rows():
    rows = row_additions(BINARY_METRICS, ROWS)
    for metric in BINARY_METRICS:
        parts = [ExactSums(), ExactSums(), ExactSums()]
        for part, added in zip(parts, (rows, rows[:1], rows[1:]), strict=True):
            part.add(1, added)
        whole, first, rest = (
            sums_of(metric).read(snapshot.rows, snapshot.totals[metric.totals_name])
            for snapshot in (part.snapshot() for part in parts)
        )
        merged = first + rest
        assert (merged.n, merged.estimate.value) == (3, pytest.approx(whole.estimate.value, nan_ok=True))


def test_a_cell_of_the_first_release_goes_on_counting():
    cell = Cell.decode(msgspec.msgpack.encode(FIRST_RELEASE))
    cell.add(1, RowChanges(labelled=row_additions(BINARY_METRICS, ROWS)[:1]))
    read = Cell.decode(cell.encode(41, 17)).snapshot(60.0)
    assert read.labelled.rows == {3: 2, 9: 1}
    assert read.labelled.totals["accuracy"] == {3: 2.0}
    assert read.labelled.totals["auc"] == {100: 1.0, 1999: 1.0, 9526: 1.0}


def test_bins_of_the_score_that_earlier_releases_counted_are_left_out():
    cell = Cell.decode(msgspec.msgpack.encode(FIRST_RELEASE))
    totals = cell.snapshot(60.0).labelled.totals["auc"]
    assert AreaUnderCurve.read({}, totals).n == 0
    assert AreaUnderCurve.day_totals({}, totals) == {}


def test_a_row_that_an_earlier_release_counted_and_a_correction_took_back_is_no_negative_count():
    assert AreaUnderCurve.read({}, {100: 1, 9526: -1, 9527: 1}).n == 1


def test_metrics_of_one_histogram_store_it_once():
    assert {name for name, _, _ in row_additions(BINARY_METRICS, ROWS)[0].totals} == {
        "log_loss",
        "brier",
        "accuracy",
        "auc",
    }


def test_the_log_loss_is_clipped_where_the_rows_say():
    rows = replace(ROWS, outcomes=np.array([1.0]), scores=np.array([0.0]), buckets=np.array([3]), log_loss_clip=1e-3)
    [added] = row_additions(BINARY_METRICS[:1], rows)
    assert from_fixed_point(added.totals[0][2]) == pytest.approx(-np.log(1e-3))


def test_a_snapshot_of_the_first_release_is_read_until_a_worker_replaces_it():
    sums = [{3: 1}, {"accuracy": {3: 1.0}}, {"accuracy": 1.0}, {100: 1}, {999: 1}]
    old = msgspec.msgpack.encode([60.0, {"predictions": 3}, {3: 3}, sums, [{}, {}, {}, {}, {}]])
    assert msgspec.msgpack.decode(old, type=CohortSnapshot).labelled.totals == {"accuracy": {3: 1.0}}


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.1, 1e300, -5e-324, 2.0**60])
def test_numbers_are_packed_and_read_as_they_were(value):
    assert from_fixed_point(unpack(pack(to_fixed_point(value)))) == value


def test_a_cell_of_the_release_before_has_no_unanswered_and_no_late_rows():
    cell = Cell.decode(msgspec.msgpack.encode([41, 17, 5, {"predictions": 3}, {3: 3}, [{}, {}], [{}, {}]]))
    assert (cell.unanswered, cell.late, cell.rows) == ({}, {}, {3: 3})
    assert Cell.decode(cell.encode(41, 17)) == cell
