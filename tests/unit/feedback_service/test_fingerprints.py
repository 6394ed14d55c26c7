"""An experiment has changed where another look at it could find something."""

import numpy as np
import pytest
from msgspec.structs import replace

from contender.contracts.feedback_service import Results
from services.feedback_service.domain.fingerprints import fingerprint
from services.feedback_service.domain.results import as_published
from services.feedback_service.domain.snapshots import PartitionSnapshot
from tests.unit.feedback_service.worlds import DAY, DAY_S, MIDNIGHT, World, rows

STEP_S = 3600.0


def world_of(**changes: object) -> tuple[World, PartitionSnapshot]:
    rng = np.random.default_rng(1)
    world = World(declared={"cycle_days": 1, "cycle_reason": "", "time_zone": "America/New_York"}, **changes)
    matured = rows(rng, 4000, scores=(0.25, 0.75), day=DAY + rng.integers(0, 6, 4000))
    if world.missing == "negative":
        matured.outcome[::3] = np.nan
    return world, world.snapshot(matured)


def at(snapshot: PartitionSnapshot, watermark: float) -> PartitionSnapshot:
    """The snapshot at a later time without new rows."""
    groups = [replace(group, watermark=watermark) for group in snapshot.groups]
    status = replace(snapshot.status, caught_up_at=watermark, updated_at=watermark, offsets={"predictions": 8})
    return PartitionSnapshot(status, groups)


def found_in(results: Results) -> Results:
    """The results without their forecast, which is shown and not found, and the sentences that end with it."""
    verdicts = [replace(verdict, sentence="") for verdict in (results.verdict, *results.verdicts)]
    return replace(results, forecast={}, verdict=verdicts[0], verdicts=verdicts[1:])


@pytest.mark.parametrize("missing", ["excluded", "negative"])
def test_where_the_clock_alone_goes_on_a_look_at_the_same_fingerprint_finds_the_same(missing):
    world, snapshot = world_of(missing=missing)
    found: dict[bytes, Results] = {}
    for step in range(0, 10 * 24, 4):
        later = at(snapshot, MIDNIGHT + step * STEP_S)
        results = world.look_at([later]).results
        earlier = found.setdefault(fingerprint("e", world.revision, [later]), results)
        assert found_in(as_published(earlier, [later])) == found_in(results)
    assert len({results.verdict.status for results in found.values()}) > 1  # a verdict came by the clock alone
    assert len(found) == (11 if missing == "excluded" else 60)


def test_a_clock_that_goes_on_within_a_day_changes_nothing_and_a_new_day_does():
    world, snapshot = world_of()
    times = [MIDNIGHT + 5 * STEP_S + step * STEP_S for step in range(24)]
    prints = [fingerprint("e", world.revision, [at(snapshot, time)]) for time in times]
    changes = [index for index in range(1, 24) if prints[index] != prints[index - 1]]
    assert changes == [1]  # midnight in New York at four, the window of an hour, the width of a cohort


def test_rows_reports_a_revision_and_a_later_beginning_are_changes():
    world, snapshot = world_of()
    (cohort,) = snapshot.groups[0].cohorts
    cohorts = [replace(cohort, counts=replace(cohort.counts, refused=1))]
    reported = replace(snapshot, groups=[replace(snapshot.groups[0], cohorts=cohorts), *snapshot.groups[1:]])
    begun = replace(snapshot, status=replace(snapshot.status, since=MIDNIGHT + DAY_S))
    revised = replace(world.revision, revision=2)
    prints = {fingerprint("e", world.revision, [other]) for other in (snapshot, reported, begun)}
    prints.add(fingerprint("e", revised, [snapshot]))
    assert len(prints) == 4


def test_an_experiment_without_rows_has_a_fingerprint():
    world, snapshot = world_of()
    assert fingerprint("e", world.revision, [replace(snapshot, groups=[])])
    assert fingerprint("e", None, [])
