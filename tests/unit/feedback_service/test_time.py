"""When rows mature: once both topics were read past their window, by the clock that their experiment declares."""

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from services.feedback_service.changes import InMemoryTable
from services.feedback_service.domain.days import DAY_S, day_numbers, utc_offsets
from services.feedback_service.domain.groups import Experiment, GroupEntry, GroupKey
from services.feedback_service.domain.keys import experiment_key
from services.feedback_service.domain.results import results_of
from services.feedback_service.join import Join, Limits
from tests.experiment_revisions import revision
from tests.unit.feedback_service.test_join import (
    WINDOW_S,
    apply,
    block,
    catch_up,
    feedback,
    flush,
    joined,
    numbers,
    predictions,
)

NOW = 1_800_000_000.0
WIDTH_S = 60.0
"""The width of a cohort."""


def look(join: Join, asked_at: float, partitions=(0,), revision: ExperimentRevision | None = None):
    """The results once everything has been read that was sent by `asked_at`."""
    catch_up(join, asked_at)
    for partition in partitions:
        flush(join, partition)
    return results_of("e", revision, [numbers(join, partition) for partition in partitions], asked_at).results


def matured(results) -> list[int]:
    return [variant.matured for variant in results.variants]


def both(rows=1, at=NOW, **changes):
    return block(rows=rows, at=at, **changes), block("challenger", rows=rows, at=at, **changes)


def wall(rows=1, at=NOW, **changes):
    return both(rows, at, clock="wall", **changes)


def test_rows_mature_by_the_wall_clock_while_predictions_pause():
    join = joined()
    apply(join, predictions("f", *wall(), sent_at=NOW + 1))
    due = NOW + WIDTH_S + WINDOW_S
    assert matured(look(join, due - 1)) == [0, 0]
    results = look(join, due)
    assert (matured(results), results.watermark) == ([1, 1], due)


def test_the_wall_clock_stays_behind_by_the_allowed_lateness():
    join = joined(Limits(allowed_lateness_s=30.0))
    apply(join, predictions("f", *wall(), sent_at=NOW + 1))
    due = NOW + WIDTH_S + WINDOW_S
    assert [matured(look(join, at)) for at in (due, due + 30)] == [[0, 0], [1, 1]]


def test_a_clock_moves_on_only_once_both_topics_were_read_to_the_ends_that_they_had():
    join = joined()
    later = NOW + 1_000
    apply(join, predictions("f", *wall(), sent_at=NOW))
    aggregates = join.partitions[0].aggregates
    aggregates.note_ends(aggregates.request_ends(later), predictions=1, feedback=2)
    aggregates.note_ends(aggregates.request_ends(later + 1), predictions=9, feedback=9)  # those are further off
    for offset, caught_up_at in ((0, None), (1, later)):
        apply(join, feedback(("f", 0, 1, NOW + 5), offset=offset, sent_at=later + 5))
        assert aggregates.caught_up_at == caught_up_at
    flush(join)
    assert matured(results_of("e", None, [numbers(join)], later).results) == [1, 1]


def test_records_that_the_topics_do_not_hold_any_more_are_not_waited_for():
    join = joined()
    aggregates = join.partitions[0].aggregates
    aggregates.note_ends(aggregates.request_ends(NOW), predictions=7, feedback=0)
    assert aggregates.caught_up_at is None
    aggregates.begins = msgspec.structs.replace(aggregates.begins, predictions=6)
    aggregates.note_ends(aggregates.request_ends(NOW + 1), predictions=7, feedback=0)
    assert aggregates.caught_up_at == NOW


def test_a_replay_runs_in_its_own_time_and_never_idles_forward():
    join = joined()
    for number, at in enumerate((0.0, 5_000.0, 10_000.0)):
        apply(join, predictions(f"f{number}", *both(at=at), offset=number, sent_at=NOW + number))
    results = look(join, NOW + 3)
    assert (results.watermark, matured(results)) == (10_000.0, [2, 2])
    assert matured(look(join, NOW + 10 * DAY_S)) == [2, 2]


def test_one_row_from_the_future_matures_nothing_and_two_rows_only_what_they_have_reached():
    join = joined()
    apply(join, predictions("f", *both(), sent_at=NOW))
    apply(join, predictions("ahead", block(rows=1, at=NOW + DAY_S), offset=1, sent_at=NOW + 9_000))
    assert look(join, NOW + 9_000).watermark == NOW
    apply(join, predictions("ahead again", block(rows=1, at=NOW + DAY_S), offset=2, sent_at=NOW + 9_500))
    assert look(join, NOW + 9_500).watermark == NOW + 9_000  # when the first of the two was sent


def test_a_row_that_is_read_again_after_a_crash_stays_one_row():
    table = InMemoryTable()
    frames = [
        predictions("f", *both(), sent_at=NOW),
        predictions("ahead", block(rows=1, at=NOW + DAY_S), offset=1, sent_at=NOW + 9_000),
    ]
    for _ in range(3):
        join = Join(lambda _: table)
        join.assign([0])
        for frame in frames:
            apply(join, frame)
        table.write(join.partitions[0].flush()[:-1])  # all but the marks
    assert look(join, NOW + 9_000).watermark == NOW


def test_a_replay_waits_for_what_was_sent_before_the_rows_that_move_its_clock():
    join = joined()
    apply(join, predictions("old", *both(at=0.0), sent_at=NOW))
    apply(join, predictions("new", *both(at=10_000.0), offset=1, sent_at=NOW + 50))
    assert matured(look(join, NOW + 49)) == [0, 0]
    assert matured(look(join, NOW + 50)) == [1, 1]


def test_a_partition_without_new_rows_of_a_replay_is_idle_and_not_behind():
    join = joined()
    apply(join, predictions("old", *both(at=0.0), sent_at=NOW), partition=1)
    apply(join, predictions("new", *both(at=10_000.0), sent_at=NOW + 1))
    assert matured(look(join, NOW + 2, partitions=(0, 1))) == [1, 1]
    assert numbers(join, 1).groups[0].watermark == 10_000.0


REVISION = revision(
    champion="champion",
    variants=[VariantAllocation("champion", "v1", 0.5), VariantAllocation("challenger", "v2", 0.5)],
    window_s=WINDOW_S,
    changed_at=NOW,
    started_at=NOW,
)


def following(revisions: dict[str, ExperimentRevision]) -> Join:
    tables = [InMemoryTable(), InMemoryTable()]
    join = Join(tables.__getitem__, revisions=revisions)
    join.assign([0, 1])
    return join


def test_frames_of_an_older_release_go_by_the_clock_of_their_revision():
    join = following({"e": REVISION})
    apply(join, predictions("f", *both(clock="event"), sent_at=NOW))
    assert matured(look(join, NOW + WINDOW_S + WIDTH_S)) == [1, 1]


def test_a_label_for_an_old_row_does_not_bring_back_its_clock():
    join = joined()
    apply(join, predictions("old", *both(clock="event"), sent_at=NOW))
    apply(join, predictions("new", *wall(), offset=1, sent_at=NOW))
    apply(join, feedback(("old", 0, 1, NOW + 5), sent_at=NOW + 6))
    assert {group.clock for group in numbers(join).groups} == {"wall"}


def test_the_last_rows_of_a_stopped_replay_mature_by_the_wall_clock():
    running = msgspec.structs.replace(REVISION, clock="event")
    revisions = {"e": running}
    join = following(revisions)
    apply(join, predictions("f", *both(at=0.0), sent_at=NOW))
    assert matured(look(join, NOW + DAY_S)) == [0, 0]
    revisions["e"] = msgspec.structs.replace(running, status="stopped", stopped_at=NOW + DAY_S)
    assert [matured(look(join, NOW + DAY_S + s)) for s in (WINDOW_S, WINDOW_S + WIDTH_S)] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("clock", ["wall", "event"])
def test_the_clock_of_a_stopped_experiment_stops_once_its_last_day_is_whole(clock):
    stopped = msgspec.structs.replace(REVISION, status="stopped", stopped_at=NOW + 1, clock=clock)
    join = following({"e": stopped})
    apply(join, predictions("f", *both(clock=clock), sent_at=NOW))
    assert NOW + DAY_S + WINDOW_S + WIDTH_S <= look(join, NOW + 3 * DAY_S).watermark <= NOW + 3 * DAY_S
    flush(join)
    look(join, NOW + 30 * DAY_S)
    assert flush(join) == []


def test_an_idle_experiment_is_written_once_a_cohort_width_and_not_more_often():
    join = joined()
    apply(join, predictions("f", *wall(), sent_at=NOW))
    writes = []
    for seconds in range(0, 1_200, 10):
        catch_up(join, NOW + seconds)
        writes.append(len(flush(join)) > 0)
    assert sum(writes) <= 1_200 / WIDTH_S + 1


def test_a_watermark_never_moves_back_when_a_worker_starts_again():
    table = InMemoryTable()
    join = Join(lambda _: table)
    join.assign([0])
    apply(join, predictions("f", *wall(), sent_at=NOW))
    assert look(join, NOW + 500).watermark == NOW + 500
    again = Join(lambda _: table)
    again.assign([0])
    assert numbers(again).groups == numbers(join).groups


@pytest.mark.parametrize("durable", range(12))
def test_a_watermark_is_never_ahead_of_what_was_folded(durable):
    table = InMemoryTable()
    join = Join(lambda _: table)
    join.assign([0])
    apply(join, predictions("f", *wall(), sent_at=NOW))
    table.write(join.partitions[0].flush())
    join.partitions[0].flushed()
    catch_up(join, NOW + 500)
    table.write(join.partitions[0].flush()[:durable])
    again = Join(lambda _: table)
    again.assign([0])
    for group in numbers(again).groups:
        assert all(cohort.is_matured or cohort.matures_at > group.watermark for cohort in group.cohorts)


def test_the_sentence_says_what_is_waited_for_and_until_when():
    join = joined()
    apply(join, predictions("f", *wall(rows=200), sent_at=NOW))
    sentence = look(join, NOW + 5, revision=REVISION).verdict.sentence
    assert sentence.endswith("400 rows wait for their window to pass, until 15 January 2027, 08:05 UTC.")
    assert "wait" not in look(join, NOW + 5_000, revision=REVISION).verdict.sentence


@pytest.mark.parametrize(("started_at", "since"), [(None, NOW), (NOW - 1, NOW), (NOW + 1, None)])
def test_results_say_since_when_they_hold_unless_the_experiment_began_later(started_at, since):
    join = joined()
    apply(join, predictions("f", *both(), offset=3, sent_at=NOW))
    revision = msgspec.structs.replace(REVISION, started_at=started_at)
    assert results_of("e", revision, [numbers(join)], NOW).results.since == since


def test_an_experiment_that_an_older_release_has_stored_goes_on_where_it_was():
    key = GroupKey("e", 0, "champion", "binary", WINDOW_S, "excluded")
    value = msgspec.msgpack.encode([NOW, NOW + 1, [[key, "m", ["v"], 0.5]]])
    experiment = Experiment.decode(value)
    assert (experiment.newest, experiment.arrived_at, experiment.clock, experiment.time_zone) == (
        NOW,
        NOW + 1,
        "event",
        "UTC",
    )
    assert experiment.groups[key].days is None
    assert Experiment.decode(experiment.encode()) == experiment


def test_the_days_of_an_older_release_are_looked_up():
    join = joined()
    for number, at in enumerate((0.0, DAY_S, 3 * DAY_S)):
        apply(join, predictions(f"f{number}", *both(at=at), offset=number, sent_at=NOW))
    look(join, NOW)
    table = join.partitions[0].table.local
    experiment = join.partitions[0].aggregates.experiments["e"]
    old = [[group.key, group.model, sorted(group.versions), 1.0] for group in experiment.groups.values()]
    assert GroupEntry.__struct_fields__[4:] == ("days",)
    expected = numbers(join)
    table.write([(experiment_key("e"), msgspec.msgpack.encode([experiment.newest, experiment.arrived_at, old]))])
    again = Join(lambda _: table)
    again.assign([0])
    assert [group.days for group in numbers(again).groups] == [group.days for group in expected.groups]
    assert [[day.day for day in group.days] for group in expected.groups] == [[0, 1], [0, 1]]


ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("span_s", [100.0, 2 * DAY_S, 700 * DAY_S])
def test_a_day_begins_at_midnight_in_the_time_zone(zone, span_s):
    chance = np.random.default_rng(4)
    for begin in (0.0, 1_325_000_000.0, NOW, NOW + 60 * DAY_S):
        times = begin + chance.random(300) * span_s
        days = day_numbers(times, utc_offsets(times, zone))
        local = [datetime.fromtimestamp(time, UTC).astimezone(ZoneInfo(zone)) for time in times.tolist()]
        assert days.tolist() == [time.toordinal() - datetime(1970, 1, 1, tzinfo=UTC).toordinal() for time in local]


def test_rows_of_a_frame_in_which_the_clocks_change_keep_their_own_days():
    change = datetime(2027, 3, 14, 7, tzinfo=UTC).timestamp()  # in New York, from 2 to 3 o'clock
    times = np.arange(change - DAY_S, change + DAY_S, 600.0)
    offsets = utc_offsets(times, "America/New_York")
    assert set(offsets.tolist()) == {-5 * 3600, -4 * 3600}
    days = day_numbers(times, offsets)
    assert [b - a for a, b in pairwise(np.flatnonzero(np.diff(days)).tolist())] == [23 * 6]  # a day of 23 hours


@pytest.mark.parametrize("time", [-253_402_300_800.0, 253_402_300_799.0, -0.5])
def test_rows_of_any_time_have_a_day(time):
    times = np.array([time])
    (day,) = day_numbers(times, utc_offsets(times, "Asia/Kolkata"))
    assert abs(day - time / DAY_S) <= 2


def test_days_are_published_in_the_experiments_time_zone():
    join = joined()
    evening = 3 * DAY_S + 2 * 3600.0  # still the day before in New York
    apply(join, predictions("f", *both(at=evening, time_zone="America/New_York"), sent_at=NOW))
    apply(join, predictions("last", *both(at=evening + DAY_S, time_zone="America/New_York"), offset=1, sent_at=NOW))
    look(join, NOW)
    for group in numbers(join).groups:
        assert ([day.day for day in group.days], group.time_zone) == ([2], "America/New_York")
