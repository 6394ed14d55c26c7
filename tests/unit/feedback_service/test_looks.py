"""Looks at an experiment: every status, and what is kept from look to look."""

import msgspec
import numpy as np
import pytest

from contender.contracts.experiments import Guardrail
from contender.contracts.feedback_service import Verdict
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.sums.units import BUCKETS
from tests.unit.feedback_service.worlds import LATE_ENOUGH, START, WINDOW_S, Rows, World, rows

BETTER, ALIKE, WORSE = (0.5, 0.25), (0.25, 0.25), (0.25, 0.5)


def seeded(seed=1):
    return np.random.default_rng(seed)


def verdict(world: World, *args, **seen) -> Verdict:
    return world.look(*args, **seen).results.verdict


@pytest.mark.parametrize(
    ("scores", "status"), [(BETTER, "challenger better"), (WORSE, "champion better"), (ALIKE, "collecting")]
)
def test_the_better_one_is_named(scores, status):
    found = verdict(World(), rows(seeded(), 4000, scores))
    assert (found.status, found.challenger) == (status, "challenger")
    assert found.decided == (status != "collecting")


def test_a_draft_has_not_started():
    draft = World(declared={"status": "draft", "started_at": None})
    look = results_of("e", draft.revision, [], START)
    found = look.results.verdict
    assert (found.status, found.sentence) == ("not started", "The experiment has not started yet.")
    assert look.memory == Memory()
    assert verdict(draft, rows(seeded(), 4000, BETTER)).status == "challenger better"  # rows come from elsewhere


def test_a_running_experiment_without_rows_has_too_few():
    assert verdict(World(), rows(seeded(), 0)).status == "withheld: too few"


def test_a_stopped_experiment_ends_without_a_verdict_once_nothing_is_waited_for():
    stopped = {"status": "stopped", "stopped_at": LATE_ENOUGH}
    assert verdict(World(declared=stopped), rows(seeded(), 4000), waiting=3).status == "collecting"
    found = verdict(World(declared=stopped), rows(seeded(), 4000))
    assert found.status == "ended"
    assert found.sentence.startswith("The experiment ended without a verdict, no difference in log loss shown: ")
    assert verdict(World(declared=stopped), rows(seeded(), 50)).status == "ended"


def test_rows_that_wait_are_named():
    sentence = verdict(World(), rows(seeded(), 4000), waiting=3).sentence
    assert "; 6 rows wait for their window to pass, until 8 November 2025, 00:01 UTC." in sentence


def test_a_verdict_stays_whatever_later_looks_show():
    world = World()
    first = world.look(rows(seeded(), 4000, BETTER), now=START + 5.0)
    later = world.look(rows(seeded(2), 4000), now=START + 9.0)
    assert first.results.verdict.status == later.results.verdict.status == "challenger better"
    assert later.results.verdict.sentence == first.results.verdict.sentence
    assert later.results.verdict.decided_at == START + 5.0
    event = world.memory.events[0]
    assert (event.number, event.kind, event.at, event.metric, event.revision) == (
        1,
        "decided",
        START + 5.0,
        "log_loss",
        1,
    )
    assert event.effect == first.results.effects["challenger"]["log_loss"]
    assert event.offsets == {"predictions": {"0": 7}, "feedback": {"0": 5}}


def test_looks_that_exclude_each_other_contradict_a_verdict_once():
    world = World()
    world.look(rows(seeded(), 4000, BETTER))
    found = [world.look(rows(seeded(2), 8000, WORSE), now=START + n).results.verdict for n in (60.0, 120.0)]
    assert [event.kind for event in world.memory.events] == ["decided", "contradicted"]
    assert found[0].status == found[1].status == "challenger better"
    assert found[0].findings == found[1].findings
    assert found[0].findings[0].startswith("Contradicted on 4 October 2024, 00:01 UTC: later looks exclude")


def test_a_check_that_fails_later_puts_a_verdict_in_question_once():
    world, some = World(), rows(seeded(), 6000, BETTER)
    world.look(some)
    lost = np.where((some.arm == 1) & (seeded(3).random(6000) < 0.4), np.nan, some.outcome)
    broken = Rows(some.arm, some.score, lost, some.bucket)
    for _ in range(2):
        found = world.look(broken).results.verdict
    assert found.status == "challenger better"
    assert [(event.kind, event.status) for event in world.memory.events] == [
        ("decided", "challenger better"),
        ("questioned", "withheld: label arrival"),
    ]
    assert "labels do not arrive alike for champion and challenger" in found.findings[0]


def test_a_look_without_news_changes_nothing_that_is_remembered():
    world, some = World(), rows(seeded(), 4000)
    world.look(some)
    before = world.memory
    world.look(some, now=LATE_ENOUGH + 60.0)
    assert world.memory == before


def test_a_memory_survives_json():
    world = World()
    world.look(rows(seeded(), 10))
    world.look(rows(seeded(), 4000, BETTER))
    assert msgspec.json.decode(msgspec.json.encode(world.memory), type=Memory) == world.memory


def test_looks_at_too_few_rows_are_not_remembered():
    world = World()
    world.look(rows(seeded(), 150, BETTER))
    assert world.memory.of("challenger").sequences == {}


def test_the_interval_is_what_all_looks_leave_and_p_the_least():
    world = World()
    first = world.look(rows(seeded(), 2000, (0.3, 0.25))).results.effects["challenger"]["log_loss"]
    second = world.look(rows(seeded(5), 2500, (0.3, 0.25))).results.effects["challenger"]["log_loss"]
    assert first.low <= second.low <= second.high <= first.high
    assert second.p <= first.p
    assert second.decides
    assert not world.look(rows(seeded(), 2000)).results.effects["challenger"]["brier"].decides


def test_withheld_effects_name_nobody():
    some = rows(seeded(), 6000, BETTER)
    lost = np.where((some.arm == 1) & (seeded(3).random(6000) < 0.4), np.nan, some.outcome)
    found = World().look(Rows(some.arm, some.score, lost, some.bucket)).results
    assert found.verdict.status == "withheld: label arrival"
    assert {effect.better for effect in found.effects["challenger"].values()} == {None}


def test_a_broken_split_is_remembered():
    world, some = World(), rows(seeded(), 6000, BETTER)
    found = verdict(world, some.of((some.arm == 0) | (some.bucket < 150)))
    assert found.status == "withheld: split"
    assert verdict(world, some).status == "withheld: split"


def test_rows_that_one_version_leaves_unanswered_withhold():
    some, dropped = rows(seeded(), 40_000), seeded(4).integers(0, BUCKETS, 240)
    found = World().look(some, unanswered=[dropped, dropped[:0]]).results
    assert found.verdict.status == "withheld: unanswered rows"
    assert "1.18 % and 0 % of their rows got no prediction" in found.verdict.sentence
    assert [variant.unanswered for variant in found.variants] == [240, 0]
    assert found.checks["challenger"].unanswered < 0.001


def test_a_unit_that_brings_most_rows_is_named():
    some = rows(seeded(), 4000)
    some.bucket[(some.arm == 1) & (seeded(6).random(4000) < 0.6)] = 17
    found = verdict(World(), some)
    assert found.status == "withheld: dominant unit"
    assert found.sentence.startswith(
        "No verdict: few units bring too many of the rows of challenger: 59.7 % are in one of"
    )


def test_few_groups_of_units_are_too_few():
    some = rows(seeded(), 4000)
    some.bucket[:] = some.bucket % 12
    found = verdict(World(), some)
    assert found.status == "withheld: too few"
    assert "they come from too few units" in found.sentence


@pytest.mark.parametrize(
    ("margin", "scores", "status"),
    [
        (0.05, (0.27, 0.25), "no worse"),
        (0.05, BETTER, "challenger better"),
        (0.02, WORSE, "champion better"),
        (0.001, (0.25, 0.27), "collecting"),
    ],
)
def test_non_inferiority_is_decided_at_its_margin(margin, scores, status):
    world = World(declared={"hypothesis": "non-inferiority", "margin": margin})
    assert verdict(world, rows(seeded(), 8000, scores)).status == status


@pytest.mark.parametrize(
    ("margin", "scores", "status"),
    [(0.08, (0.27, 0.25), "no difference"), (0.02, BETTER, "challenger better"), (0.01, (0.27, 0.25), "collecting")],
)
def test_no_difference_is_decided_at_its_margin(margin, scores, status):
    world = World(declared={"hypothesis": "no difference", "margin": margin})
    assert verdict(world, rows(seeded(), 8000, scores)).status == status


def test_a_breached_guardrail_stops_without_whole_days():
    declared = {"metric": "auc", "guardrails": [Guardrail("brier", 0.01)], "cycle_days": 7, "cycle_reason": ""}
    found = verdict(World(declared=declared), rows(seeded(), 4000, (0.25, 0.5)))
    assert found.status == "stopped: guardrail"
    assert found.sentence.startswith(
        "Guardrail breached: challenger is worse than champion in Brier score by more than 0.01: "
    )
    declared["guardrails"] = [Guardrail("brier", 0.1)]
    assert verdict(World(declared=declared), rows(seeded(), 4000, (0.25, 0.5))).status == "collecting"


def test_a_guardrail_that_is_breached_after_a_verdict_puts_it_in_question():
    declared = {"guardrails": [Guardrail("brier", 0.01)]}
    world = World(declared=declared)
    world.look(rows(seeded(), 4000, BETTER))
    found = verdict(world, rows(seeded(2), 8000, (0.25, 0.6)))
    assert found.status == "challenger better"
    assert "worse than champion in Brier score by more than 0.01" in found.findings[0]


def test_a_reason_against_days_is_in_the_sentence():
    assert verdict(World(), rows(seeded(), 4000, BETTER)).sentence.endswith(
        ". Days are left out of account: rows are independent."
    )


def test_p_values_allow_for_every_challenger():
    one = World().look(rows(seeded(), 3000, (0.27, 0.25))).results.effects["challenger"]["log_loss"]
    world = World(("champion", "challenger", "other"))
    both = world.look(rows(seeded(), 3000, (0.27, 0.25, 0.27))).results
    assert both.effects["challenger"]["log_loss"].p <= 1.0
    assert 0.0 < one.p <= 1.0
    raw = world.memory.of("challenger").sequences["log_loss"].p
    assert both.effects["challenger"]["log_loss"].p == pytest.approx(min(1.0, 2.0 * raw))


@pytest.mark.parametrize(("horizon", "decided"), [(3000, True), (None, False)])
def test_a_planned_end_has_a_look_of_its_own(horizon, decided):
    world = World(declared={"horizon_rows": horizon, "tuning_n": 50_000})
    statuses = [verdict(world, rows(seeded(8), 5000, (0.36, 0.25)).first(n)).status for n in range(500, 3501, 500)]
    assert ("challenger better" in statuses) == decided
    if decided:
        assert statuses.index("challenger better") >= 5
        assert 3000 <= world.memory.of("challenger").horizon.n < 3500


def test_a_planned_end_is_looked_at_once():
    world = World(declared={"horizon_rows": 1000})
    world.look(rows(seeded(), 1200))
    fixed = world.memory.of("challenger").horizon
    world.look(rows(seeded(), 3000, BETTER))
    assert world.memory.of("challenger").horizon == fixed


def test_a_fresh_regression_has_its_own_metrics():
    world = World(task="regression", declared={"metric": "absolute_error"})
    look = results_of("e", world.revision, [], START)
    assert look.results.metric == "absolute_error"
    served = ["fallback_rate", "degraded_rate", "latency", "latency_p95"]
    assert list(look.results.variants[0].metrics) == ["absolute_error", "squared_error", *served]


def test_missing_labels_that_mean_negative_have_no_live_figure():
    some = rows(seeded(), 4000)
    world = World(missing="negative")
    found = world.look(Rows(some.arm, some.score, np.where(some.outcome == 1.0, 1.0, np.nan), some.bucket)).results
    assert found.variants[0].live["accuracy"].mean is None
    assert found.variants[0].metrics["accuracy"].mean == pytest.approx(0.75, abs=0.05)


def test_missing_labels_of_a_regression_are_never_negative():
    rng = seeded()
    error = rng.normal(size=6000)
    arm = rng.integers(0, 2, 6000)
    seen = np.where((arm == 0) | (np.abs(error) < 1.3), error, np.nan)
    world = World(task="regression", missing="negative", declared={"metric": "absolute_error"})
    some = Rows(arm, np.zeros(6000), seen, rng.integers(0, BUCKETS, 6000))
    assert verdict(world, some).status == "withheld: label arrival"


def labelled_late(rng, n, slowness=3.0, window_s=WINDOW_S, old_s=20 * WINDOW_S):
    """Positive labels alone come, the challenger's later; rows are as old as `old_s` at most."""
    some = rows(rng, n)
    age_s = np.linspace(old_s, window_s, n)
    delay_s = rng.exponential(np.where(some.arm == 0, 1500.0, 1500.0 * slowness))
    positive = some.outcome == 1.0
    timely = positive & (delay_s <= window_s)
    late = positive & (delay_s > window_s) & (delay_s <= age_s)
    return Rows(some.arm, some.score, np.where(timely, 1.0, np.nan), some.bucket, late=late)


def test_labels_that_come_later_in_one_arm_withhold_whatever_a_missing_one_means():
    for missing in ("negative", "excluded"):
        found = World(missing=missing).look(labelled_late(seeded(), 8000)).results
        if missing == "excluded":
            assert found.checks["challenger"].tail < 0.001
        else:
            assert found.verdict.status == "withheld: label tail"
            assert "a window of about 4 hours would take in most of them" in found.verdict.sentence


def test_a_verdict_on_missing_labels_waits_for_late_ones():
    world = World(missing="negative", declared={"tuning_n": 1000})
    some = labelled_late(seeded(), 8000, slowness=1.0)
    some.score[:] = np.where(some.arm == 0, 0.5, 0.25)
    first = verdict(world, some, watermark=START + WINDOW_S)
    assert first.status == "leading"
    assert "late labels are waited for one more window of 1 hour, until 4 October 2024, 02:00 UTC" in first.sentence
    assert verdict(world, some, watermark=START + 2 * WINDOW_S).status == "challenger better"


def test_a_window_that_cuts_too_many_labels_off_gives_no_verdict():
    some = labelled_late(seeded(), 8000, slowness=1.0, window_s=600.0)
    some.score[:] = np.where(some.arm == 0, 0.5, 0.25)
    found = verdict(World(missing="negative", window_s=600.0), some)
    assert found.status == "withheld: label tail"
    assert "window of 10 minutes, which must take in 80 %" in found.sentence


def test_few_missing_labels_are_bounded_in_place_of_silence():
    rng = seeded()
    some = rows(rng, 200_000, (0.6, 0.25))
    share = np.where(some.arm == 0, 0.95, 0.94)
    some.outcome[rng.random(200_000) > share] = np.nan
    world = World(declared={"metric": "brier"})
    found = world.look(some).results
    assert found.checks["challenger"].arrival < 0.001
    assert found.verdict.status == "challenger better"
    assert "Labels do not arrive alike, but even in the worst case it is -0." in found.verdict.sentence


class TestSeveralChallengers:
    NAMES = ("champion", "first", "second")

    def found(self, scores, lost=0.0):
        some = rows(seeded(11), 9000, scores)
        some.outcome[(some.arm == 1) & (seeded(12).random(9000) < lost)] = np.nan
        results = World(self.NAMES).look(some).results
        return results.verdict, {verdict.challenger: verdict.status for verdict in results.verdicts}

    def test_the_best_of_those_shown_better_sums_up(self):
        summary, statuses = self.found((0.5, 0.35, 0.25))
        assert statuses == {"first": "challenger better", "second": "challenger better"}
        assert (summary.challenger, summary.status) == ("second", "challenger better")
        assert summary.sentence.startswith(
            "second is better, first is better. second is better than champion in log loss: "
        )

    def test_missing_labels_withhold_one_challenger_alone(self):
        summary, statuses = self.found((0.5, 0.35, 0.25), lost=0.3)
        assert statuses == {"first": "withheld: label arrival", "second": "challenger better"}
        assert summary.challenger == "second"

    def test_one_that_is_worse_leaves_the_other_open(self):
        summary, statuses = self.found((0.25, 0.5, 0.25))
        assert statuses == {"first": "champion better", "second": "collecting"}
        assert (summary.challenger, summary.status) == ("first", "champion better")
        assert "second is not decided yet" in summary.sentence


@pytest.mark.parametrize(("epoch", "matured"), [(1, {"champion": 300, "challenger": 400}), (2, {})])
def test_matured_rows_of_the_newest_epoch_that_the_metric_is_over_are_told_apart(epoch, matured):
    some = rows(seeded(), 800)
    some.arm = np.repeat([0, 1], 400)
    some.outcome[:100] = np.nan
    found = World(declared={"epoch": epoch}).look(some, waiting=3).results
    assert found.epoch == epoch
    assert [variant.matured for variant in found.variants] == [400, 400]
    assert [variant.epoch_matured for variant in found.variants] == [
        matured.get(each.name, 0) for each in found.variants
    ]


def test_a_missing_label_that_means_negative_counts_among_them():
    some = rows(seeded(), 800)
    some.outcome[:] = np.nan
    found = World(missing="negative").look(some).results
    assert [variant.epoch_matured for variant in found.variants] == [variant.matured for variant in found.variants]
