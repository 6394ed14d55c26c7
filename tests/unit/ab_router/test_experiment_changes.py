"""Use cases that change experiments: starts, races, promotions, restarts, verdicts, and what other routers do."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import pytest

from contender.contracts.experiments import (
    Canary,
    Evidence,
    ExperimentChange,
    ExperimentRevision,
    Finding,
    Namespace,
    NewExperiment,
    Ramp,
    Restart,
    RevisionQuery,
    VariantAllocation,
)
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.experiments import with_champion
from services.ab_router.errors import (
    ExperimentChangedError,
    ExperimentExistsError,
    ExperimentStateError,
    ExperimentStoreError,
    NotDecidedError,
    NotReadyError,
    OverlapError,
    UnknownExperimentError,
)
from services.ab_router.handlers.experiments import Experiments
from services.ab_router.starts import NoLook
from services.ab_router.store import Check, InMemoryExperimentStore
from shared.errors import InvalidField, Unavailable
from shared.topics import EXPERIMENTS

ARMS = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
ALIASED = [VariantAllocation("old", "champion", 0.5), ARMS[1]]
SAID = ExperimentChange("agreed", "ann")


def new(name: str = "e", **changes: object) -> NewExperiment:
    return msgspec.structs.replace(NewExperiment(name=name, model="late", variants=ARMS), **changes)


def verdict(challenger: str = "new", status: str = "challenger better", number: int = 1) -> Evidence:
    return Evidence(experiment="e", number=number, challenger=challenger, status=status, sentence="Better.", at=30.0)


async def running(router, name: str = "e", **changes: object) -> ExperimentRevision:
    await router.experiments.create(new(name, **changes))
    return await router.experiments.start(name)


def make_champion(router, version: str) -> None:
    router.inference.registered = [
        msgspec.structs.replace(known, champion=known.version == version) if known.model == "late" else known
        for known in router.inference.registered
    ]


def beside(router, **more: object) -> Experiments:
    """Another router on the same database."""
    return Experiments(router.store, router.journal, router.catalog, router.clock, **more)


# In force


async def test_the_experiments_in_force_are_those_that_have_started_and_not_stopped_oldest_start_first(router):
    parts = {"a": (0.0, 0.25), "b": (0.25, 0.5), "c": (0.5, 0.75), "d": (0.75, 1.0)}
    for name, (start, end) in parts.items():
        await router.experiments.create(new(name, namespace=Namespace("n", start, end)))
    for name in ("c", "b", "a"):
        router.clock.advance(10)
        await router.experiments.start(name)
    await router.experiments.pause("b")
    await router.experiments.decide("a", msgspec.structs.replace(verdict(), experiment="a"))
    found = router.experiments.in_force("late")
    assert [(one.name, one.status) for one in found] == [("c", "running"), ("b", "paused"), ("a", "decided")]
    await router.experiments.stop("c")
    assert [one.name for one in router.experiments.in_force("late")] == ["b", "a"]
    assert router.experiments.in_force("delay") == ()


# Start


async def test_a_start_resolves_the_champion_of_this_moment_even_if_it_was_promoted_just_now(router):
    await router.experiments.create(new(variants=ALIASED))
    make_champion(router, "streaming")
    revision = await router.experiments.start("e", SAID)
    assert revision.variants[0] == VariantAllocation("old", "streaming", 0.5, "champion")
    assert (revision.model_champion, revision.reason, revision.changed_by) == ("streaming", "agreed", "ann")


async def test_no_champion_is_guessed_while_the_inference_service_is_away(router):
    await router.experiments.create(new(variants=ALIASED))
    await router.experiments.create(new("pinned"))
    router.inference.down = True
    with pytest.raises(Unavailable, match="champion of this moment"):
        await router.experiments.start("e")
    assert (await router.experiments.start("pinned")).status == "running"


async def test_a_start_beside_an_experiment_that_could_take_the_same_units_is_refused_and_leaves_it_alone(router):
    before = await running(router, namespace=Namespace("n", 0.0, 0.6))
    await router.experiments.create(new("f", namespace=Namespace("n", 0.5, 1.0)))
    with pytest.raises(OverlapError, match=r"the same units of model late as e \(running\)") as refused:
        await router.experiments.start("f", ExperimentChange(override="never mind"))
    assert [error.field for error in refused.value.errors] == ["namespace"]
    assert router.experiments.find("e") is before
    assert router.experiments.find("f").status == "draft"
    await router.experiments.revise("f", new("f", namespace=Namespace("n", 0.6, 1.0)))
    assert (await router.experiments.start("f")).status == "running"


async def test_of_two_routers_that_start_experiments_on_the_same_units_at_once_one_is_refused(router):
    other = beside(router)
    for name in ("e", "f"):
        await router.experiments.create(new(name))
    await other.refresh()
    started = await asyncio.gather(router.experiments.start("e"), other.start("f"), return_exceptions=True)
    assert sorted(type(one).__name__ for one in started) == ["ExperimentRevision", "OverlapError"]


async def test_a_namespace_can_not_grow_into_another_experiment_s(router):
    await running(router, namespace=Namespace("n", 0.0, 0.5))
    await running(router, "f", namespace=Namespace("n", 0.5, 1.0))
    with pytest.raises(OverlapError, match="as f"):
        await router.experiments.revise("e", new(namespace=Namespace("n", 0.0, 0.7)))
    assert router.experiments.find("e").namespace == Namespace("n", 0.0, 0.5)


@dataclass
class FakeTraffic:
    """Traffic in which these findings are made."""

    made: list[Finding] = field(default_factory=list)
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    async def look(self, revision: ExperimentRevision, versions: Mapping[str, ModelVersion]) -> NoLook:
        self.asked.append((revision.name, sorted(versions)))
        return NoLook(self.made, 4, 5.0)


async def test_traffic_that_does_not_suit_refuses_a_start_unless_it_is_overridden_on_record(router):
    traffic = FakeTraffic([Finding("inputs.plan", "is missing in 7 % of rows", True), Finding("x", "is rare", False)])
    experiments = beside(router, traffic=traffic)
    await experiments.create(new())
    ready = await experiments.readiness("e")
    assert (ready.ready, ready.findings, ready.overlaps, ready.rows, ready.since) == (False, traffic.made, [], 4, 5.0)
    with pytest.raises(NotReadyError, match=r"inputs\.plan is missing in 7 % of rows") as refused:
        await experiments.start("e")
    assert [error.field for error in refused.value.errors] == ["inputs.plan"]
    assert traffic.asked[-1] == ("e", ["champion", "plain", "streaming"])
    assert (await experiments.start("e", ExperimentChange(override="we know"))).override == "we know"


async def test_a_draft_that_is_replaced_while_its_traffic_is_looked_at_does_not_start(router):
    class Replacing(FakeTraffic):
        """Traffic during whose look the draft becomes another one."""

        async def look(self, revision: ExperimentRevision, versions: Mapping[str, ModelVersion]) -> NoLook:
            await router.experiments.revise("e", new(owner="bob"))
            return await super().look(revision, versions)

    experiments = beside(router, traffic=Replacing())
    await router.experiments.create(new())
    with pytest.raises(ExperimentChangedError, match="the newest is 2, which is draft"):
        await experiments.start("e")


async def test_readiness_names_the_experiments_beside_one(router):
    await running(router, coverage=0.5, namespace=Namespace("n", 0.0, 0.5))
    await router.experiments.create(new("f"))
    ready = await router.experiments.readiness("f")
    assert [(one.experiment, one.share, one.shares_units) for one in ready.overlaps] == [("e", 0.25, True)]
    assert not ready.ready
    await router.experiments.stop("e")
    assert (await router.experiments.readiness("f")).ready


# Simultaneous changes


async def test_a_change_for_an_older_revision_is_refused_and_the_newest_is_named(router):
    await running(router)
    for change in (
        lambda: router.experiments.pause("e", ExperimentChange(revision=1)),
        lambda: router.experiments.stop("e", ExperimentChange(revision=1)),
        lambda: router.experiments.ramp("e", Ramp(coverage=0.5, revision=1)),
        lambda: router.experiments.revise("e", new(owner="bob", revision=1)),
        lambda: router.experiments.promote("e", ExperimentChange(revision=1)),
        lambda: router.experiments.start("e", ExperimentChange(revision=1)),
    ):
        with pytest.raises(ExperimentChangedError, match="the newest is 2, which is running") as refused:
            await change()
        (error,) = refused.value.errors
        assert (error.field, "newest is 2" in error.message) == ("revision", True)
    with pytest.raises(InvalidField, match="revision is 3, and the newest is 2"):
        await router.experiments.pause("e", ExperimentChange(revision=3))
    assert (await router.experiments.pause("e", ExperimentChange(revision=2))).revision == 3


@pytest.mark.parametrize("revision", [None, 2])
async def test_of_simultaneous_changes_in_one_router_exactly_one_holds(router, revision):
    await running(router)
    changes = [router.experiments.ramp("e", Ramp(coverage=share / 10, revision=revision)) for share in range(1, 9)]
    made = await asyncio.gather(*changes, return_exceptions=True)
    (held,) = [one for one in made if isinstance(one, ExperimentRevision)]
    assert sum(isinstance(one, ExperimentChangedError) for one in made) == 7
    assert router.experiments.find("e") == held
    assert held.revision == 3


async def test_of_simultaneous_changes_in_two_routers_exactly_one_holds(router):
    class Slow(InMemoryExperimentStore):
        """Both routers read before either of them writes."""

        readers = 0

        async def current(self) -> list[ExperimentRevision]:
            found = await super().current()
            self.readers += 1
            while self.readers < 2:
                await asyncio.sleep(0)
            return found

    await running(router)
    store = Slow()
    for revision in await router.store.history("e"):
        await store.add(revision)
    pair = [Experiments(store, router.journal, router.catalog, router.clock) for _ in range(2)]
    made = await asyncio.gather(*(one.ramp("e", Ramp(coverage=0.5)) for one in pair), return_exceptions=True)
    (refused,) = [one for one in made if isinstance(one, ExperimentChangedError)]
    assert "the newest is 3" in refused.detail
    assert len(await store.history("e")) == 3


async def test_changes_one_after_another_need_no_revision(router):
    await running(router)
    for share in (0.2, 0.4, 0.6):
        await router.experiments.ramp("e", Ramp(coverage=share))
    assert router.experiments.find("e").coverage == 0.6


async def test_a_change_again_says_that_it_was_made(router):
    await running(router)
    with pytest.raises(ExperimentStateError, match="experiment e is running, and can't be started"):
        await router.experiments.start("e")
    await router.experiments.pause("e")
    with pytest.raises(ExperimentStateError, match="experiment e is paused"):
        await router.experiments.pause("e")
    await router.experiments.stop("e")
    with pytest.raises(ExperimentStateError, match="experiment e is stopped"):
        await router.experiments.stop("e")


async def test_words_that_are_too_long_are_refused_by_field(router):
    await running(router)
    wrong = ExperimentChange("x" * 501, "y" * 201, None, "z" * 501)
    for change in (
        router.experiments.stop("e", wrong),
        router.experiments.promote("e", wrong),
        router.experiments.stop_all("late", wrong),
    ):
        with pytest.raises(InvalidField) as refused:
            await change
        assert [error.field for error in refused.value.errors] == ["reason", "override", "changed_by"]


async def test_a_declaration_under_another_name_is_refused(router):
    await router.experiments.create(new())
    with pytest.raises(InvalidField, match="name is not e"):
        await router.experiments.revise("e", new("f"))
    with pytest.raises(UnknownExperimentError):
        await router.experiments.revise("f", new("f"))


# The topic


def sent(router) -> list[tuple[str, int]]:
    records = [EXPERIMENTS.decode(record.value) for record in router.records() if record.topic == EXPERIMENTS.name]
    return [(revision.name, revision.revision) for revision in records]


async def test_a_router_sends_the_newest_revision_after_an_older_one_of_its_own(router):
    """Its own record may reach the compacted topic last."""
    await running(router)
    other = beside(router)
    await other.refresh()
    await other.pause("e")
    await router.experiments.refresh()
    await router.experiments.refresh()
    assert sent(router) == [("e", 1), ("e", 2), ("e", 2), ("e", 3), ("e", 3)]


async def test_a_change_that_was_kept_though_the_database_did_not_say_so_is_sent_once_it_is_read(router):
    class Mute(InMemoryExperimentStore):
        """Keeps a stop, and its answer is lost."""

        async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
            is_kept = await super().add(revision, check)
            if revision.status == "stopped":
                raise ExperimentStoreError("no answer")
            return is_kept

    experiments = Experiments(Mute(), router.journal, router.catalog, router.clock)
    await experiments.open()
    await experiments.create(new())
    await experiments.start("e")
    with pytest.raises(ExperimentStoreError):
        await experiments.stop("e")
    await experiments.refresh()
    assert sent(router) == [("e", 1), ("e", 2), ("e", 3)]


# Schedules and verdicts


async def test_a_schedule_s_steps_are_taken_while_it_runs_and_no_step_is_taken_twice(router):
    await running(router, canary=Canary([0.1, 0.5]))
    revision = await router.experiments.reallocate("e", None, 1.0, 1, "guardrails hold after 1,000 rows")
    assert (revision.step, revision.coverage, revision.epoch, revision.sticky) == (1, 1.0, 2, False)
    assert (revision.changed_by, revision.reason) == ("contender", "guardrails hold after 1,000 rows")
    assert await router.experiments.reallocate("e", None, 1.0, 1, "again") is revision
    with pytest.raises(ExperimentStateError, match="is ramped by its canary"):
        await router.experiments.ramp("e", Ramp(coverage=0.5))
    await router.experiments.pause("e")
    with pytest.raises(ExperimentStateError, match="keeps its allocation"):
        await router.experiments.reallocate("e", None, 0.2, 0, "back")


async def test_a_verdict_is_kept_once_and_decides(router):
    await running(router)
    revision = await router.experiments.decide("e", verdict())
    assert (revision.status, revision.verdicts, revision.evidence) == ("decided", {"new": verdict()}, verdict())
    assert await router.experiments.decide("e", verdict()) is revision
    assert [one.name for one in router.experiments.in_force("late")] == ["e"]


async def test_a_stop_keeps_the_verdict_that_it_rests_on(router):
    await running(router)
    harm = verdict(status="stopped: guardrail")
    assert (await router.experiments.stop("e", SAID, harm)).evidence == harm


# Kill switch


async def test_all_experiments_on_a_model_stop_at_once_and_none_is_no_error(router):
    await running(router, namespace=Namespace("n", 0.0, 0.5))
    await running(router, "f", namespace=Namespace("n", 0.5, 1.0))
    await router.experiments.create(new("draft"))
    await router.experiments.pause("f")
    stopped = await router.experiments.stop_all("late", ExperimentChange("an incident", "ann"))
    assert [(one.name, one.status, one.reason) for one in stopped] == [
        ("e", "stopped", "an incident"),
        ("f", "stopped", "an incident"),
    ]
    assert router.experiments.in_force("late") == ()
    assert await router.experiments.stop_all("late") == await router.experiments.stop_all("unknown") == []


async def test_the_kill_switch_holds_though_another_router_changes_the_experiment_meanwhile(router):
    class Contested(InMemoryExperimentStore):
        """Another router ramps the experiment just before it is stopped."""

        async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
            if revision.status == "stopped" and len(await self.history("e")) < 5:
                newest = (await self.history("e"))[-1]
                await super().add(msgspec.structs.replace(newest, revision=newest.revision + 1))
            return await super().add(revision, check)

    store = Contested()
    experiments = Experiments(store, router.journal, router.catalog, router.clock)
    await experiments.create(new())
    await experiments.start("e")
    (stopped,) = await experiments.stop_all("late")
    assert (stopped.status, stopped.revision) == ("stopped", 6)


async def test_the_kill_switch_stops_the_others_where_one_was_stopped_meanwhile(router):
    class Contested(InMemoryExperimentStore):
        """A breached guardrail stops the first experiment just before the kill switch does."""

        async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
            if (revision.name, revision.status, revision.reason) == ("e", "stopped", "an incident"):
                await super().add(msgspec.structs.replace(revision, reason="a guardrail"))
            return await super().add(revision, check)

    experiments = Experiments(Contested(), router.journal, router.catalog, router.clock)
    for name, part in (("e", Namespace("n", 0.0, 0.5)), ("f", Namespace("n", 0.5, 1.0))):
        await experiments.create(new(name, namespace=part))
        await experiments.start(name)
    stopped = await experiments.stop_all("late", ExperimentChange("an incident", "ann"))
    assert [(revision.name, revision.reason) for revision in stopped] == [("e", "a guardrail"), ("f", "an incident")]
    assert experiments.in_force("late") == ()


# Promotion


async def test_a_promotion_names_its_verdict_makes_the_version_champion_and_stops_the_experiment(router):
    await running(router)
    with pytest.raises(NotDecidedError):
        await router.experiments.promote("e", SAID)
    await router.experiments.decide("e", verdict())
    stopped = await router.experiments.promote("e", SAID)
    (promotion,) = router.inference.promoted
    assert (promotion.version, promotion.experiment, promotion.verdict) == ("streaming", "e", 1)
    assert (promotion.reason, promotion.changed_by, promotion.evidence) == ("agreed", "ann", "Better.")
    assert (stopped.status, stopped.evidence, stopped.model_champion) == ("stopped", verdict(), "streaming")
    assert (await router.catalog.find("late")).champion.version == "streaming"


async def test_an_override_stands_in_for_a_verdict_and_is_on_record(router):
    await running(router)
    stopped = await router.experiments.promote("e", ExperimentChange(override="we know"), "new")
    (promotion,) = router.inference.promoted
    assert (promotion.override, promotion.verdict, stopped.override) == ("we know", None, "we know")
    assert stopped.reason == "variant new is promoted"


async def test_a_promotion_that_fails_before_the_stop_can_be_repeated(router):
    class Failing(InMemoryExperimentStore):
        """The database goes away between the promotion and the stop."""

        is_away = True

        async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
            if revision.status == "stopped" and self.is_away:
                raise ExperimentStoreError("away")
            return await super().add(revision, check)

    store = Failing()
    experiments = Experiments(store, router.journal, router.catalog, router.clock)
    await experiments.create(new())
    await experiments.start("e")
    await experiments.decide("e", verdict())
    with pytest.raises(ExperimentStoreError):
        await experiments.promote("e", SAID)
    assert len(router.inference.promoted) == 1
    store.is_away = False
    await experiments.refresh()
    assert (await experiments.promote("e", SAID)).status == "stopped"
    assert len(router.inference.promoted) == 1


async def test_two_promotions_at_once_end_in_the_same_revision(router):
    await running(router)
    await router.experiments.decide("e", verdict())
    first, second = await asyncio.gather(router.experiments.promote("e", SAID), router.experiments.promote("e", SAID))
    assert first == second == router.experiments.find("e")
    assert first.status == "stopped"


async def test_the_kill_switch_does_not_wait_for_a_promotion_that_hangs(router):
    await running(router)
    router.inference.listing.clear()
    asked = router.inference.listed
    promoting = asyncio.create_task(router.experiments.promote("e", ExperimentChange(override="we know")))
    while router.inference.listed == asked:
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        (stopped,) = await router.experiments.stop_all("late")
    router.inference.listing.set()
    assert await promoting == stopped


async def test_verdicts_of_two_challengers_at_once_are_both_kept(router):
    three = [VariantAllocation(f"arm-{at}", "plain", 1 / 3) for at in range(3)]
    await running(router, variants=three)
    await asyncio.gather(*(router.experiments.decide("e", verdict(f"arm-{at}", number=at)) for at in (1, 2)))
    assert (router.experiments.find("e").status, len(router.experiments.find("e").verdicts)) == ("decided", 2)


async def test_nothing_stops_where_the_promotion_itself_fails(router):
    await running(router)
    router.inference.down = True
    with pytest.raises(Unavailable, match="repeat the call, which is safe"):
        await router.experiments.promote("e", ExperimentChange(override="we know"))
    router.inference.down = False
    router.inference.registered = [one for one in router.inference.registered if one.version != "streaming"]
    with pytest.raises(ExperimentStateError, match="refuses to promote version streaming") as refused:
        await router.experiments.promote("e", ExperimentChange(override="we know"))
    assert "secret" not in refused.value.detail
    assert router.experiments.find("e").status == "running"


async def test_a_promotion_meanwhile_opens_one_epoch_whichever_router_sees_it_first(router):
    before = await running(router, variants=ALIASED)
    await router.experiments.create(new("draft"))
    other = beside(router)
    await other.refresh()
    make_champion(router, "streaming")
    await router.catalog.refresh()
    await asyncio.gather(router.experiments.refresh(), other.refresh())
    await router.experiments.refresh()
    revision = router.experiments.find("e")
    assert (revision.revision, revision.epoch, revision.model_champion) == (3, 2, "streaming")
    assert revision.variants == before.variants
    assert revision.reason == "version streaming is the model's champion now"
    assert len(await router.store.history("e")) == 3
    assert router.experiments.find("draft").revision == 1


async def test_a_router_that_read_the_models_before_a_promotion_opens_no_epoch_back(router):
    before = await running(router)
    make_champion(router, "streaming")
    noted = with_champion(before, "streaming", 1.0)
    await router.store.add(noted)  # by another router, which has read the models since
    assert router.catalog.known("late").champion.version == "plain"
    await router.experiments.refresh()
    assert router.experiments.find("e") == noted


# Restart


async def test_a_restart_is_a_draft_of_the_same_declaration_with_another_seed(router):
    before = await running(router, variants=ALIASED, coverage=0.2, metric="brier")
    await router.experiments.ramp("e", Ramp(coverage=1.0))
    make_champion(router, "streaming")
    again = await router.experiments.restart("e", Restart(reason="anew", changed_by="ann"))
    assert (again.name, again.restart_of, again.status, again.revision, again.epoch) == ("e-2", "e", "draft", 1, 0)
    assert again.seed != before.seed
    assert (again.metric, again.coverage, again.reason, again.changed_by) == ("brier", 0.2, "anew", "ann")
    assert again.variants == [VariantAllocation("old", "champion", 0.5, "champion"), ARMS[1]]
    await router.experiments.stop("e")
    assert (await router.experiments.start("e-2")).variants[0].version == "streaming"
    assert (await router.experiments.restart("e-2", Restart())).name == "e-3"


async def test_a_restart_s_name_is_free_or_refused(router):
    await running(router)
    await router.experiments.create(new("e-2", namespace=Namespace("n", 0.0, 0.5)))
    assert (await router.experiments.restart("e", Restart())).name == "e-3"
    assert (await router.experiments.restart("e", Restart("other"))).name == "other"
    with pytest.raises(ExperimentExistsError):
        await router.experiments.restart("e", Restart("other"))
    with pytest.raises(InvalidField, match="name must be"):
        await router.experiments.restart("e", Restart(""))
    with pytest.raises(ExperimentStateError, match="is a draft"):
        await router.experiments.restart("other", Restart())
    with pytest.raises(UnknownExperimentError):
        await router.experiments.restart("none", Restart())


async def test_a_long_name_leaves_room_for_its_number(router):
    await running(router, "x" * 100)
    again = await router.experiments.restart("x" * 100, Restart())
    assert again.name == "x" * 95 + "-2"


async def test_a_canary_restarts_at_its_first_step(router):
    await running(router, canary=Canary([0.1, 0.5]))
    await router.experiments.reallocate("e", None, 1.0, 1, "rows")
    again = await router.experiments.restart("e", Restart())
    assert (again.step, again.coverage) == (0, 0.2)


# Reads


async def test_an_experiment_that_another_router_created_a_moment_ago_is_there(router):
    other = beside(router)
    created = await other.create(new())
    assert await router.experiments.at("e", RevisionQuery()) == created
    await other.create(new("f"))
    assert (await router.experiments.readiness("f")).ready


async def test_a_revision_is_read_by_its_number_or_as_of_a_time(router):
    await router.experiments.create(new())
    router.clock.advance(10)
    await router.experiments.start("e")
    router.clock.advance(10)
    newest = await router.experiments.stop("e")
    begun = newest.changed_at - 20
    assert await router.experiments.at("e", RevisionQuery()) == newest
    for number, status in ((1, "draft"), (2, "running"), (3, "stopped")):
        assert (await router.experiments.at("e", RevisionQuery(revision=number))).status == status
    for seconds, status in ((0, "draft"), (9.9, "draft"), (10, "running"), (1e9, "stopped")):
        assert (await router.experiments.at("e", RevisionQuery(as_of=begun + seconds))).status == status
    with pytest.raises(UnknownExperimentError, match="has no revision 9: the newest is 3"):
        await router.experiments.at("e", RevisionQuery(revision=9))
    with pytest.raises(UnknownExperimentError, match=r"was not there at \d{4}-\d\d-\d\d .* UTC: it begins at \d{4}"):
        await router.experiments.at("e", RevisionQuery(as_of=begun - 1))
    for wrong in (RevisionQuery(1, 2.0), RevisionQuery(as_of=float("nan"))):
        with pytest.raises(InvalidField):
            await router.experiments.at("e", wrong)
    assert [len(entry.changes) > 0 for entry in await router.experiments.history("e")] == [False, True, True]
    with pytest.raises(UnknownExperimentError):
        await router.experiments.history("none")
