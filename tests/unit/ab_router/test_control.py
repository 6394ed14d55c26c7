"""What the router's worker does to experiments, on a store in memory."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import pytest
from prometheus_client import REGISTRY

from contender.contracts.experiments import Bandit, Canary, Evidence, ExperimentChange, ExperimentRevision
from contender.contracts.feedback_service import Results
from services.ab_router.clients import CallError
from services.ab_router.control import HELD, Controller
from services.ab_router.errors import ExperimentStateError, ExperimentStoreError
from services.ab_router.store import InMemoryExperimentStore
from services.ab_router.verdict_actions import VerdictActions
from shared.background import until_available
from shared.clock import FixedClock
from shared.errors import InvalidField
from tests.unit.ab_router.ramp_results import AGE_LIMIT_S, CANARY, NOW, canary, effect, results, variant
from tests.unit.ab_router.test_standing_verdicts import event, running


@pytest.fixture(autouse=True)
def nothing_held() -> None:
    HELD.clear()


@dataclass
class FakeChanges:
    """Changes experiments in a store; each of `errors` is raised by one change."""

    store: InMemoryExperimentStore = field(default_factory=InMemoryExperimentStore)
    errors: list[Exception] = field(default_factory=list)
    changes: list[ExperimentRevision] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None
    _current: list[ExperimentRevision] = field(default_factory=list)

    async def refresh(self) -> None:
        self._current = await self.store.current()

    def all(self) -> list[ExperimentRevision]:
        return self._current

    async def stop(self, name: str, change: ExperimentChange, evidence: Evidence | None = None) -> ExperimentRevision:
        said = {"reason": change.reason, "changed_by": change.changed_by}
        return await self._change(name, status="stopped", evidence=evidence, **said)

    async def decide(self, name: str, evidence: Evidence) -> ExperimentRevision:
        return await self._change(name, status="decided", verdicts={evidence.challenger: evidence})

    async def reallocate(
        self, name: str, weights: Mapping[str, float], coverage: float, step: int | None, reason: str, *, revision: int
    ) -> ExperimentRevision:
        (known,) = [each for each in self._current if each.name == name]
        variants = [msgspec.structs.replace(each, weight=weights[each.name]) for each in known.variants]
        epoch = known.epoch + 1
        moved = {"coverage": coverage, "step": step, "reason": reason, "epoch": epoch, "changed_at": NOW}
        return await self._change(name, variants=variants, **moved)

    async def _change(self, name: str, **changes: object) -> ExperimentRevision:
        self.on_change()
        if self.errors:
            raise self.errors.pop(0)
        known = (await self.store.history(name))[-1]
        revised = msgspec.structs.replace(known, revision=known.revision + 1, **changes)
        assert await self.store.add(revised)
        self.changes.append(revised)
        return revised


@dataclass
class FakeResults:
    """Answers with the same results, or fails."""

    known: Results = field(default_factory=results)
    error: CallError | None = None
    asked: list[str] = field(default_factory=list)

    async def results(self, name: str) -> Results:
        self.asked.append(name)
        if self.error:
            raise self.error
        return self.known


async def acting_on(*revisions: ExperimentRevision, errors: list[Exception] = []) -> tuple[VerdictActions, FakeChanges]:  # noqa: B006
    changes = FakeChanges(errors=list(errors))
    for each in revisions:
        assert await changes.store.add(each)
    return VerdictActions(changes.store, changes), changes


async def test_a_breached_guardrail_stops_the_experiment_once_with_the_event_as_evidence():
    actions, changes = await acting_on(running())
    for _ in range(3):
        await actions.act(event())
    (stopped,) = changes.changes
    assert (stopped.status, stopped.changed_by, stopped.reason) == ("stopped", "contender", "b is slower.")
    assert stopped.evidence is not None
    assert stopped.evidence.number == 2


async def test_a_verdict_is_kept_once():
    actions, changes = await acting_on(running())
    for _ in range(3):
        await actions.act(event(status="challenger better"))
    assert [change.verdicts["b"].status for change in changes.changes] == ["challenger better"]


async def test_the_newest_revision_decides_whoever_has_written_it():
    actions, changes = await acting_on(running(), running(revision=3, status="stopped"))
    await actions.act(event())
    assert changes.changes == []


async def test_an_event_of_an_unknown_experiment_changes_nothing():
    actions, changes = await acting_on(running())
    await actions.act(event(experiment="another"))
    assert changes.changes == []


async def test_a_long_sentence_becomes_a_reason_that_is_short_enough():
    actions, changes = await acting_on(running())
    await actions.act(event(sentence="x" * 1_000_000))
    assert len(changes.changes[0].reason) == 500
    assert changes.changes[0].evidence is not None
    assert len(changes.changes[0].evidence.sentence) == 2_000


async def test_a_change_at_the_same_time_is_looked_at_and_the_event_is_done():
    actions, changes = await acting_on(running(), errors=[ExperimentStateError("changed at the same time")] * 2)
    await actions.act(event())
    assert [change.status for change in changes.changes] == ["stopped"]


async def test_a_change_at_the_same_time_may_have_done_it():
    actions, changes = await acting_on(running(), errors=[ExperimentStateError("changed at the same time")])

    def stop_first() -> None:
        changes.store._revisions.append(running(revision=3, status="stopped"))

    changes.on_change = stop_first
    await actions.act(event())
    assert changes.changes == []


async def test_a_change_that_is_refused_again_and_again_is_an_error():
    actions, _ = await acting_on(running(), errors=[ExperimentStateError("no")] * 10)
    with pytest.raises(ExperimentStateError):
        await actions.act(event())


async def test_an_event_waits_for_the_database_and_is_done_once():
    actions, changes = await acting_on(running(), errors=[ExperimentStoreError("away")] * 2)
    async with asyncio.timeout(10):
        await until_available(lambda: actions.act(event()), 0.01, slowest_s=0.01, name="act")
    assert [change.status for change in changes.changes] == ["stopped"]


async def moving(
    *revisions: ExperimentRevision, known: Results | None = None, error: CallError | None = None, owns: bool = True
) -> tuple[Controller, FakeChanges, FakeResults, FixedClock]:
    changes, reader, clock = FakeChanges(), FakeResults(known or results(), error), FixedClock(NOW)
    for each in revisions:
        assert await changes.store.add(each)
    return Controller(changes, reader, clock, lambda: owns, AGE_LIMIT_S), changes, reader, clock


def held(experiment: str = "e") -> list[str]:
    """The causes for which the experiment's allocation is held, as the metrics show them."""
    (metric,) = [each for each in REGISTRY.collect() if each.name == "contender_router_allocation_held"]
    return [sample.labels["cause"] for sample in metric.samples if sample.labels["experiment"] == experiment]


async def test_a_canary_advances_one_step_and_the_next_one_waits_for_its_own_rows():
    controller, changes, reader, clock = await moving(canary())
    await controller.look()
    assert [(change.step, change.coverage, change.epoch) for change in changes.changes] == [(2, 0.5, 4)]
    assert held() == []
    await controller.look()
    assert held() == ["too early"]
    clock.advance(3_600.0)
    reader.known = results(updated_at=clock.now())
    await controller.look()
    assert held() == ["old results"]
    reader.known = results(updated_at=clock.now(), epoch=4, variants=[variant("a", 999), variant("b", 1_000)])
    await controller.look()
    assert held() == ["too few rows"]
    reader.known = results(updated_at=clock.now(), epoch=4)
    await controller.look()
    assert [change.step for change in changes.changes] == [2, 3]
    clock.advance(3_600.0)
    await controller.look()
    assert held() == ["last step"]


async def test_without_results_a_canary_is_held():
    controller, changes, _, _ = await moving(canary(), error=CallError("feedback_service: TimeoutError"))
    await controller.look()
    assert (changes.changes, held()) == ([], ["no results"])


async def test_a_bandit_moves_weights():
    bandit = Bandit(rows_per_arm=100)
    known = results(effects={"b": {"log_loss": effect(-1.0)}})
    moving_arms = running(epoch=3, changed_at=1_000.0, bandit=bandit)
    controller, changes, _, _ = await moving(moving_arms, known=known)
    await controller.look()
    (moved,) = changes.changes
    assert [variant.weight for variant in moved.variants] == [0.05, 0.95]
    assert (moved.step, moved.coverage) == (None, 1.0)


@pytest.mark.parametrize("status", ["draft", "paused", "decided", "stopped"])
async def test_experiments_that_do_not_run_are_left_alone(status: str):
    controller, changes, reader, _ = await moving(canary(status=status))
    await controller.look()
    assert (changes.changes, reader.asked, held()) == ([], [], [])


async def test_an_experiment_without_schedule_or_bandit_is_left_alone():
    controller, _, reader, _ = await moving(canary(canary=None))
    await controller.look()
    assert reader.asked == []


async def test_a_worker_that_is_not_in_charge_moves_nothing_and_shows_nothing():
    controller, changes, reader, _ = await moving(canary(), owns=False)
    await controller.look()
    assert (changes.changes, reader.asked, held()) == ([], [], [])
    assert changes.all() == [canary()]  # it has read them, and sent what waits to be sent


async def test_a_hold_is_shown_until_the_experiment_ends():
    controller, changes, _, _ = await moving(canary(changed_at=NOW))
    await controller.look()
    assert held() == ["too early"]
    await changes.store.add(canary(revision=2, status="stopped"))
    await controller.look()
    assert held() == []


@pytest.mark.parametrize("error", [ExperimentStateError("changed"), InvalidField.at("weights", "are too small")])
async def test_a_refused_move_is_held_and_the_others_go_on(error: Exception):
    controller, changes, _, _ = await moving(canary(), canary(name="f"))
    changes.errors.append(error)
    await controller.look()
    assert [change.name for change in changes.changes] == ["f"]
    assert held() == ["refused"]


async def test_an_outage_of_the_database_is_the_callers_to_repeat():
    controller, changes, _, _ = await moving(canary())
    changes.errors.append(ExperimentStoreError("away"))
    with pytest.raises(ExperimentStoreError):
        await controller.look()


async def test_a_schedule_without_steps_holds():
    controller, changes, _, _ = await moving(canary(canary=Canary([])))
    await controller.look()
    assert (changes.changes, held()) == ([], ["off schedule"])
    assert CANARY.steps
