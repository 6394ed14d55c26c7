"""What results and verdicts say of an experiment in each of its states, and which events ask for a stop."""

import msgspec
import numpy as np
import pytest

from contender.contracts.experiments import Evidence, Guardrail
from contender.contracts.feedback_service import VerdictEvent
from services.feedback_service.domain.snapshots import SumsSnapshot
from services.feedback_service.pages import state
from tests.unit.feedback_service.test_report_metrics import Reported, served
from tests.unit.feedback_service.worlds import LATE_ENOUGH, Rows, World, rows

BETTER, ALIKE, WORSE = (0.5, 0.25), (0.25, 0.25), (0.25, 0.5)
PAUSED = {"status": "paused"}
GUARDED = {"guardrails": [Guardrail("brier", 0.01)]}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_a_paused_experiment_is_neither_collecting_nor_over(rng):
    look = World(declared=PAUSED).look(rows(rng, 4000, ALIKE)).results
    assert look.verdict.status == "paused"
    assert look.verdict.sentence.startswith("No difference in log loss shown yet: ")
    assert "The experiment is paused: no further rows count until it is started again." in look.verdict.sentence
    assert look.forecast == {}


def test_a_paused_experiment_without_rows_enough_is_not_over(rng):
    verdict = World(declared=PAUSED).look(rows(rng, 60, ALIKE)).results.verdict
    assert verdict.status == "withheld: too few"
    assert "The experiment is paused" in verdict.sentence


def test_a_verdict_may_come_from_rows_that_mature_during_a_pause(rng):
    verdict = World(declared=PAUSED).look(rows(rng, 4000, BETTER)).results.verdict
    assert verdict.status == "challenger better"
    assert "paused" not in verdict.sentence


def test_a_decided_experiment_is_looked_at_as_a_running_one(rng):
    running, decided = World(), World(declared={"status": "decided"})
    seen = rows(rng, 4000, ALIKE)
    looks = [world.look(seen).results for world in (running, decided)]
    assert looks[0].verdict == looks[1].verdict
    assert looks[0].forecast == looks[1].forecast != {}
    assert (looks[1].status, state("decided"), state("paused")) == (
        "decided",
        "decided: traffic goes on",
        "paused: the champion answers",
    )


def test_a_breached_guardrail_is_said_to_have_stopped_what_is_stopped(rng):
    world, seen = World(declared=GUARDED), rows(rng, 4000, WORSE)
    running = world.look(seen).results.verdict
    assert running.sentence.startswith("Guardrail breached: challenger is worse than champion in Brier score by more ")
    assert running.sentence.endswith(", over 4,000 matured rows.")
    world.declared |= {"status": "stopped", "stopped_at": LATE_ENOUGH}
    stopped = world.look(seen).results.verdict
    assert (stopped.status, stopped.decided_at) == (running.status, running.decided_at)
    assert stopped.sentence.startswith("Stopped: challenger is worse than champion in Brier score by more than 0.01: ")


def test_a_guardrail_that_is_breached_before_a_verdict_asks_for_a_stop_once(rng):
    world, seen = World(declared=GUARDED), rows(rng, 4000, WORSE)
    for _ in range(2):
        world.look(seen)
    assert [(event.kind, event.is_harm) for event in world.memory.events] == [("decided", True)]


def test_a_guardrail_that_is_breached_after_a_verdict_asks_for_a_stop_once(rng):
    world = World(declared=GUARDED)
    world.look(rows(rng, 4000, BETTER))
    for _ in range(2):
        world.look(rows(rng, 12_000, WORSE))
    asked = [event for event in world.memory.events if event.is_harm]
    assert [(event.kind, event.status) for event in asked] == [("questioned", "stopped: guardrail")]
    assert [event.kind for event in world.memory.events if not event.is_harm] == ["decided", "contradicted"]


def test_a_verdict_of_harm_that_is_contradicted_later_does_not_ask_again(rng):
    world = World(declared=GUARDED)
    world.look(rows(rng, 4000, WORSE))
    world.look(rows(rng, 12_000, BETTER))
    assert [(event.kind, event.status, event.is_harm) for event in world.memory.events] == [
        ("decided", "stopped: guardrail", True),
        ("contradicted", "stopped: guardrail", False),
    ]


def test_an_event_has_all_that_evidence_names():
    assert set(Evidence.__struct_fields__) <= set(VerdictEvent.__struct_fields__)


def slow(chosen: Rows, late_ms: float = 30.0) -> list[dict[str, SumsSnapshot]]:
    rng = np.random.default_rng(3)
    return served(chosen, {"latency": rng.normal(20.0, 4.0, len(chosen.arm)) + late_ms * chosen.arm})


@pytest.mark.parametrize("labelled", [0, 120])
def test_harm_in_all_rows_does_not_wait_for_labels(rng, labelled):
    chosen = rows(rng, 4000)
    chosen.outcome[labelled:] = np.nan
    experiment = Reported("log_loss", {"guardrails": [Guardrail("latency", 5.0)]})
    verdict = experiment.look(chosen, slow(chosen)).verdict
    assert verdict.status == "stopped: guardrail"
    assert "over 4,000 matured rows" in verdict.sentence


def test_harm_in_all_rows_is_shown_where_the_labels_stay_away_for_it(rng):
    """A version so slow that applications give up gets no labels either."""
    chosen = rows(rng, 4000)
    chosen.outcome[(chosen.arm == 1) & (rng.random(4000) < 0.5)] = np.nan
    declared = {"guardrails": [Guardrail("latency", 5.0)]}
    assert Reported("log_loss").look(chosen, slow(chosen)).verdict.status == "withheld: label arrival"
    assert Reported("log_loss", declared).look(chosen, slow(chosen)).verdict.status == "stopped: guardrail"


def test_harm_in_labelled_rows_is_not_shown_where_labels_do_not_arrive_alike(rng):
    chosen = rows(rng, 4000, WORSE)
    chosen.outcome[(chosen.arm == 1) & (rng.random(4000) < 0.5)] = np.nan
    assert World(declared=GUARDED).look(chosen).results.verdict.status == "withheld: label arrival"


def test_a_broken_split_makes_any_harm_meaningless(rng):
    chosen = rows(rng, 6000)
    chosen = chosen.of((chosen.arm == 0) | (rng.random(6000) < 0.5))
    declared = {"guardrails": [Guardrail("latency", 5.0)]}
    assert Reported("log_loss", declared).look(chosen, slow(chosen)).verdict.status == "withheld: split"


def test_results_count_the_rows_of_each_epoch_by_variant(rng):
    world = World()
    [later] = [world.snapshot(rows(rng, 400), waiting=7)]
    earlier = [
        msgspec.structs.replace(group, epoch=0)
        for group in world.snapshot(rows(rng, 100)).groups
        if "champ" in group.variant
    ]
    snapshot = msgspec.structs.replace(later, groups=[*later.groups, *earlier])
    first, second = world.look_at([snapshot]).results.epochs
    champion = earlier[0].cohorts[0].counts.predictions
    assert (first.epoch, first.n, first.matured) == (
        0,
        {"champion": champion, "challenger": 0},
        {"champion": champion, "challenger": 0},
    )
    assert (second.epoch, sum(second.n.values()), sum(second.matured.values())) == (1, 414, 400)
