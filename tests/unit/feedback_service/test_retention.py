"""Entries are deleted after their retention; what comes for them afterwards is counted and changes nothing else."""

import pytest

from services.feedback_service.domain.keys import frame_key, waiting_key
from services.feedback_service.join import Join, Limits
from shared.ids import new_frame_id
from tests.unit.feedback_service.test_join import WINDOW_S, apply, block, feedback, flush, joined, numbers, predictions

NOW = 1_800_000_000.0
DAY_S = 86_400.0
ID = new_frame_id(NOW)


def kept(join: Join) -> int:
    """Entries of frames, reports and whatever waits."""
    values = join.partitions[0].table.local.values
    return sum(key[:2] in (b"f/", b"l/", b"w/") for key in values)


def test_a_frame_and_its_reports_go_after_twice_the_window_and_the_retention():
    join = joined(Limits(retention_s=50.0))
    apply(join, predictions(ID, block(rows=70, at=NOW), sent_at=NOW))
    apply(join, feedback((ID, 0, 1, NOW + 5), (ID, 69, 1, NOW + 5), sent_at=NOW + 6))
    flush(join)
    assert kept(join) == 3
    flush(join, expire_until=NOW + 2 * WINDOW_S + 49, expire_limit=10)
    assert kept(join) == 3
    before = numbers(join)
    flush(join, expire_until=NOW + 2 * WINDOW_S + 50, expire_limit=10)
    assert kept(join) == 0
    assert numbers(join).groups == before.groups


def test_a_label_for_a_prediction_that_was_deleted_counts_as_late():
    join = joined()
    late = NOW + 2 * WINDOW_S + DAY_S + 1
    apply(join, predictions(ID, block(rows=1, at=NOW), sent_at=NOW))
    flush(join, expire_until=late, expire_limit=10)
    flush(join, expire_until=late, expire_limit=10)
    apply(join, feedback((ID, 0, 1, late), sent_at=late))
    counts = numbers(join).counts
    assert (counts.expired, counts.unmatched, counts.labelled, counts.reports) == (1, 0, 0, 1)
    assert join.partitions[0].waiting == 0


def test_a_few_entries_are_deleted_at_a_time():
    join = joined(Limits(retention_s=0.0))
    for number in range(10):
        apply(join, predictions(new_frame_id(NOW + number), block(rows=1), offset=number, sent_at=NOW + number))
    flush(join)
    left = []
    for _ in range(4):
        flush(join, expire_until=NOW + DAY_S, expire_limit=3)
        left.append(kept(join))
    assert left == [7, 4, 1, 0]


def test_the_reports_of_large_frames_count_towards_what_is_deleted_at_a_time():
    join = joined(Limits(retention_s=0.0))
    for number in range(4):
        frame_id = new_frame_id(NOW + number)
        apply(join, predictions(frame_id, block(rows=200, at=NOW), offset=number, sent_at=NOW + number))
        apply(join, feedback(*((frame_id, row, 1, NOW + 5) for row in (0, 99, 199)), offset=number, sent_at=NOW + 9))
    flush(join)
    left = []
    for _ in range(3):
        flush(join, expire_until=NOW + DAY_S, expire_limit=5)
        left.append(kept(join))
    assert left == [8, 0, 0]


def test_reports_wait_for_their_prediction_for_a_time_and_are_given_up_then():
    join = joined(Limits(waiting_s=100.0))
    apply(join, feedback((ID, 0, 1, NOW), (ID, 70, 1, NOW), sent_at=NOW))
    flush(join, expire_until=NOW + 99, expire_limit=10)
    assert (kept(join), join.partitions[0].waiting) == (3, 2)
    flush(join, expire_until=NOW + 100, expire_limit=10)
    assert (kept(join), join.partitions[0].waiting) == (0, 0)
    apply(join, predictions(ID, block(rows=1, at=NOW), sent_at=NOW + 101))
    counts = numbers(join).counts
    assert (counts.unmatched, counts.labelled) == (2, 0)


@pytest.mark.parametrize("durable", range(6))
def test_reports_that_a_crash_gave_up_in_part_leave_no_trace(durable):
    limits = Limits(waiting_s=100.0)
    join = joined(limits)
    apply(join, feedback((ID, 0, 1, NOW), (ID, 70, 1, NOW), sent_at=NOW))
    flush(join)
    table = join.partitions[0].table.local
    table.write(join.partitions[0].flush(NOW + 100, 10)[:durable])
    again = Join(lambda _: table, limits)
    again.assign([0])
    flush(again, expire_until=NOW + 100, expire_limit=10)
    assert kept(again) == 0
    apply(again, predictions(ID, block(rows=71, at=NOW), sent_at=NOW + 101))
    apply(again, feedback((ID, 0, 0, NOW + 71), (ID, 70, 0, NOW + 71), offset=1, sent_at=NOW + 102))
    counts = numbers(again).counts
    assert (counts.labelled, counts.corrections, counts.unmatched) == (2, 0, 2)


def test_reports_that_found_their_prediction_stay_with_it():
    join = joined(Limits(waiting_s=100.0))
    apply(join, feedback((ID, 0, 1, NOW + 1), sent_at=NOW))
    apply(join, predictions(ID, block(rows=1, at=NOW), sent_at=NOW + 1))
    flush(join)
    flush(join, expire_until=NOW + 1000, expire_limit=10)
    values = join.partitions[0].table.local.values
    assert (frame_key(ID) in values, waiting_key(ID) in values) == (True, False)
    apply(join, feedback((ID, 0, 0, NOW + 2), offset=1, sent_at=NOW + 3))
    assert (numbers(join).counts.labelled, numbers(join).counts.corrections) == (1, 1)


def test_more_than_may_wait_are_dropped_and_counted():
    join = joined(Limits(waiting_reports=5))
    for number in range(9):
        apply(join, feedback((f"{number:026}", 0, 1, NOW), offset=number))
    flush(join)
    assert (numbers(join).counts.unmatched, kept(join)) == (9, 10)
    apply(join, predictions(ID, block(rows=1, at=NOW)))
    apply(join, feedback((ID, 0, 1, NOW + 1), offset=9))
    assert numbers(join).counts.labelled == 1


def test_while_predictions_are_unread_any_number_of_reports_waits():
    join = joined(Limits(waiting_reports=5))
    join.partitions[0].predictions_end = 1
    for number in range(9):
        apply(join, feedback((f"{number:026}", 0, 1, NOW), offset=number))
    assert join.partitions[0].waiting == 9


@pytest.mark.parametrize("end", [1, float("inf")])
def test_an_old_label_that_is_read_before_its_prediction_counts_all_the_same(end):
    join = joined(predictions_end=end)
    reported_at = NOW + 2 * DAY_S
    apply(join, feedback((ID, 0, 1, reported_at), sent_at=reported_at))
    assert numbers(join).counts.unmatched == 1
    apply(join, predictions(ID, block(rows=1, at=NOW, window_s=7 * DAY_S), sent_at=NOW))
    counts = numbers(join).counts
    assert (counts.labelled, counts.expired, counts.unmatched) == (1, 0, 0)


@pytest.mark.parametrize(
    ("report", "count"),
    [
        ((ID, 0, 1, NOW + 301), "refused"),
        ((new_frame_id(NOW + 301), 0, 1, NOW), "refused"),
        ((new_frame_id(NOW - DAY_S - 1), 0, 1, NOW), "expired"),
        ((new_frame_id(NOW - DAY_S + 1), 0, 1, NOW), "unmatched"),
        ((ID, 0, 1, NOW - 3), "refused"),
        ((ID, 0, 1, NOW - 1), "labelled"),
    ],
)
def test_a_report_is_counted_by_its_time_and_by_that_of_its_id(report, count):
    join = joined()
    apply(join, predictions(ID, block(rows=1, at=NOW), sent_at=NOW))
    apply(join, feedback(report, sent_at=NOW))
    counts = numbers(join).counts
    assert (getattr(counts, count), counts.reports) == (1, 1)


def test_counts_say_since_when_they_hold_where_older_predictions_are_gone():
    join = joined()
    apply(join, predictions("f", block(), offset=7, sent_at=NOW))
    apply(join, predictions("g", block(), offset=8, sent_at=NOW + 1))
    assert numbers(join).status.since == NOW
    whole = joined()
    apply(whole, predictions("f", block(), sent_at=NOW))
    assert numbers(whole).status.since is None
