"""The effect by segment, which segments are found, and harm in one of them."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.integrate import quad

from contender.contracts.experiments import Guardrail
from contender.contracts.feedback_service import Results
from contender.contracts.metrics import LABELLED, metrics_of
from contender.contracts.tasks import task_named
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.segments import adjust, compare_groups, find
from services.feedback_service.domain.snapshots import PartitionSnapshot, SumsSnapshot, ledger_of
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from tests.unit.feedback_service.worlds import LATE_ENOUGH, Rows, World, rows


def ledgers(task: str, some: Rows, values: np.ndarray) -> dict[str, SumsSnapshot]:
    """The sums of rows by segment, as a worker publishes them."""
    found = {}
    for value in np.unique(values):
        of = some.of(values == value)
        groups = (of.bucket % 20).astype(np.uint8)
        labelled = LabelledRows(task, of.outcome, of.score, None, groups)
        totals = {}
        for metric in (known for known in metrics_of(task_named(task), LABELLED) if not known.needs):
            keys, added = sums_of(metric).additions(metric, labelled)
            if metric.value_range is not None and metric.sums == "mean":
                totals[metric.name] = dict(enumerate(np.bincount(keys, added, minlength=20).tolist()))
        counts = dict(enumerate(np.bincount(groups, minlength=20).tolist()))
        found[ledger_of("origin", None if value == "rest" else str(value))] = SumsSnapshot(counts, totals)
    return found


def published(world: World, some: Rows, values: np.ndarray, **seen) -> PartitionSnapshot:
    snapshot = world.snapshot(some, **seen)
    groups = []
    for arm, group in enumerate(snapshot.groups):
        of_arm = some.arm == arm
        by_segment = ledgers(world.task, some.of(of_arm), values[of_arm])
        groups.append(replace(group, cohorts=[replace(group.cohorts[0], ledgers=by_segment)]))
    return replace(snapshot, groups=groups)


def look(world: World, *snapshots: PartitionSnapshot) -> Results:
    found = results_of("e", world.revision, snapshots, LATE_ENOUGH, world.memory)
    assert found is not None
    world.memory = msgspec.msgpack.decode(msgspec.msgpack.encode(found.memory), type=Memory)
    return found.results


def harmed(seed=1, n=12_000, score=0.5) -> tuple[Rows, np.ndarray]:
    """Rows of three segments, of which the challenger answers worse to those from JFK; a few more are of rare ones."""
    rng = np.random.default_rng(seed)
    some = rows(rng, n)
    values = rng.choice(["JFK", "LGA", "EWR", "rest", "tiny"], n, p=[0.2, 0.4, 0.3, 0.09, 0.01])
    some.score[(some.arm == 1) & (values == "JFK")] = score
    return some, values


def segment_world(**declared) -> World:
    return World(declared={"segments": ["origin", "absent"], **declared})


def test_a_harmed_segment_is_found_and_the_others_are_not():
    world = segment_world(metric="brier")
    some, values = harmed()
    shown = look(world, published(world, some, values)).segments["challenger"]
    assert [(segment.value, segment.found) for segment in shown] == [
        ("LGA", False),
        ("EWR", False),
        ("JFK", True),
        ("tiny", False),
        (None, False),
    ]
    for segment in shown:
        value = segment.value or "rest"
        loss = np.square(some.score - some.outcome)
        means = [loss[(some.arm == arm) & (values == value)].mean() for arm in (0, 1)]
        assert segment.n == (values == value).sum()
        assert segment.segment == "origin"
        assert segment.estimate == pytest.approx(means[1] - means[0])
        assert (segment.low is None) == (value == "tiny")
    assert shown[2].low > 0.0


def test_what_was_found_is_remembered_and_partitions_add_up():
    world = segment_world()
    some, values = harmed(score=0.6)
    first = np.arange(12_000) < 5_000
    parts = [published(world, some.of(mask), values[mask]) for mask in (first, ~first)]
    whole = look(segment_world(), published(world, some, values)).segments["challenger"]
    both = look(world, *parts).segments["challenger"]
    assert [(s.value, s.n, s.found) for s in both] == [(s.value, s.n, s.found) for s in whole]
    assert [s.estimate for s in both] == pytest.approx([s.estimate for s in whole])
    assert set(world.memory.of("challenger").segments) >= {ledger_of("origin", "JFK")}
    again = look(world, *[published(world, *harmed(seed=2, score=0.25))]).segments["challenger"]
    assert [s.found for s in again if s.value == "JFK"] == [True]


def test_segments_of_a_metric_that_is_no_mean_are_not_shown():
    world = segment_world(metric="auc")
    assert look(world, published(world, *harmed())).segments == {"challenger": []}


def test_nothing_is_found_where_the_two_cannot_be_compared():
    world = segment_world()
    some, values = harmed(score=0.6)
    kept = (some.arm == 0) | (some.bucket < 150)
    results = look(world, published(world, some.of(kept), values[kept]))
    assert results.verdict.status == "withheld: split"
    assert not any(segment.found for segment in results.segments["challenger"])


@pytest.mark.parametrize(
    ("segment", "margin", "status"),
    [("origin", 0.01, "stopped: guardrail"), ("origin", 0.07, "collecting"), ("absent", 0.0, "collecting")],
)
def test_harm_in_one_segment_breaches_its_guardrail(segment, margin, status):
    world = segment_world(metric="accuracy", guardrails=[Guardrail("brier", margin, segment)])
    verdict = look(world, published(world, *harmed())).verdict
    assert verdict.status == status
    if status == "stopped: guardrail":
        assert verdict.sentence.startswith("Guardrail breached: challenger is worse than champion in Brier score where")
        assert "where origin is JFK by more than 0.01: " in verdict.sentence


def test_the_comparison_is_that_of_the_plainest_formula():
    rng = np.random.default_rng(5)
    counts = rng.integers(5, 40, (1, 2, 2, 20)).astype(float)
    totals = counts * rng.normal(0.3, 0.2, counts.shape)
    found = compare_groups(counts, totals)
    moved, value, weights = np.zeros(20), 0.0, []
    for (n0, n1), (t0, t1) in zip(counts[0], totals[0], strict=True):
        weight = n0.sum() * n1.sum() / (n0.sum() + n1.sum())
        means = t0.sum() / n0.sum(), t1.sum() / n1.sum()
        parts = [(t - m * n) / n.sum() * np.sqrt(20 / 19) for n, t, m in zip((n0, n1), (t0, t1), means, strict=True)]
        variances = [np.square(part).sum() for part in parts]
        arms = [n0.sum(), n1.sum()]
        pooled = sum(n**2 * v for n, v in zip(arms, variances, strict=True)) / sum(arms) * sum(1 / n for n in arms)
        moved += weight * np.sqrt(max(1.0, pooled / sum(variances))) * (parts[1] - parts[0])
        value += weight * (means[1] - means[0])
        weights.append(weight)
    assert found.values[0] == pytest.approx(value / sum(weights))
    assert found.errors[0] == pytest.approx(np.sqrt(np.square(moved).sum() * 19 / 17) / sum(weights))
    assert found.n[0] == counts.sum()


def test_one_unit_that_brings_most_rows_leaves_no_interval():
    counts = np.full((2, 1, 2, 20), 10.0)
    counts[1, 0, 1, 3] = 500.0
    errors = compare_groups(counts, counts * np.random.default_rng(1).normal(size=counts.shape)).errors
    assert np.isfinite(errors).tolist() == [True, False]


def test_two_constant_arms_are_strong_evidence_and_not_certainty():
    counts = np.full((2, 1, 2, 20), 10.0)
    totals = np.stack([counts[0] * np.array([0.0, 1.0])[:, np.newaxis], np.zeros((1, 2, 20))])
    errors = compare_groups(counts, totals).errors
    assert errors[0] == pytest.approx(1.0 / np.sqrt(40.0))
    assert errors[1] == np.inf


def test_the_adjuster_of_running_maxima_is_admissible():
    area, _ = quad(lambda log: float(adjust(np.exp([log]))[0]) * np.exp(-log), 0.0, 600.0, limit=500)
    assert area == pytest.approx(1.0, abs=0.005)  # the tail from 600 on is 1 / 600
    assert adjust(np.ones(1)).tolist() == [0.5]
    assert (np.diff(adjust(np.exp(np.linspace(0.0, 50.0, 1000)))) > 0.0).all()


def test_e_values_are_found_by_the_step_up_of_wang_and_ramdas():
    adjusted = adjust(np.array([1e6, 3e3, 3e3, 1.0]))
    assert adjusted[0] > 4 / 0.05 > adjusted[1] > 4 / (3 * 0.05)
    assert find(np.array([1e-6, 1 / 3e3, 1 / 3e3, 1.0]), 0.05).tolist() == [True, True, True, False]
    assert find(np.array([1e-6, 1.0, 1.0, 1.0]), 0.05).tolist() == [True, False, False, False]
    assert find(np.zeros(2), 0.05).tolist() == [True, True]
    assert find(np.ones(0), 0.05).tolist() == []
