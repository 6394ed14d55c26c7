"""Verdicts: which evidence gives which status, and the sentence that says it."""

from dataclasses import replace

import pytest

from contender.contracts.feedback_service import Checks, Counts
from services.feedback_service.domain.checks import CheckResults, Shares
from services.feedback_service.domain.confidence import ConfidenceSequence
from services.feedback_service.domain.memory import RunningSequence
from services.feedback_service.domain.sentences import Contest, DayCount, Waiting, duration, moment, p
from services.feedback_service.domain.sequences import Intervals, RowLook
from services.feedback_service.domain.spreads import Spread
from services.feedback_service.domain.verdicts import Evidence, judge

LOG_LOSS = Contest(champion="v1", challenger="v2", metric="log loss", lower_is_better=True)
ACCURACY = replace(LOG_LOSS, metric="accuracy", lower_is_better=False)


def effect(estimate: float, low: float, high: float) -> RowLook:
    running = RunningSequence(low, high, 0.0004)
    return RowLook(ConfidenceSequence(estimate, low, high, 0.0004, 10_208), Intervals(running, running))


LOWER = effect(-0.0312, -0.05, -0.0121)
HIGHER = effect(0.0312, 0.0121, 0.05)
UNCLEAR = effect(0.01, -0.01, 0.03)
SPREADS = Spread(5120, 200, 190.0, 0.01), Spread(5088, 200, 190.0, 0.01)
CHECKS = CheckResults(split_p=0.7, p=Checks(arrival=0.5), spreads=SPREADS)
ENOUGH = Evidence(effect=LOWER, checks=CHECKS)


@pytest.mark.parametrize(
    ("contest", "effect", "status"),
    [
        (LOG_LOSS, LOWER, "challenger better"),
        (LOG_LOSS, HIGHER, "champion better"),
        (ACCURACY, HIGHER, "challenger better"),
        (ACCURACY, LOWER, "champion better"),
        (LOG_LOSS, UNCLEAR, "collecting"),
    ],
)
def test_the_interval_decides_in_the_direction_of_the_metric(contest: Contest, effect: RowLook, status: str) -> None:
    verdict = judge(contest, replace(ENOUGH, effect=effect))
    assert verdict.status == status
    assert verdict.decided == (status != "collecting")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"split_p": 0.0009}, "withheld: split"),
        ({"p": Checks(arrival=0.0009)}, "withheld: label arrival"),
        ({"p": Checks(unanswered=0.0009)}, "withheld: unanswered rows"),
        ({"p": Checks(tail=0.0009)}, "withheld: label tail"),
        ({"p": Checks(arrival=0.0, tail=0.0), "split_p": 0.0}, "withheld: split"),
        ({"late": Shares(0.1, 0.21), "tail_at": 5.0, "needs_tail": True}, "withheld: label tail"),
        ({"late": Shares(0.1, 0.21), "tail_at": 5.0}, "challenger better"),
        ({"spreads": (replace(SPREADS[0], rows=99), SPREADS[1])}, "withheld: too few"),
        ({"spreads": (SPREADS[0], replace(SPREADS[1], filled=19))}, "withheld: too few"),
        ({"spreads": (SPREADS[0], replace(SPREADS[1], effective=9.9))}, "withheld: dominant unit"),
        ({"split_p": 0.001, "spreads": (replace(SPREADS[0], rows=100), SPREADS[1])}, "challenger better"),
    ],
)
def test_a_verdict_is_withheld_where_the_arms_cannot_be_compared(change: dict[str, object], status: str) -> None:
    assert judge(LOG_LOSS, replace(ENOUGH, checks=replace(CHECKS, **change))).status == status


def test_a_decision_is_one_sentence_with_its_numbers() -> None:
    assert judge(LOG_LOSS, ENOUGH).sentence == (
        "v2 is better than v1 in log loss: v2 minus v1 is -0.0312 (95 % interval -0.05 to -0.0121); "
        "v1 has 5,120 matured rows and v2 has 5,088."
    )


def test_an_open_question_is_one_sentence_with_its_numbers() -> None:
    contest = replace(LOG_LOSS, alpha=0.01)
    evidence = replace(ENOUGH, effect=UNCLEAR, waiting=Waiting(1, 1_800_000_000.0))
    assert judge(contest, evidence).sentence == (
        "No difference in log loss shown yet: v2 minus v1 is +0.01 (99 % interval -0.01 to +0.03); "
        "v1 has 5,120 matured rows and v2 has 5,088; "
        "1 row waits for its window to pass, until 15 January 2027, 08:00 UTC."
    )


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        (Counts(), ""),
        (Counts(refused=1, early=1), " 1 outcome was refused: 1 from before their prediction."),
        (
            Counts(refused=1200, early=150, hidden=50),
            (
                " 1,200 outcomes were refused: 1,000 that the model can't mean, out of range, or too many of a row, "
                "150 from before their prediction, 50 of rows whose label does not count."
            ),
        ),
    ],
)
def test_the_sentence_says_how_many_outcomes_were_refused_and_why(reports: Counts, words: str) -> None:
    sentence = judge(LOG_LOSS, replace(ENOUGH, reports=reports)).sentence
    assert sentence == judge(LOG_LOSS, ENOUGH).sentence + words


def test_reasons_to_withhold_are_sentences_with_their_numbers() -> None:
    def sentence(**change: object) -> str:
        return judge(LOG_LOSS, replace(ENOUGH, checks=replace(CHECKS, **change))).sentence

    assert sentence(split_p=1e-9) == (
        "No verdict: the traffic does not split between v1 and v2 as configured (p below 0.000001), "
        "so the two did not get comparable users."
    )
    assert sentence(p=Checks(arrival=0.00042), labelled=Shares(0.95, 0.7)) == (
        "No verdict: labels do not arrive alike for v1 and v2 (p 0.00042): 95 % and 70 % of the matured rows have one, "
        "so those rows of the two are not comparable."
    )
    assert sentence(spreads=(replace(SPREADS[0], rows=7), SPREADS[1])) == (
        "No verdict yet: v1 has 7 matured rows and v2 has 5,088, and each needs at least 100."
    )


def test_an_unknown_spread_is_said_in_words() -> None:
    infinity = float("inf")
    unknown = RowLook(
        ConfidenceSequence(0.0, -infinity, infinity, 1.0, 400), Intervals(RunningSequence(), RunningSequence())
    )
    verdict = judge(LOG_LOSS, replace(ENOUGH, effect=unknown))
    assert verdict.status == "collecting"
    assert "inf" not in verdict.sentence


def test_a_difference_that_has_left_the_interval_is_said_to_have_done_so() -> None:
    running = RunningSequence(-0.05, -0.04, 0.0004)
    left = replace(effect(-0.0312, -0.05, -0.0121), intervals=Intervals(running, running))
    sentence = judge(LOG_LOSS, replace(ENOUGH, effect=left)).sentence
    assert "is -0.0312 (95 % interval -0.05 to -0.04, which the difference has left since earlier looks)" in sentence


WEEK = DayCount(5, 7, 7)
THREE = DayCount(15, 7, 21)


@pytest.mark.parametrize(
    ("count", "days", "status"),
    [
        (WEEK, None, "leading"),
        (THREE, LOWER, "challenger better"),
        (THREE, UNCLEAR, "leading"),
        (THREE, HIGHER, "leading"),
    ],
)
def test_a_verdict_takes_whole_days_that_agree(count: DayCount, days: RowLook | None, status: str) -> None:
    evidence = replace(ENOUGH, day_count=count, days=days.intervals if days else None)
    assert judge(LOG_LOSS, evidence).status == status


def test_days_alone_decide_nothing() -> None:
    evidence = replace(ENOUGH, effect=UNCLEAR, day_count=THREE, days=LOWER.intervals)
    assert judge(LOG_LOSS, evidence).status == "collecting"


def test_who_leads_and_what_is_missing_is_said() -> None:
    numbers = "v2 minus v1 is -0.0312 (95 % interval -0.05 to -0.0121); v1 has 5,120 matured rows and v2 has 5,088"
    assert judge(LOG_LOSS, replace(ENOUGH, day_count=WEEK)).sentence == (
        f"v2 leads in log loss, no verdict yet (5 of 7 whole days): {numbers}."
    )
    open_days = replace(ENOUGH, day_count=THREE, days=UNCLEAR.intervals)
    assert judge(LOG_LOSS, open_days).sentence == (
        "v2 leads in log loss, no verdict yet (the days do not agree yet (over whole days the interval is -0.01 to "
        f"+0.03; the next look comes after 21)): {numbers}."
    )
    assert judge(LOG_LOSS, replace(open_days, days=LOWER.intervals)).sentence == (
        f"v2 is better than v1 in log loss: {numbers}, over 15 whole days."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3600.0, "1 hour"), (5400.0, "90 minutes"), (604_800.0, "7 days"), (60.0, "1 minute"), (1.5, "1.5 seconds")],
)
def test_lengths_of_time_are_said_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_times_and_small_p_values_are_said_in_words() -> None:
    assert moment(1_800_000_000.0) == "15 January 2027, 08:00 UTC"
    assert moment(1e300) == "1e+300 s after 1970"
    assert (p(0.0), p(0.0312)) == ("below 0.000001", "0.031")
