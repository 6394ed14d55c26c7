"""The benchmark of results measures what it says, at a small size."""

import pytest

from benchmarks.results import TARGETS
from benchmarks.results_freshness import Watched
from benchmarks.results_join import FRAME_ROWS, feedback_records, measure_join, prediction_records
from shared.topics import FEEDBACK


def test_the_join_is_measured_with_its_control_and_the_state_that_it_leaves():
    figures = measure_join(frames=20)
    assert {"predictions_per_s", "feedback_per_s", "bytes_per_open_prediction"} <= set(figures) & set(TARGETS)
    assert min(figures.values()) > 0.0
    # Of each row at least its time, its score and its unit's bucket are kept, and with a label more.
    assert 17.0 < figures["bytes_per_open_prediction"] < figures["bytes_per_labelled_prediction"]


def test_every_row_is_reported_once_and_reports_mix_the_rows_of_several_frames():
    predictions = list(prediction_records(20))
    frames = [FEEDBACK.decode(record.value).events for record in feedback_records(predictions)]
    rows = {(event.frame_id, event.row) for events in frames for event in events}
    assert rows == {(record.frame_id, row) for record in predictions for row in range(FRAME_ROWS)}
    assert sum(map(len, frames)) == len(rows)
    assert all(len({event.frame_id for event in events}) > 1 for events in frames)


def test_a_row_is_fresh_once_results_count_the_offset_of_its_record():
    watched = Watched(acknowledged={("f", 0): 10.0}, offsets={("f", 0): ("1", 7), ("f", 1): ("1", 7)})
    watched.read({"0": 9, "1": 6}, now=10.3)
    assert watched.latencies == []
    watched.read({"1": 7}, now=10.5)
    assert watched.latencies == [(10.0, pytest.approx(0.5))]
    watched.acknowledged["f", 1] = 10.6  # counted before its acknowledgement arrived
    watched.read({"1": 7}, now=10.7)
    assert watched.latencies[1][0] == 10.6
    assert not watched.acknowledged
