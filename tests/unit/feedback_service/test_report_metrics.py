"""Experiments that are decided by reports other than outcomes, or by what is known with the answer."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from msgspec.structs import replace

from contender.contracts.experiments import Guardrail
from contender.contracts.feedback_service import Results
from contender.contracts.metrics import metric_about, metric_named
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.snapshots import PartitionSnapshot, SumsSnapshot
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.worlds import LATE_ENOUGH, START, WINDOW_S, Rows, World, rows

ROWS = 4000


def by_bucket(buckets: np.ndarray, weights: np.ndarray | None = None) -> dict[int, float]:
    counts = np.bincount(buckets, weights, BUCKETS)
    return {int(bucket): float(counts[bucket]) for bucket in np.flatnonzero(counts)}


def nothing_labelled(rng: np.random.Generator, n: int = ROWS) -> Rows:
    chosen = rows(rng, n)
    return Rows(chosen.arm, chosen.score, np.full(n, np.nan), chosen.bucket)


def shares(chosen: Rows, kind: str, hits: np.ndarray, late: np.ndarray | None = None) -> list[dict[str, SumsSnapshot]]:
    """The ledgers of each arm where rows are converted, or after their window."""
    metric, arms = metric_about(kind), []
    for arm in (0, 1):
        of = chosen.arm == arm
        totals = {metric.name: by_bucket(chosen.bucket[of & hits])}
        ledgers = {"served": SumsSnapshot(by_bucket(chosen.bucket[of]), totals)}
        if late is not None:
            ledgers[metric.late_ledger] = SumsSnapshot(by_bucket(chosen.bucket[of & late]))
        arms.append(ledgers)
    return arms


def numbers(chosen: Rows, kind: str, values: np.ndarray, metric: str = "") -> list[dict[str, SumsSnapshot]]:
    """The ledgers of each arm where some rows have a number reported, others not one."""
    known, arms = ~np.isnan(values), []
    for arm in (0, 1):
        of = (chosen.arm == arm) & known
        totals = {metric or kind: by_bucket(chosen.bucket[of], values[of])}
        arms.append({kind: SumsSnapshot(by_bucket(chosen.bucket[of]), totals)})
    return arms


def served(chosen: Rows, values: dict[str, np.ndarray]) -> list[dict[str, SumsSnapshot]]:
    """The ledgers of each arm of what is known with the answer."""
    arms = []
    for arm in (0, 1):
        of = chosen.arm == arm
        totals = {}
        for name, value in values.items():
            keys, added = sums_of(metric_named(name)).value_additions(chosen.bucket[of], value[of])
            counts = np.bincount(keys, added)
            totals[name] = {int(key): float(counts[key]) for key in np.flatnonzero(counts)}
        arms.append({"served": SumsSnapshot(by_bucket(chosen.bucket[of]), totals)})
    return arms


@dataclass
class Reported:
    """An experiment with further ledgers, and what is remembered of it."""

    metric: str
    declared: dict[str, object] = field(default_factory=dict)
    missing: str = "excluded"
    memory: Memory = field(default_factory=Memory)

    def look(self, chosen: Rows, ledgers: list[dict[str, SumsSnapshot]], watermark: float = LATE_ENOUGH) -> Results:
        world = World(declared={"metric": self.metric, **self.declared}, missing=self.missing)
        snapshot = world.snapshot(chosen, watermark)
        groups = [
            replace(group, cohorts=[replace(group.cohorts[0], ledgers=of)])
            for group, of in zip(snapshot.groups, ledgers, strict=True)
        ]
        look = results_of("e", world.revision, [PartitionSnapshot(snapshot.status, groups)], LATE_ENOUGH, self.memory)
        assert look is not None
        self.memory = look.memory
        return look.results


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_conversions_decide_over_all_rows_once_late_ones_were_waited_for(rng):
    chosen = nothing_labelled(rng)
    hits = rng.random(ROWS) < np.where(chosen.arm == 1, 0.4, 0.2)
    experiment = Reported("conversion")
    first = experiment.look(chosen, shares(chosen, "conversion", hits), START + WINDOW_S)
    assert first.verdict.status == "leading"
    assert "late conversions are waited for one more window of 1 hour" in first.verdict.sentence
    later = experiment.look(chosen, shares(chosen, "conversion", hits), START + 2 * WINDOW_S)
    assert later.verdict.status == "challenger better"
    assert "in conversion rate" in later.verdict.sentence
    effect = later.effects["challenger"]["conversion"]
    shown = [hits[chosen.arm == arm].mean() for arm in (0, 1)]
    assert (effect.n, effect.estimate) == (ROWS, pytest.approx(shown[1] - shown[0]))
    assert (later.checks["challenger"].arrival, effect.lower_is_better) == (None, False)
    assert later.variants[0].metrics["conversion"].mean == pytest.approx(shown[0])
    assert later.variants[0].live["conversion"].mean is None


def test_an_arm_without_a_single_conversion_has_a_rate_of_zero(rng):
    chosen = nothing_labelled(rng)
    hits = (rng.random(ROWS) < 0.2) & (chosen.arm == 1)
    results = Reported("conversion").look(chosen, shares(chosen, "conversion", hits))
    assert results.variants[0].metrics["conversion"].mean == 0.0
    assert results.effects["challenger"]["conversion"].better is True


def test_conversions_that_come_later_in_one_arm_withhold_the_verdict(rng):
    chosen = nothing_labelled(rng)
    converts, is_late = rng.random(ROWS) < 0.3, rng.random(ROWS) < np.where(chosen.arm == 1, 0.4, 0.05)
    ledgers = shares(chosen, "conversion", converts & ~is_late, converts & is_late)
    results = Reported("conversion").look(chosen, ledgers)
    assert results.verdict.status == "withheld: label tail"
    assert "conversions do not come equally late" in results.verdict.sentence


def test_answers_that_are_shown_less_often_breach_a_guardrail(rng):
    chosen = rows(rng, ROWS)
    is_shown = rng.random(ROWS) < np.array([0.9, 0.7])[chosen.arm]
    experiment = Reported("log_loss", {"guardrails": [Guardrail("shown_rate", 0.05)]})
    results = experiment.look(chosen, shares(chosen, "shown", is_shown))
    assert results.verdict.status == "stopped: guardrail"
    assert "worse than champion in shown rate by more than 0.05" in results.verdict.sentence
    for arm, variant in enumerate(results.variants):
        of = chosen.arm == arm
        rate = variant.metrics["shown_rate"]
        assert (variant.shown, rate.n) == (int((is_shown & of).sum()), int(of.sum()))
        assert rate.mean == pytest.approx(is_shown[of].mean())
        assert rate.low < rate.mean < rate.high


def test_overrides_are_a_share_of_what_people_decided(rng):
    chosen = rows(rng, ROWS)
    overridden = np.where(rng.random(ROWS) < 0.3, rng.random(ROWS) < np.array([0.5, 0.1])[chosen.arm], np.nan)
    ledgers = numbers(chosen, "decided", overridden, "override_rate")
    results = Reported("log_loss").look(chosen, ledgers)
    effect = results.effects["challenger"]["override_rate"]
    assert (effect.better, effect.n) == (True, int((~np.isnan(overridden)).sum()))
    for arm, variant in enumerate(results.variants):
        of = overridden[(chosen.arm == arm) & ~np.isnan(overridden)]
        assert (variant.decided, variant.overridden) == (len(of), int(of.sum()))
        assert variant.metrics["override_rate"].mean == pytest.approx(of.mean())


def test_decisions_that_do_not_arrive_alike_withhold_a_verdict_on_them(rng):
    chosen = rows(rng, ROWS)
    values = np.where(rng.random(ROWS) < np.array([0.8, 0.5])[chosen.arm], 0.0, np.nan)
    results = Reported("override_rate").look(chosen, numbers(chosen, "decided", values, "override_rate"))
    assert results.verdict.status == "withheld: label arrival"
    assert "decisions do not arrive alike" in results.verdict.sentence


def test_fewer_complaints_are_better(rng):
    chosen = nothing_labelled(rng)
    hits = rng.random(ROWS) < np.where(chosen.arm == 1, 0.08, 0.2)
    experiment = Reported("complaint_rate")
    for watermark in (START + WINDOW_S, START + 3 * WINDOW_S):
        results = experiment.look(chosen, shares(chosen, "complaint", hits), watermark)
    assert results.verdict.status == "challenger better"


def test_ratings_decide_over_the_rated_rows(rng):
    chosen = nothing_labelled(rng)
    values = np.where(rng.random(ROWS) < 0.3, rng.normal(3.0 + 0.5 * chosen.arm), np.nan)
    results = Reported("rating").look(chosen, numbers(chosen, "rating", values))
    assert results.verdict.status == "challenger better"
    effect = results.effects["challenger"]["rating"]
    assert (effect.n, effect.estimate) == (np.sum(~np.isnan(values)), pytest.approx(0.5, abs=0.15))
    assert results.checks["challenger"].arrival is not None


def test_ratings_that_do_not_arrive_alike_withhold_the_verdict_even_where_missing_labels_mean_negative(rng):
    chosen = nothing_labelled(rng)
    is_rated = rng.random(ROWS) < np.where(chosen.arm == 1, 0.5, 0.3)
    values = np.where(is_rated, rng.normal(3.0, 1.0, ROWS), np.nan)
    results = Reported("rating", missing="negative").look(chosen, numbers(chosen, "rating", values))
    assert results.verdict.status == "withheld: label arrival"
    assert "ratings do not arrive alike" in results.verdict.sentence


def test_too_few_ratings_are_too_few_however_many_rows_there_are(rng):
    chosen = nothing_labelled(rng)
    values = np.full(ROWS, np.nan)
    values[:150] = 4.0 + chosen.arm[:150]
    results = Reported("rating").look(chosen, numbers(chosen, "rating", values))
    assert results.verdict.status == "withheld: too few"


@pytest.mark.parametrize("metric", ["latency", "latency_p95"])
def test_a_faster_challenger_is_better_without_a_single_label(rng, metric):
    chosen = nothing_labelled(rng)
    latencies = rng.lognormal(3.0 - 0.5 * chosen.arm, 0.5)
    results = Reported(metric).look(chosen, served(chosen, {metric: latencies}), START)
    assert results.verdict.status == "challenger better"
    effect = results.effects["challenger"][metric]
    wanted = (np.quantile(latencies[chosen.arm == arm], 0.95) for arm in (1, 0))
    if metric == "latency":
        wanted = (latencies[chosen.arm == arm].mean() for arm in (1, 0))
    assert effect.estimate == pytest.approx(np.subtract(*wanted), rel=0.1)
    checks = results.checks["challenger"]
    assert (checks.arrival, checks.tail) == (None, None)
    interval = results.variants[0].metrics[metric]
    assert interval.low < interval.mean < interval.high


def test_a_guardrail_on_latency_stops_an_experiment_on_conversions(rng):
    chosen = nothing_labelled(rng)
    hits = rng.random(ROWS) < 0.2
    ledgers = [
        {"served": SumsSnapshot(slow["served"].rows, slow["served"].totals | conversions["served"].totals)}
        for slow, conversions in zip(
            served(chosen, {"latency_p95": rng.lognormal(3.0 + 0.5 * chosen.arm, 0.5)}),
            shares(chosen, "conversion", hits),
            strict=True,
        )
    ]
    experiment = Reported("conversion", {"guardrails": [Guardrail("latency_p95", 5.0)]})
    results = experiment.look(chosen, ledgers)
    assert results.verdict.status == "stopped: guardrail"
    assert "95th percentile of latency" in results.verdict.sentence


def test_a_metric_of_few_rows_is_shown_and_not_remembered(rng):
    """A conversion rate over all rows decides; the few ratings beside it have an interval of their own."""
    chosen = nothing_labelled(rng)
    values = np.full(ROWS, np.nan)
    values[:80] = rng.normal(3.0, 1.0, 80)
    ledgers = [
        known | rated
        for known, rated in zip(
            shares(chosen, "conversion", rng.random(ROWS) < 0.2), numbers(chosen, "rating", values), strict=True
        )
    ]
    experiment = Reported("conversion")
    assert experiment.look(chosen, ledgers).effects["challenger"]["rating"].low is not None
    assert set(experiment.memory.challengers["challenger"].sequences) == {"conversion"}


def test_reports_that_nobody_sends_are_not_shown_unless_the_experiment_rests_on_them(rng):
    chosen = rows(rng, ROWS)
    silent = [
        {"served": SumsSnapshot(ledgers["served"].rows, {"conversion": {}, "complaint_rate": {}})}
        for ledgers in shares(chosen, "conversion", np.zeros(ROWS, bool))
    ]
    about_reports = {"rating", "reward", "conversion", "complaint_rate", "shown_rate", "override_rate"}

    def shown(metric: str, ledgers: list[dict[str, SumsSnapshot]], **declared: object) -> set[str]:
        found = set(Reported(metric, declared).look(chosen, ledgers).variants[0].metrics)
        assert {"latency", "latency_p95", "fallback_rate", "degraded_rate"} <= found
        return about_reports & found

    assert shown("log_loss", silent) == set()
    assert shown("conversion", silent) == {"conversion"}
    assert shown("log_loss", silent, guardrails=[Guardrail("reward", 1.0)]) == {"reward"}
    assert shown("log_loss", numbers(chosen, "rating", np.zeros(ROWS))) == {"rating"}
    assert shown("log_loss", shares(chosen, "complaint", rng.random(ROWS) < 0.1)) == {"complaint_rate"}
