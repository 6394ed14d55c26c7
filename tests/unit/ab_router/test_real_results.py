"""Results as the feedback service computes them, and what they do to a canary and a bandit."""

import msgspec
import numpy as np
import pytest

from contender.contracts.experiments import Bandit, Canary, ExperimentRevision, Guardrail
from contender.contracts.feedback_service import Results
from services.ab_router.domain.bandit import posteriors_of
from services.ab_router.domain.holds import Hold, Move
from services.ab_router.domain.moves import next_move
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.worlds import START, Rows, World, rows

CANARY = Canary([0.05, 0.5], rows_per_step=400, seconds_per_step=3_600.0)
NOW = START + 7_200.0
BETTER, ALIKE, WORSE = (0.5, 0.25), (0.25, 0.25), (0.25, 0.5)


def seen(some: Rows, **declared: object) -> tuple[ExperimentRevision, Results]:
    """An experiment whose newest epoch began at the start, and its results two hours later."""
    world = World(declared=declared)
    found = world.look(some, now=NOW).results
    return world.revision, msgspec.json.decode(
        msgspec.json.encode(msgspec.structs.replace(found, updated_at=NOW)), type=Results
    )


def moved(some: Rows, **declared: object) -> Move | Hold:
    return next_move(*seen(some, **declared), NOW, 60.0)


def canary(**declared: object) -> dict[str, object]:
    return {"canary": CANARY, "step": 0, "coverage": 0.1, "guardrails": [Guardrail("brier", 0.2)], **declared}


def test_enough_matured_rows_and_guardrails_that_hold_advance_a_canary():
    move = moved(rows(np.random.default_rng(1), 2_000, ALIKE), **canary())
    assert isinstance(move, Move)
    assert (move.step, move.coverage) == (1, 1.0)


@pytest.mark.parametrize(
    ("n", "scores", "declared", "cause"),
    [
        (600, ALIKE, {}, "too few rows"),
        (600, BETTER, {}, "too few rows"),
        (0, ALIKE, {}, "too few rows"),
        (20_000, WORSE, {"guardrails": [Guardrail("brier", 0.0)]}, "guardrail"),
        (20_000, WORSE, {}, "verdict"),
        (2_000, ALIKE, {"guardrails": [Guardrail("conversion", 0.05)]}, "guardrail"),
        (2_000, ALIKE, {"epoch": 2}, "too few rows"),
        (20_000, ALIKE, {"epoch": 2}, "too few rows"),
    ],
)
def test_anything_else_holds_it(n: int, scores: tuple[float, float], declared: dict[str, object], cause: str):
    move = moved(rows(np.random.default_rng(1), n, scores), **canary(**declared))
    assert isinstance(move, Hold), move
    assert move.cause == cause, move.reason


def test_an_arm_that_loses_its_labels_holds_it():
    some = rows(np.random.default_rng(1), 4_000, ALIKE)
    some.outcome[(some.arm == 1) & (np.arange(4_000) % 2 == 0)] = np.nan
    move = moved(some, **canary())
    assert isinstance(move, Hold)
    assert "withheld: label arrival" in move.reason


def test_the_better_arm_of_a_bandit_gets_the_traffic():
    """The champion's score is .5 for all rows, whose losses do not vary then."""
    move = moved(rows(np.random.default_rng(1), 2_000, BETTER), bandit=Bandit(seconds_per_step=60.0))
    assert isinstance(move, Move)
    assert move.weights == {"champion": 0.05, "challenger": 0.95}


def test_the_standard_error_of_a_posterior_is_that_of_the_rows_behind_the_results():
    some = rows(np.random.default_rng(1), 2_000, (0.25, 0.4))
    revision, found = seen(some, bandit=Bandit())
    losses = -np.log(np.where(some.outcome > 0, some.score, 1.0 - some.score))
    posteriors = posteriors_of(revision, found)
    assert posteriors is not None
    for arm, posterior in enumerate(posteriors):
        of = some.arm == arm
        counts = np.bincount(some.bucket[of], minlength=BUCKETS).astype(np.float64)
        sums = ClusteredSums(counts, np.bincount(some.bucket[of], losses[of], minlength=BUCKETS))
        assert posterior.standard_error == pytest.approx(sums.estimate.standard_error, rel=1e-6)
