"""What an experiment may be, how it runs, who is assigned what, and that its revisions are kept and sent."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EIO

import msgspec
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from contender.contracts.experiments import ExperimentRevision, Guardrail, NewExperiment, VariantAllocation
from contender.contracts.inference_service import InputColumn, ModelVersion
from contender.contracts.metrics import Metric
from contender.contracts.tasks import TaskName
from embedded.ports import free_ports
from services.ab_router.domain.experiments import draft, started, stopped
from services.ab_router.domain.metric_faults import unmet_needs
from services.ab_router.errors import ExperimentStateError, ExperimentStoreError
from services.ab_router.handlers.experiments import Experiments
from services.ab_router.main import _kept_fresh
from services.ab_router.store import InMemoryExperimentStore, SqlExperimentStore
from shared.errors import InvalidField
from shared.topics import EXPERIMENTS

HALVES = [VariantAllocation("old", "v1", 0.5), VariantAllocation("new", "v2", 0.5)]


def version(name: str, task: TaskName = "binary", classes: tuple[str, ...] = ("no", "yes")) -> ModelVersion:
    return ModelVersion(model="m", version=name, task=task, classes=list(classes), inputs=[], registered_at=1.0)


VERSIONS = {
    known.version: known for known in (version("v1"), version("v2"), version("v3"), version("v4", classes=("a", "b")))
}


def new(**changes: object) -> NewExperiment:
    return msgspec.structs.replace(NewExperiment(name="e", model="m", variants=HALVES), **changes)


def drafted(**changes: object) -> ExperimentRevision:
    return draft(new(**changes), VERSIONS, seed="seed", now=10.0)


def of_task(task: TaskName) -> dict[str, ModelVersion]:
    return {name: version(name, task) for name in ("v1", "v2")}


def refused_fields(experiment: NewExperiment, versions: dict[str, ModelVersion] = VERSIONS) -> list[str]:
    with pytest.raises(InvalidField) as refused:
        draft(experiment, versions, seed="seed", now=10.0)
    assert all(error.field in refused.value.detail for error in refused.value.errors)
    return [error.field for error in refused.value.errors]


def test_a_draft_is_the_first_revision_and_assigns_in_no_epoch():
    asked = new(metric="brier", window_s=60.0, missing="negative", alpha=0.1, tuning_n=7, coverage=0.4)
    revision = draft(asked, VERSIONS, seed="seed", now=10.0)
    assert (revision.revision, revision.epoch, revision.status) == (1, 0, "draft")
    assert (revision.seed, revision.changed_at, revision.started_at) == ("seed", 10.0, None)
    for name in ("name", "model", "variants", "metric", "window_s", "missing", "alpha", "tuning_n", "coverage"):
        assert getattr(revision, name) == getattr(asked, name)


def test_the_seed_of_another_installation_is_kept():
    assert draft(new(seed="there"), VERSIONS, seed="fresh", now=10.0).seed == "there"
    assert refused_fields(new(seed="x" * 101)) == ["seed"]


def test_the_first_variant_is_the_champion_unless_another_is_named():
    assert drafted().champion == "old"
    assert drafted(champion="new").champion == "new"


def test_a_draft_starts_and_then_stops_for_good():
    running = started(drafted(), 20.0)
    assert (running.revision, running.epoch, running.status) == (2, 1, "running")
    assert (running.started_at, running.changed_at) == (20.0, 20.0)
    over = stopped(running, 30.0)
    assert (over.revision, over.epoch, over.status) == (3, 1, "stopped")
    assert (over.started_at, over.stopped_at, over.changed_at) == (20.0, 30.0, 30.0)
    kept = {"revision", "epoch", "status", "started_at", "stopped_at", "changed_at"}
    assert all(getattr(over, name) == getattr(running, name) for name in over.__struct_fields__ if name not in kept)


def test_an_experiment_never_runs_twice():
    running = started(drafted(), 20.0)
    for revision in (running, stopped(running, 30.0)):
        with pytest.raises(ExperimentStateError, match=revision.status):
            started(revision, 40.0)


def test_only_what_runs_can_be_stopped():
    for revision in (drafted(), stopped(started(drafted(), 20.0), 30.0)):
        with pytest.raises(ExperimentStateError, match=revision.status):
            stopped(revision, 40.0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "-a"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"champion": "other"}, "champion"),
        ({"champion": ""}, "champion"),
        ({"metric": "absolute_error"}, "metric"),
        ({"metric": "accuracy "}, "metric"),
        ({"window_s": 0.0}, "window_s"),
        ({"window_s": float("inf")}, "window_s"),
        ({"window_s": float("nan")}, "window_s"),
        ({"window_s": 0.9}, "window_s"),
        ({"window_s": 1e308}, "window_s"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": 5e-324}, "alpha"),
        ({"alpha": 0.51}, "alpha"),
        ({"tuning_n": 0}, "tuning_n"),
        ({"tuning_n": 10**9 + 1}, "tuning_n"),
        ({"tuning_n": 10**400}, "tuning_n"),
        ({"coverage": 5e-324}, "coverage"),
        ({"coverage": 0.0}, "coverage"),
        ({"coverage": 1.01}, "coverage"),
        ({"coverage": float("nan")}, "coverage"),
        ({"hypothesis": "non-inferiority"}, "margin"),
        ({"hypothesis": "no difference"}, "margin"),
        ({"margin": -0.1}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"early_s": -1.0}, "early_s"),
        ({"early_s": 86_401.0}, "early_s"),
        ({"time_zone": ""}, "time_zone"),
        ({"time_zone": "Europe"}, "time_zone"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../UTC"}, "time_zone"),
        ({"time_zone": "/etc/localtime"}, "time_zone"),
        ({"time_zone": "a\0"}, "time_zone"),
        ({"time_zone": "x" * 10_000}, "time_zone"),
        ({"cycle_days": -1}, "cycle_days"),
        ({"cycle_days": 367}, "cycle_days"),
        ({"cycle_days": 0}, "cycle_reason"),
        ({"cycle_days": 0, "cycle_reason": " "}, "cycle_reason"),
        ({"cycle_days": 0, "cycle_reason": "x" * 501}, "cycle_reason"),
        ({"cycle_days": 7, "cycle_reason": "a test"}, "cycle_reason"),
        ({"horizon_rows": 199}, "horizon_rows"),
        ({"horizon_rows": 10**10}, "horizon_rows"),
        ({"log_loss_clip": 0.0}, "log_loss_clip"),
        ({"log_loss_clip": 0.2}, "log_loss_clip"),
        ({"label_range": (0.0, 1.0)}, "label_range"),
        ({"guardrails": [Guardrail("auc"), Guardrail("auc", 0.1)]}, "guardrails"),
        ({"guardrails": [Guardrail("squared_error")]}, "guardrails[0].metric"),
        ({"guardrails": [Guardrail("brier", -1.0)]}, "guardrails[0].margin"),
        ({"guardrails": [Guardrail("brier")] * 11}, "guardrails"),
        ({"error_limit": 10.0}, "error_limit"),
        ({"shadow_share": 0.5}, "shadow_share"),
        ({"shadow_share": 0.0}, "shadow_share"),
        ({"outcome": "independent of the answer", "shadow_share": 1.5}, "shadow_share"),
        ({"outcome": "independent of the answer", "shadow_share": float("nan")}, "shadow_share"),
        ({"labels_seen_if": "score < 0.3"}, "exploration_share"),
        ({"exploration_share": 0.01}, "exploration_share"),
        ({"labels_seen_if": "score < 0.3", "exploration_share": 0.03}, "exploration_share"),
        ({"labels_seen_if": "score < 0.3", "exploration_share": 1.0}, "exploration_share"),
        ({"labels_seen_if": "score < 0.3", "exploration_share": 1 / 10_001}, "exploration_share"),
        ({"labels_seen_if": "score < 0.3", "exploration_share": 5e-324}, "exploration_share"),
        ({"labels_seen_if": "score < 0.3", "exploration_share": -0.01}, "exploration_share"),
        ({"labels_seen_if": "score < 0.3", "exploration_share": float("nan")}, "exploration_share"),
        ({"labels_seen_if": "score <", "exploration_share": 0.01}, "labels_seen_if"),
        ({"labels_seen_if": "score", "exploration_share": 0.01}, "labels_seen_if"),
        ({"labels_seen_if": "outcome == 1", "exploration_share": 0.01}, "labels_seen_if"),
        ({"labels_seen_if": "income < 3", "exploration_share": 0.01}, "labels_seen_if"),
        ({"labels_seen_if": "score < 0.3" + " " * 1_000, "exploration_share": 0.01}, "labels_seen_if"),
        ({"value": "if(outcome == 1, 20"}, "value"),
        ({"value": "result"}, "value"),
        ({"segments": ["a"] * 11}, "segments"),
        ({"segments": ["country", "country"]}, "segments"),
        ({"segments": ["country", ""]}, "segments[1]"),
        ({"segments": ["x" * 101]}, "segments[0]"),
        ({"segments": ["country"], "metric": "auc"}, "segments"),
        ({"guardrails": [Guardrail("brier", 0.1, "country")]}, "guardrails[0].segment"),
        ({"segments": ["age"], "guardrails": [Guardrail("brier", 0.1, "country")]}, "guardrails[0].segment"),
        ({"segments": ["age"], "guardrails": [Guardrail("auc", 0.1, "age")]}, "guardrails[0].segment"),
        ({"segments": ["age"], "guardrails": [Guardrail("brier", 0.1, "age")] * 2}, "guardrails"),
        ({"fallback_value": 0.0}, "fallback_value"),
        ({"fallback_value": 1.0}, "fallback_value"),
        ({"fallback_value": float("nan")}, "fallback_value"),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(changes, field):
    assert refused_fields(new(**changes)) == [field]


def test_every_wrong_field_is_named_at_once():
    assert refused_fields(new(name="?", metric="r2", alpha=2.0, coverage=-1.0)) == [
        "name",
        "alpha",
        "coverage",
        "metric",
    ]


def test_a_design_is_kept_as_it_was_declared():
    design = {
        "hypothesis": "non-inferiority",
        "margin": 0.01,
        "guardrails": [Guardrail("auc", 0.02), Guardrail("brier"), Guardrail("brier", 0.1, "age")],
        "early_s": 0.0,
        "clock": "event",
        "time_zone": "America/New_York",
        "cycle_days": 0,
        "cycle_reason": "a replay in shuffled order",
        "horizon_rows": 20_000,
        "log_loss_clip": 1e-6,
        "outcome": "independent of the answer",
        "shadow_share": 0.25,
        "labels_seen_if": "score < 0.3 and label == 'no'",
        "exploration_share": 1 / 3,
        "segments": ["country", "age"],
        "correction": "holm",
        "value": "if(outcome == 1, 20, 0) - if(score > 0.3, 2, 0)",
    }
    running = started(drafted(**design), 20.0)
    assert {name: getattr(running, name) for name in design} == design


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_missing_label_means_the_negative_outcome_only_where_there_is_one(task):
    metric = "accuracy" if task == "multiclass" else "absolute_error"
    assert refused_fields(new(metric=metric, missing="negative"), of_task(task)) == ["missing"]
    assert drafted(missing="negative").missing == "negative"


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_the_labels_of_a_regression_may_have_a_range(bounds):
    ranged = new(metric="absolute_error", label_range=(-10.0, 200.0))
    assert draft(ranged, of_task("regression"), seed="s", now=1.0).label_range == (-10.0, 200.0)
    assert refused_fields(new(metric="absolute_error", label_range=bounds), of_task("regression")) == ["label_range"]


@pytest.mark.parametrize("whole", [2, 3, 7, 49, 100, 997, 9_999, 10_000])
def test_an_exploration_share_is_one_over_a_whole_number(whole):
    explored = {"labels_seen_if": "score < 0.3", "exploration_share": 1 / whole}
    assert drafted(**explored).exploration_share == 1 / whole
    assert refused_fields(new(**{**explored, "exploration_share": 1 / (whole + 0.5)})) == ["exploration_share"]


def with_inputs(*names: str, task: TaskName = "binary") -> ModelVersion:
    columns = [InputColumn(name, "float") for name in names]
    return msgspec.structs.replace(version("v", task), inputs=columns)


def test_a_formula_may_use_the_inputs_that_every_version_has():
    versions = {"v1": with_inputs("age", "income"), "v2": with_inputs("income", "distance")}
    explored = {"labels_seen_if": "income > 3", "exploration_share": 0.5, "value": "outcome * income"}
    assert draft(new(**explored), versions, seed="s", now=1.0).value == "outcome * income"
    with pytest.raises(InvalidField, match=r"value .* at position 10; it may use income, label, outcome, score"):
        draft(new(value="outcome * age"), versions, seed="s", now=1.0)


def test_a_formula_can_not_use_the_score_of_a_multiclass_model_which_is_a_list():
    explored = {"metric": "accuracy", "exploration_share": 0.5}
    by_label = new(**explored, labels_seen_if="label == 'no'")
    assert draft(by_label, of_task("multiclass"), seed="s", now=1.0).labels_seen_if == "label == 'no'"
    by_score = new(**explored, labels_seen_if="score < 0.3")
    assert refused_fields(by_score, of_task("multiclass")) == ["labels_seen_if"]


def test_what_a_metric_of_the_verdict_needs_must_be_declared():
    metrics = {"worth": Metric("worth", "worth", needs="value"), "capped": Metric("capped", "c", needs="error_limit")}
    guarded = new(metric="worth", guardrails=[Guardrail("capped"), Guardrail("worth"), Guardrail("other")])
    faults = list(unmet_needs(guarded, metrics))
    assert [fault.field for fault in faults] == ["value", "error_limit"]
    assert faults[0].message == "must be declared: the metric worth is computed by it"
    assert list(unmet_needs(msgspec.structs.replace(guarded, value="score", error_limit=1.0), metrics)) == []


def test_errors_of_a_regression_may_be_limited():
    limited = new(metric="absolute_error", error_limit=120.0)
    assert draft(limited, of_task("regression"), seed="s", now=1.0).error_limit == 120.0
    for limit in (0.0, -1.0, float("nan"), 1e13):
        refused = new(metric="absolute_error", error_limit=limit)
        assert refused_fields(refused, of_task("regression")) == ["error_limit"]


def of_targets(*ranges: tuple[float, float] | None) -> dict[str, ModelVersion]:
    """Versions v1, v2 and so on of a regression, by what they were trained on."""
    return {
        f"v{at}": msgspec.structs.replace(version(f"v{at}", "regression"), target_range=bounds)
        for at, bounds in enumerate(ranges, start=1)
    }


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (((0.0, 10.0), (5.0, 20.0)), (-20.0, 40.0)),
        (((0.0, 10.0), (2.0, 3.0), (-1e6, 1e6)), (-10.0, 20.0)),
        (((0.0, 10.0), None), None),
        ((None, None), None),
        (((3.0, 3.0), (3.0, 3.0)), None),
        (((-1e308, 1e308), (0.0, 1.0)), None),
    ],
)
def test_the_label_range_of_a_regression_is_by_default_wider_than_the_targets_of_its_versions(ranges, expected):
    declared = new(metric="absolute_error")
    assert draft(declared, of_targets(*ranges), seed="s", now=1.0).label_range == expected
    declared = new(metric="absolute_error", label_range=(1.0, 2.0))
    assert draft(declared, of_targets(*ranges), seed="s", now=1.0).label_range == (1.0, 2.0)


@pytest.mark.parametrize(
    ("weights", "coverage", "fields"),
    [
        ((0.95, 0.05), 0.001, ["variants[1].weight"]),
        ((0.99, 0.01), 0.005, ["variants[1].weight"]),
        ((0.999995, 0.000005), 1.0, ["variants[1].weight"]),
        ((0.5, 0.5), 0.0001, ["variants[0].weight", "variants[1].weight"]),
        ((0.95, 0.05), 0.02, []),
        ((0.99, 0.01), 1.0, []),
        ((1 / 3, 1 / 3, 1 / 3), 1.0, []),
    ],
)
def test_shares_that_the_hash_can_not_split_are_refused_with_what_they_would_be(weights, coverage, fields):
    variants = [VariantAllocation(f"arm-{at}", "v1", weight) for at, weight in enumerate(weights)]
    declared = new(variants=variants, coverage=coverage)
    if fields:
        assert refused_fields(declared) == fields
        with pytest.raises(InvalidField, match=r"would be [0-9.e-]+: the hash has 10,000 steps"):
            draft(declared, VERSIONS, seed="seed", now=10.0)
    else:
        assert len(drafted(variants=variants, coverage=coverage).variants) == len(weights)


def test_an_experiment_has_from_two_to_ten_variants():
    assert refused_fields(new(variants=[])) == ["variants", "variants"]
    assert refused_fields(new(variants=[VariantAllocation("only", "v1", 1.0)])) == ["variants"]
    ten = [VariantAllocation(f"arm-{number}", "v1", 0.1) for number in range(10)]
    assert drafted(variants=ten).champion == "arm-0"
    eleven = [VariantAllocation(f"arm-{number}", "v1", 1 / 11) for number in range(11)]
    assert refused_fields(new(variants=eleven)) == ["variants"]


@pytest.mark.parametrize(
    ("weights", "fields"),
    [
        ((0.5, 0.4), ["variants"]),
        ((0.5, 0.5 + 1e-6), ["variants"]),
        ((1.0, 0.0), ["variants[1].weight"]),
        ((1.0, 5e-324), ["variants[1].weight"]),
        ((1.5, -0.5), ["variants[0].weight", "variants[1].weight"]),
        ((0.5, float("nan")), ["variants", "variants[1].weight"]),
        ((1e308, 1e308), ["variants", "variants[0].weight", "variants[1].weight"]),
        ((float("inf"), float("-inf")), ["variants", "variants[0].weight", "variants[1].weight"]),
    ],
)
def test_weights_are_shares_of_one(weights, fields):
    variants = [VariantAllocation(f"arm-{at}", "v1", weight) for at, weight in enumerate(weights)]
    assert refused_fields(new(variants=variants)) == fields


def test_weights_need_only_add_up_to_one_as_floats_do():
    thirds = [VariantAllocation(f"arm-{at}", "v1", 1 / 3) for at in range(3)]
    assert len(drafted(variants=thirds).variants) == 3


def test_variants_have_names_of_their_own_and_versions_that_there_are():
    wrong = [
        VariantAllocation("same", "v1", 0.4),
        VariantAllocation("same", "v9", 0.4),
        VariantAllocation("", "v2", 0.2),
    ]
    assert refused_fields(new(variants=wrong)) == ["variants", "variants[1].version", "variants[2].name"]


def test_two_variants_may_share_a_version():
    twins = [VariantAllocation("a", "v1", 0.5), VariantAllocation("b", "v1", 0.5)]
    assert drafted(variants=twins).variants == twins


def test_versions_of_different_tasks_or_classes_can_not_be_compared():
    mixed = [VariantAllocation("a", "v1", 0.5), VariantAllocation("b", "v4", 0.5)]
    assert refused_fields(new(variants=mixed)) == ["variants"]
    versions = {"v1": version("v1"), "v2": version("v2", "regression", ())}
    assert refused_fields(new(), versions) == ["variants"]


@pytest.mark.parametrize(
    ("task", "accepted", "refused"),
    [
        ("binary", {"log_loss", "brier", "accuracy", "auc", "average_precision"}, {"absolute_error", "squared_error"}),
        ("multiclass", {"log_loss", "brier", "accuracy"}, {"squared_error"}),
        ("regression", {"absolute_error", "squared_error"}, {"log_loss", "accuracy"}),
    ],
)
def test_a_metric_is_one_of_the_models_task(task, accepted, refused):
    for metric in accepted:
        assert draft(new(metric=metric), of_task(task), seed="s", now=1.0).metric == metric
    for metric in refused:
        assert refused_fields(new(metric=metric), of_task(task)) == ["metric"]


def test_a_metric_that_is_only_shown_does_not_decide():
    with pytest.raises(InvalidField, match="metric must decide, and calibration_error is only shown: log_loss, brier"):
        drafted(metric="calibration_error")


def test_a_fallback_value_is_an_answer_that_the_model_could_give():
    assert drafted(fallback_value=0.3).fallback_value == 0.3
    regression = new(metric="absolute_error", fallback_value=-17.5)
    assert draft(regression, of_task("regression"), seed="s", now=1.0).fallback_value == -17.5
    endless = new(metric="absolute_error", fallback_value=float("inf"))
    assert refused_fields(endless, of_task("regression")) == ["fallback_value"]
    assert refused_fields(new(fallback_value=0.5), of_task("multiclass")) == ["fallback_value"]


IN_USE = NewExperiment(
    name="e",
    model="late",
    variants=[VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)],
)


def sent(router) -> list[ExperimentRevision]:
    return [EXPERIMENTS.decode(record.value) for record in router.records() if record.topic == EXPERIMENTS.name]


def fill(journal) -> None:
    journal.append("predictions", 0, None, [], b"x" * (journal.limit_bytes - journal.unsent_bytes - 40))


async def test_every_revision_is_kept_and_sent(router):
    await router.experiments.create(IN_USE)
    await router.experiments.start("e")
    await router.experiments.stop("e")
    assert [revision.status for revision in sent(router)] == ["draft", "running", "stopped"]
    assert await router.store.history("e") == sent(router)


async def test_every_experiment_has_a_seed_of_its_own(router):
    names = ("e", "f", "g")
    seeds = {(await router.experiments.create(msgspec.structs.replace(IN_USE, name=name))).seed for name in names}
    assert len(seeds) == 3


async def test_a_version_that_was_registered_a_moment_ago_can_be_in_an_experiment(router):
    fresh = msgspec.structs.replace(router.inference.registered[0], version="fresh", champion=False)
    router.inference.registered.append(fresh)
    variants = [IN_USE.variants[0], VariantAllocation("new", "fresh", 0.5)]
    created = await router.experiments.create(msgspec.structs.replace(IN_USE, variants=variants))
    assert created.variants[1].version == "fresh"


async def test_what_another_router_changed_is_seen_before_a_change_and_after_a_refresh(router):
    other = Experiments(router.store, router.journal, router.catalog, router.clock)
    await router.experiments.create(IN_USE)
    await other.start("e")
    with pytest.raises(ExperimentStateError, match="running"):
        await router.experiments.start("e")
    await other.stop("e")
    await router.experiments.refresh()
    assert router.experiments.in_force("late") == ()
    assert router.experiments.find("e").status == "stopped"


async def test_a_change_that_a_full_journal_can_not_take_holds_and_is_sent_later(router):
    fill(router.journal)
    await router.experiments.create(IN_USE)
    running = await router.experiments.start("e")
    assert router.experiments.in_force("late") == (running,)
    assert sent(router) == []
    router.journal.unsent_bytes = 0
    await router.experiments.refresh()
    assert sent(router) == [running]
    await router.experiments.refresh()
    assert len(sent(router)) == 1


async def test_a_change_that_the_disk_did_not_keep_is_sent_later(router):
    def failing(_: int) -> None:
        raise OSError(EIO, os.strerror(EIO))

    working, router.journal.sync_file = router.journal.sync_file, failing
    await router.experiments.create(IN_USE)
    running = await router.experiments.start("e")
    router.journal.sync_file = working
    await router.experiments.refresh()
    assert sent(router) == [running]


async def test_a_router_that_starts_sends_every_current_revision_again_once_there_is_room(router):
    await router.experiments.create(IN_USE)
    again = Experiments(router.store, router.journal, router.catalog, router.clock)
    fill(router.journal)
    await again.refresh()
    router.journal.unsent_bytes = 0
    await again.refresh()
    assert sent(router) == again.all() * 2


# The database is away


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """A port that takes connections and never answers."""
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_database_that_is_away_or_frozen_is_an_outage_and_no_fault_of_ours(is_frozen):
    async with silent_server() as port:
        engine = create_async_engine(f"postgresql+asyncpg://u:p@127.0.0.1:{port if is_frozen else free_ports(1)[0]}/x")
        store = SqlExperimentStore(engine, 0.2)
        for call in (store.current, lambda: store.history("e"), lambda: store.add(drafted())):
            with pytest.raises(ExperimentStoreError) as away:
                await call()
            assert away.value.retry_after_s == 1
            assert "127.0.0.1" not in away.value.detail
        await engine.dispose()


async def test_experiments_are_read_again_after_an_outage_of_the_database(router):
    class Store(InMemoryExperimentStore):
        outages = 3

        async def current(self) -> list[ExperimentRevision]:
            self.outages -= 1
            if self.outages >= 0:
                raise ExperimentStoreError("away")
            return await super().current()

    store = Store()
    experiments = Experiments(store, router.journal, router.catalog, router.clock)
    await store.add(drafted())
    async with _kept_fresh(experiments, 0.001), asyncio.timeout(60):
        while not experiments.all():
            await asyncio.sleep(0.001)
