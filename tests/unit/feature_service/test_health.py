"""How fresh views are: what a worker reports, and what the reports of all workers say together."""

import msgspec
import pytest

from services.feature_service.health import STALE_S, WINDOW_S, Health, WorkerHealth
from services.feature_service.status import live_workers, view_status


def merged(health: Health, now: float, *lags: float, events: int = 1) -> None:
    health.note_merged(
        {"trade": 1.0}, now=now, sent_at=[now - lag for lag in lags], newest_event_s=now - 5, events=events
    )


def status(*workers: WorkerHealth, now: float = 100.0):
    return view_status("trade@1", "trade", workers, now=now, objective_s=1.0)


def test_rates_are_of_the_last_minute_and_the_lag_is_of_the_slowest_record_merged_last():
    health = Health()
    merged(health, 10.0, 9.0, events=600)
    merged(health, 100.0, 0.2, 0.4, events=120)
    view = status(health.report(100.0))
    assert (view.lag_s, view.behind) == (pytest.approx(0.4), False)
    assert view.events_per_s == 120 / WINDOW_S
    assert view.newest_event_age_s == 5.0


def test_a_view_is_behind_when_its_slowest_records_miss_the_objective():
    health = Health()
    merged(health, 100.0, *[0.1] * 95, *[2.0] * 5)
    assert status(health.report(100.0)).behind


def test_several_workers_are_put_together_and_one_that_is_gone_is_left_out():
    first, second = Health(), Health()
    merged(first, 100.0, 0.1, events=60)
    merged(second, 90.0, 0.1, events=60)
    first.note_late("trade", 2)
    second.note_late("trade", 3)
    second.note_parked(4)
    reports = [msgspec.json.encode(first.report(100.0)), msgspec.json.encode(second.report(90.0))]
    both = live_workers(reports, 100.0)
    assert (status(*both).events_per_s, status(*both).late, sum(worker.parked for worker in both)) == (2.0, 5, 4)
    assert len(live_workers(reports, 90.0 + STALE_S + 1)) == 1


def test_nothing_is_known_of_a_view_without_events():
    view = status(Health().report(100.0))
    assert (view.newest_event_age_s, view.lag_s, view.behind, view.events_per_s) == (None, None, False, 0.0)


def test_a_worker_has_fallen_behind_when_every_record_misses_the_objective_for_a_minute():
    health = Health()
    for now in range(60):
        merged(health, float(now), 30.0)
    assert health.not_ready(59.0) == []
    merged(health, 61.0, 30.0)
    assert "view trade" in health.not_ready(61.0)[0]
    merged(health, 62.0, 30.0, 0.5)
    assert health.not_ready(200.0) == []


def test_one_late_record_and_silence_is_behind_nothing():
    health = Health()
    health.note_read(-30.0, 0.0)
    merged(health, 0.0, 30.0)
    health.note_done(1)
    assert status(health.report(1.0), now=1.0).behind
    assert health.not_ready(3600.0) == []
    assert not status(health.report(10.0), now=10.0).behind
    assert status(health.report(10.0), now=10.0).lag_s is None
    merged(health, 3600.0, 30.0)  # the next one begins anew
    assert health.not_ready(3601.0) == []


def test_a_worker_that_stands_still_with_records_to_merge_is_behind():
    health = Health()
    merged(health, 0.0, 0.1)
    health.note_read(10.0, 10.5)
    health.note_read(9.0, 10.6)  # of another partition
    assert (health.report(11.0).waiting_s, status(health.report(9.9), now=9.9).behind) == (2.0, False)
    assert status(health.report(11.5), now=11.5).behind
    assert health.not_ready(70.0) == []
    assert health.not_ready(71.0) == ["records wait to be merged, the first for 60 s"]
    health.note_done(2)
    assert (health.report(72.0).waiting_s, health.not_ready(72.0), status(health.report(72.0), now=72.0).behind) == (
        0.0,
        [],
        False,
    )


def test_a_view_that_no_worker_feeds_is_behind():
    assert status().behind


def test_a_worker_that_fell_behind_while_records_wait_stays_so():
    health = Health()
    merged(health, 0.0, 30.0)
    health.note_read(0.0, 61.0)
    assert health.not_ready(61.0) == ["view trade has been behind its objective for 61 s"]
