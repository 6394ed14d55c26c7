"""Verdicts: which evidence gives which status, and the sentence that says it."""

from dataclasses import replace

import pytest

from services.feedback_service.domain.confidence import ConfidenceSequence
from services.feedback_service.domain.verdicts import Contest, Evidence, judge

LOG_LOSS = Contest(champion="v1", challenger="v2", metric="log loss", lower_is_better=True)
ACCURACY = replace(LOG_LOSS, metric="accuracy", lower_is_better=False)
LOWER = ConfidenceSequence(estimate=-0.0312, low=-0.05, high=-0.0121, p=0.0004, n=10_208)
HIGHER = ConfidenceSequence(estimate=0.0312, low=0.0121, high=0.05, p=0.0004, n=10_208)
UNCLEAR = ConfidenceSequence(estimate=0.01, low=-0.01, high=0.03, p=0.4, n=10_208)
ENOUGH = Evidence(effect=LOWER, champion_rows=5120, challenger_rows=5088, split_p=0.7, arrival_p=0.5)


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
def test_the_interval_decides_in_the_direction_of_the_metric(
    contest: Contest, effect: ConfidenceSequence, status: str
) -> None:
    verdict = judge(contest, replace(ENOUGH, effect=effect))
    assert verdict.status == status
    assert verdict.decided == (status != "collecting")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"split_p": 0.0009}, "withheld: split"),
        ({"arrival_p": 0.0009}, "withheld: label arrival"),
        ({"champion_rows": 99}, "withheld: too few"),
        ({"challenger_rows": 99}, "withheld: too few"),
        ({"effect": None}, "withheld: too few"),
        ({"split_p": 0.0, "arrival_p": 0.0, "effect": None}, "withheld: split"),
        ({"split_p": 0.001, "arrival_p": None, "champion_rows": 100}, "challenger better"),
    ],
)
def test_a_verdict_is_withheld_where_the_arms_cannot_be_compared(change: dict[str, object], status: str) -> None:
    assert judge(LOG_LOSS, replace(ENOUGH, **change)).status == status


def test_a_decision_is_one_sentence_with_its_numbers() -> None:
    assert judge(LOG_LOSS, ENOUGH).sentence == (
        "v2 is better than v1 in log loss: v2 minus v1 is -0.0312 (95 % interval -0.05 to -0.0121); "
        "v1 has 5,120 matured rows and v2 has 5,088."
    )


def test_an_open_question_is_one_sentence_with_its_numbers() -> None:
    contest = replace(LOG_LOSS, alpha=0.01)
    assert judge(contest, replace(ENOUGH, effect=UNCLEAR)).sentence == (
        "No difference in log loss shown yet: v2 minus v1 is +0.01 (99 % interval -0.01 to +0.03); "
        "v1 has 5,120 matured rows and v2 has 5,088."
    )


def test_reasons_to_withhold_are_sentences_with_their_numbers() -> None:
    assert judge(LOG_LOSS, replace(ENOUGH, split_p=1e-9)).sentence == (
        "No verdict: the traffic does not split between v1 and v2 as configured (p below 0.000001), "
        "so the two did not get comparable users."
    )
    assert judge(LOG_LOSS, replace(ENOUGH, arrival_p=0.00042)).sentence == (
        "No verdict: labels do not arrive alike for v1 and v2 (p 0.00042), "
        "so the labelled rows of the two are not comparable."
    )
    assert judge(LOG_LOSS, replace(ENOUGH, champion_rows=7)).sentence == (
        "No verdict yet: v1 has 7 matured rows and v2 has 5,088, and each needs at least 100."
    )


def test_an_unknown_spread_is_said_in_words() -> None:
    unknown = ConfidenceSequence(estimate=0.0, low=float("-inf"), high=float("inf"), p=1.0, n=400)
    verdict = judge(LOG_LOSS, replace(ENOUGH, effect=unknown))
    assert verdict.status == "collecting"
    assert "inf" not in verdict.sentence


def test_many_rows_of_few_units_are_too_few() -> None:
    assert judge(LOG_LOSS, replace(ENOUGH, effect=None)).sentence == (
        "No verdict yet: v1 has 5,120 matured rows and v2 has 5,088, but they come from too few units, "
        "and each needs at least 20 in one epoch."
    )
