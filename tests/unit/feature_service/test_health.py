"""How fresh views are: what a worker keeps of its last minute, and what all of them tell together."""

import msgspec
import pytest

from services.feature_service.health import STALE_S, WINDOW_S, Health, WorkerHealth, alive, status_of


def merged(health: Health, now: float, *lags: float, events: int = 1) -> None:
    health.merged({"trade": 1.0}, now=now, sent_at=[now - lag for lag in lags], newest_event_s=now - 5, events=events)


def status(*workers: WorkerHealth, now: float = 100.0):
    return status_of("trade@1", "trade", workers, now=now, objective_s=1.0, complete=True, entities=3)


def test_rates_and_lags_are_of_the_last_minute():
    health = Health()
    merged(health, 10.0, 9.0, events=600)
    merged(health, 100.0, 0.2, 0.4, events=120)
    found = status(health.told(100.0))
    assert (found.lag_p50_s, found.behind) == (pytest.approx(0.4, abs=0.21), False)
    assert found.events_per_s == 120 / WINDOW_S
    assert found.newest_event_age_s == 5.0


def test_a_view_is_behind_when_its_slowest_records_miss_the_objective():
    health = Health()
    merged(health, 100.0, *[0.1] * 95, *[2.0] * 5)
    assert status(health.told(100.0)).behind


def test_several_workers_are_put_together_and_one_that_is_gone_is_left_out():
    one, other = Health(), Health()
    merged(one, 100.0, 0.1, events=60)
    merged(other, 90.0, 0.1, events=60)
    one.late("trade", 2)
    other.late("trade", 3)
    other.set_aside(4)
    told = {"a": msgspec.json.encode(one.told(100.0)), "b": msgspec.json.encode(other.told(90.0))}
    both = alive(told, 100.0)
    assert (status(*both).events_per_s, status(*both).late, sum(worker.parked for worker in both)) == (2.0, 5, 4)
    assert len(alive(told, 90.0 + STALE_S + 1)) == 1


def test_nothing_is_known_of_a_view_without_events():
    found = status(Health().told(100.0))
    assert (found.newest_event_age_s, found.lag_p99_s, found.behind, found.events_per_s) == (None, None, False, 0.0)


def test_a_worker_has_fallen_behind_when_every_record_misses_the_objective_for_a_minute():
    health = Health()
    for now in range(60):
        merged(health, float(now), 30.0)
    assert health.behind(59.0) == []
    merged(health, 61.0, 30.0)
    assert "view trade" in health.behind(61.0)[0]
    merged(health, 62.0, 30.0, 0.5)
    assert health.behind(200.0) == []


def test_one_late_record_and_silence_is_behind_nothing():
    health = Health()
    health.read(-30.0, 0.0)
    merged(health, 0.0, 30.0)
    health.done(1)
    assert status(health.told(1.0), now=1.0).behind
    assert health.behind(3600.0) == []
    assert not status(health.told(10.0), now=10.0).behind
    assert status(health.told(10.0), now=10.0).lag_p99_s == 30.0
    merged(health, 3600.0, 30.0)  # the next one begins anew
    assert health.behind(3601.0) == []


def test_a_worker_that_stands_still_with_records_to_merge_is_behind():
    health = Health()
    merged(health, 0.0, 0.1)
    health.read(10.0, 10.5)
    health.read(9.0, 10.6)  # of another partition
    assert (health.told(11.0).waiting_s, status(health.told(9.9), now=9.9).behind) == (2.0, False)
    assert status(health.told(11.5), now=11.5).behind
    assert health.behind(70.0) == []
    assert health.behind(71.0) == ["records wait to be merged, the first for 60 s"]
    health.done(2)
    assert (health.told(72.0).waiting_s, health.behind(72.0), status(health.told(72.0), now=72.0).behind) == (
        0.0,
        [],
        False,
    )


def test_a_view_that_no_worker_feeds_is_behind():
    assert status().behind


def test_a_worker_that_fell_behind_while_records_wait_stays_so():
    health = Health()
    merged(health, 0.0, 30.0)
    health.read(0.0, 61.0)
    assert health.behind(61.0) == ["view trade has been behind its objective for 61 s"]
