"""What the pages draw and how they say numbers."""

import re

import msgspec
import pytest

from contender.contracts.feedback_service import (
    GET_RESULTS,
    Agreement,
    Checks,
    Constancy,
    CurvePoint,
    DayPoint,
    Effect,
    ExperimentSummary,
    Interval,
    Results,
    SegmentEffect,
)
from services.feedback_service.domain.split import BLOCKING_P
from services.feedback_service.drawings import axis, curve, value_curves
from services.feedback_service.pages import chance, check, duration, over_time, pages, state


def effect(low: float | None, high: float | None, **changes) -> Effect:
    fields = {"estimate": 0.0, "low": low, "high": high, "p": 0.5, "n": 10, "better": None, "lower_is_better": True}
    return Effect(**{**fields, **changes})


def test_the_challengers_share_one_axis_a_metric_and_it_says_which_side_is_better():
    shared = axis([effect(-0.1, 0.4), effect(-0.2, 0.1), effect(None, None)], lower_is_better=True)
    assert (shared.reach, shared.better_left) == (0.4, True)
    assert shared.x(-0.4) < shared.x(0.0) < shared.x(0.4)
    assert shared.x(0.0) == shared.width / 2
    assert axis([effect(None, None)], lower_is_better=True) is None


def test_a_curve_has_a_line_a_band_where_the_sequence_is_known_and_marks_at_whole_cycles():
    points = [DayPoint(f"2013-07-{day:02}", -0.1 * day, None, None) for day in range(1, 5)]
    points += [DayPoint(f"2013-07-{day:02}", -0.1, -0.3, 0.2) for day in range(5, 16)]
    drawn = curve(points, 7)
    assert len(drawn.line.split()) == 15
    assert len(drawn.band.split()) == 2 * 11
    assert drawn.cycles == [pytest.approx(640 * 6 / 14, abs=0.1), pytest.approx(640 * 13 / 14, abs=0.1)]
    assert (drawn.top, drawn.bottom) == (0.2, -0.4)
    assert curve(points[:1], 7) is None
    assert curve([DayPoint("a", 0.0, None, None)] * 2, 0).band == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(86_400, "1 day"), (172_800, "2 days"), (5_400, "90 minutes"), (3_600, "1 hour"), (1.5, "1.5 seconds")],
)
def test_lengths_of_time_are_said_in_the_largest_whole_unit(seconds, words):
    assert duration(seconds) == words


def test_small_chances_are_not_zero_and_states_and_checks_are_words():
    assert (chance(0.0), chance(0.0123)) == ("below 0.000001", "0.012")
    assert [state(status) for status in ("draft", "stopped", "unknown")] == [
        "not started",
        "stopped",
        "seen in predictions only",
    ]
    assert check(None, "tail") == ("Late labels are alike: too early to say", False)
    assert check(1e-9, "arrival") == ("Labels do not arrive alike (p below 0.000001)", True)
    assert check(0.4, "unanswered") == ("Unanswered rows are alike", False)


def test_whether_the_effect_changes_is_said_in_words():
    assert over_time(Constancy(), 0.05) == ""
    assert over_time(Constancy(0.3, 0.001), 0.05).startswith("No change")
    assert over_time(Constancy(0.003, -0.0012), 0.05) == "The effect changes over the days, by -0.0012 a day (p 0.003)."


def test_the_values_at_other_thresholds_share_their_axes():
    points = {"a": [CurvePoint(0.0, 1.0), CurvePoint(0.5, 3.0)], "b": [CurvePoint(0.5, 2.0), CurvePoint(1.0, 5.0)]}
    drawn = value_curves(points)
    assert (drawn.first, drawn.last, drawn.bottom, drawn.top) == (0.0, 1.0, 1.0, 5.0)
    assert drawn.lines == {"a": "0.0,164.0 320.0,82.0", "b": "320.0,123.0 640.0,0.0"}
    assert value_curves({"a": points["a"][:1]}) is None


def text_of(page: bytes) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.decode()).split())


def results(**changes) -> Results:
    example = msgspec.convert(GET_RESULTS.answer_example, Results)
    return msgspec.structs.replace(example, **changes)


def shown(found: Results) -> str:
    return text_of(bytes(pages.render("experiment.html", results=found, blocking_p=BLOCKING_P).body))


def test_a_page_without_further_designs_says_nothing_of_them():
    words = shown(results())
    for absent in (
        "became of the answers",
        "two variants have scored",
        "segment",
        "week by week",
        "thresholds",
        "same rows",
        "Paired",
        "Holm",
    ):
        assert absent not in words


def test_a_page_shows_segments_weeks_pairs_values_and_what_lies_ahead():
    known = results()
    paired = msgspec.structs.replace(known.effects["challenger"]["log_loss"], estimator="paired", decides=True)
    other = msgspec.structs.replace(paired, decides=False, corrected=True)
    part = {"estimate": -0.2, "low": -0.3, "high": -0.1}
    words = shown(
        results(
            effects={"challenger": {"log_loss": paired, "brier": other}},
            variants=[
                msgspec.structs.replace(variant, metrics={**variant.metrics, "brier": variant.metrics["log_loss"]})
                for variant in known.variants
            ],
            checks={"challenger": Checks(estimators=1e-5)},
            segments={
                "challenger": [
                    SegmentEffect(segment="plan", value="<pro>", n=1200, found=True, **part),
                    SegmentEffect(segment="plan", value=None, n=7, estimate=None, low=None, high=None),
                ]
            },
            weeks={"challenger": [DayPoint("2026-01-05", -0.1, -0.2, 0.05), DayPoint("2026-01-12", 0.1, None, None)]},
            constancy={"challenger": Constancy(0.002, 0.0286)},
            value_curve={"champion": [CurvePoint(0.0, 1.0), CurvePoint(1.0, 2.0)]},
        )
    )
    for present in (
        "log loss (decides), on the same rows",
        "corrected for their number (Holm)",
        "Paired and assigned rows disagree (p 1e-05)",
        "plan = &lt;pro&gt; 1,200 -0.2",
        "plan = rarer values 7 ? no interval yet",
        "2026-01-05 -0.1 -0.2 to +0.05",
        "2026-01-12 +0.1 none yet",
        "The effect changes over the days, by +0.0286 a day (p 0.002).",
        "Value at other thresholds",
    ):
        assert present in words, present


def test_a_page_says_how_many_answers_were_shown_and_overridden():
    champion, challenger = results().variants
    rates = {"shown_rate": Interval(0.9, 0.88, 0.92, 4800), "override_rate": Interval(0.25, None, None, 40)}
    known = msgspec.structs.replace(champion, shown=4500, decided=40, overridden=10, metrics=champion.metrics | rates)
    words = shown(results(variants=[known, challenger]))
    assert "champion 4,500 0.9 (0.88 to 0.92) 40 10 0.25 (no interval yet)" in words
    assert "challenger 0 ? 0 0 ?" in words


def test_a_page_says_how_far_shadow_scores_agree():
    agreement = Agreement(5000, 4000, Interval(0.93, 0.92, 0.94, 4000), Interval(0.02, 0.01, 0.03, 4000))
    words = shown(results(agreement={"challenger": agreement}))
    assert "challenger 4,000 5,000 0.93 (0.92 to 0.94) 0.02 (0.01 to 0.03)" in words


def test_the_list_has_the_effect_that_the_verdict_is_about():
    summary = ExperimentSummary("e", "running", "m", "log_loss", ["a", "b"], "leading", effect=effect(-0.2, -0.1))
    words = text_of(bytes(pages.render("overview.html", experiments=[summary]).body))
    assert "leading +0 in log loss 0 0" in words
