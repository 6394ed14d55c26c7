"""An experiment's clock: its newest prediction, the wall clock while traffic pauses, and nothing from the future."""

import msgspec
import pytest

from contender.contracts.ab_router import ExperimentRevision, VariantAllocation
from services.feedback_service.domain.results import results_of
from services.feedback_service.join import Join
from tests.experiment_revisions import revision
from tests.unit.feedback_service.test_join import WINDOW_S, apply, block, flush, joined, numbers, predictions

NOW = 1_800_000_000.0


def results(join: Join, now: float, caught_up_at: float | None = None, revision: ExperimentRevision | None = None):
    snapshot = numbers(join)
    status = msgspec.structs.replace(snapshot.status, caught_up_at=caught_up_at)
    return results_of("e", revision, [msgspec.structs.replace(snapshot, status=status)], now)


def both(rows=1, at=NOW, **changes):
    return block(rows=rows, at=at, **changes), block("challenger", rows=rows, at=at, **changes)


def test_a_row_from_the_future_matures_nothing():
    join = joined()
    apply(join, predictions("ahead", block(rows=1, at=NOW + 299), sent_at=NOW))
    apply(join, predictions("now", *both(), offset=1, sent_at=NOW + 2))
    answer = results(join, NOW + 5, NOW + 5)
    assert answer.watermark == NOW + 5
    assert [variant.matured for variant in answer.variants] == [0, 0]


def test_rows_mature_by_the_wall_clock_while_traffic_pauses():
    join = joined()
    apply(join, predictions("f", *both(), sent_at=NOW + 1))
    due = NOW + 60 + WINDOW_S + 1
    for now, matured in ((NOW + 30, 0), (due, 1)):
        assert [variant.matured for variant in results(join, now, now).variants] == [matured, matured]


def test_the_wall_clock_moves_on_only_as_far_as_both_topics_were_read():
    join = joined()
    apply(join, predictions("f", *both(), sent_at=NOW + 1))
    assert results(join, NOW + 1000, NOW + 11).watermark == NOW + 10
    assert results(join, NOW + 1000).watermark == NOW


def test_a_replay_runs_in_its_own_time():
    join = joined()
    for number, at in enumerate((0.0, 5_000.0, 10_000.0)):
        apply(join, predictions(f"f{number}", *both(at=at), offset=number, sent_at=NOW + number))
    answer = results(join, NOW + 3, NOW + 3)
    assert (answer.watermark, answer.variants[0].matured) == (10_001.0, 2)


@pytest.mark.parametrize("folded", [False, True])
def test_folded_and_open_cohorts_mature_alike(folded):
    join = joined()
    for number, at in enumerate((NOW, NOW + 500)):
        apply(join, predictions(f"f{number}", *both(at=at), offset=number, sent_at=at))
    if folded:
        flush(join)
    assert [variant.matured for variant in results(join, NOW + 500).variants] == [1, 1]


def test_an_idle_experiments_last_cohorts_fold_after_a_day():
    join = joined()
    apply(join, predictions("f", *both(), sent_at=NOW))
    for later, cohorts in ((80_000.0, 1), (90_000.0, 1)):
        join.partitions[0].aggregates.caught_up_at = NOW + later
        flush(join)
        groups = numbers(join).groups
        assert [len(group.cohorts) for group in groups] == [cohorts, cohorts]
    assert not [key for key in join.partitions[0].table.local.values if key.startswith(b"c/")]


REVISION = revision(
    champion="champion",
    variants=[VariantAllocation("champion", "v1", 0.5), VariantAllocation("challenger", "v2", 0.5)],
    window_s=WINDOW_S,
    changed_at=NOW,
    started_at=NOW,
)


def test_the_sentence_says_what_is_waited_for_and_until_when():
    join = joined()
    apply(join, predictions("f", *both(rows=200), sent_at=NOW))
    sentence = results(join, NOW + 5, NOW + 5, REVISION).verdict.sentence
    assert sentence.endswith("400 rows wait for their window to pass, until 2027-01-15T08:05:40Z.")
    assert "wait" not in results(join, NOW + 5000, NOW + 5000, REVISION).verdict.sentence


@pytest.mark.parametrize(("started_at", "since"), [(None, NOW), (NOW - 1, NOW), (NOW + 1, None)])
def test_results_say_since_when_they_hold_unless_the_experiment_began_later(started_at, since):
    join = joined()
    apply(join, predictions("f", *both(), offset=3, sent_at=NOW))
    revision = msgspec.structs.replace(REVISION, started_at=started_at)
    assert results(join, NOW, revision=revision).since == since
