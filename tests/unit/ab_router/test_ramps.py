"""How a canary's schedule advances."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.experiments import Canary, Guardrail, VariantAllocation
from contender.contracts.feedback_service import LASTING, Results, Verdict
from services.ab_router.domain.hashing import ranges
from services.ab_router.domain.holds import Hold, Move
from services.ab_router.domain.ramps import allocation_at, next_step, rest
from tests.unit.ab_router.ramp_results import AGE_LIMIT_S, CANARY, NOW, canary, effect, results, variant

WITHHELD = [
    "withheld: split",
    "withheld: label arrival",
    "withheld: label tail",
    "withheld: unanswered rows",
    "withheld: estimators disagree",
    "withheld: dominant unit",
]


def step_after(known: Results, now: float = NOW, **changes: object) -> Move | Hold:
    return next_step(CANARY, canary(**changes), known, now, AGE_LIMIT_S)


def cause_of(move: Move | Hold) -> str:
    assert isinstance(move, Hold), move
    return move.cause


def test_each_arm_has_the_share_of_the_step():
    coverage, weights = allocation_at(Canary([0.01, 0.05, 0.25]), 1, challengers=2)
    assert [coverage * weight for weight in weights] == pytest.approx([0.05, 0.05, 0.05])


def test_arms_share_all_units_where_the_step_is_larger_than_their_part():
    assert allocation_at(Canary([0.5]), 0, challengers=3) == (1.0, (0.25, 0.25, 0.25, 0.25))


@pytest.mark.parametrize("challengers", [1, 2, 5])
def test_ranges_only_grow_from_step_to_step(challengers: int):
    canary = Canary([0.01, 0.05, 0.1, 0.5])
    steps = [allocation_at(canary, step, challengers) for step in range(4)]
    bounds = [ranges(challengers + 1, coverage, weights) for coverage, weights in steps]
    for before, after in pairwise(bounds):
        for (low, high), (wider_low, wider_high) in zip(before, after, strict=True):
            assert wider_low <= low < high <= wider_high


@pytest.mark.parametrize("step", [-1, 2])
def test_a_step_outside_the_schedule_is_an_error(step: int):
    with pytest.raises(IndexError, match="has steps 0 to 1"):
        allocation_at(Canary([0.1, 0.5]), step, challengers=1)


def test_it_advances_by_one_step_where_enough_rows_have_matured_and_no_guardrail_is_breached():
    move = step_after(results())
    assert isinstance(move, Move)
    assert (move.step, move.coverage, move.weights) == (2, 0.5, {"a": 0.5, "b": 0.5})
    assert move.reason == (
        "step 3 of 4, 0.25 of the units in each arm: no guardrail is breached (matured rows: a 1,000, b 1,000)"
    )


@pytest.mark.parametrize(
    ("champion", "challenger"), [(999, 10**6), (10**6, 999), (0, 0), (0, 10**6), (10**6, 0), (999, 999)]
)
@pytest.mark.parametrize("status", ["collecting", "leading", "withheld: too few", "challenger better"])
def test_too_few_matured_rows_in_either_arm_hold_it_whatever_they_show(champion: int, challenger: int, status: str):
    known = results(
        variants=[variant("a", champion), variant("b", challenger)],
        effects={"b": {"log_loss": effect(-10.0)}},
        verdicts=[Verdict(status, "", "b")],
    )
    hold = step_after(known)
    assert cause_of(hold) == "too few rows"
    assert f"1,000 matured rows are needed in each arm: a {champion:,}, b {challenger:,}" in hold.reason


def test_rows_of_earlier_epochs_and_rows_that_wait_do_not_count():
    assert cause_of(step_after(results(variants=[variant("a", 0, n=10**6), variant("b", 0, n=10**6)]))) == (
        "too few rows"
    )


def test_an_arm_that_the_results_do_not_know_has_no_rows():
    assert cause_of(step_after(results(variants=[variant("a", 5_000)]))) == "too few rows"


def test_every_challenger_needs_its_rows():
    known = results(
        variants=[variant("a", 5_000), variant("b", 5_000), variant("c", 999)],
        verdicts=[Verdict("collecting", "", name) for name in "bc"],
    )
    assert cause_of(step_after(known, challengers="bc")) == "too few rows"


@pytest.mark.parametrize("kind", ["decided", "found later"])
def test_a_breached_guardrail_holds_it(kind: str):
    verdict = (
        Verdict("stopped: guardrail", "b is slower", "b")
        if kind == "decided"
        else Verdict("challenger better", "", "b", 1.0, ["In question: b is slower"])
    )
    hold = step_after(results(verdicts=[verdict]))
    assert cause_of(hold) == ("guardrail" if kind == "decided" else "verdict")
    assert "b is slower" in hold.reason


def test_a_breached_guardrail_of_one_challenger_holds_all():
    known = results(
        variants=[variant(name, 5_000) for name in "abc"],
        verdicts=[Verdict("challenger better", "", "b"), Verdict("stopped: guardrail", "", "c")],
    )
    assert cause_of(step_after(known, challengers="bc")) == "guardrail"


@pytest.mark.parametrize("unknown", [{}, {"b": {"log_loss": effect(0.0)}}, {"b": {"brier": effect(None)}}])
def test_a_guardrail_without_a_figure_does_not_hold_and_so_the_canary_is_held(unknown: dict[str, dict[str, object]]):
    hold = step_after(results(effects=unknown), guardrails=[Guardrail("brier", 0.1)])
    assert cause_of(hold) == "guardrail"
    assert isinstance(step_after(results(), guardrails=[Guardrail("brier", 0.1)]), Move)


@pytest.mark.parametrize("status", WITHHELD)
def test_a_withheld_verdict_holds_it(status: str):
    assert cause_of(step_after(results(verdicts=[Verdict(status, "labels are odd", "b")]))) == "verdict"


def test_a_challenger_that_was_shown_to_be_worse_gets_no_more_traffic():
    assert cause_of(step_after(results(verdicts=[Verdict("champion better", "", "b")]))) == "verdict"


@pytest.mark.parametrize("status", sorted(set(LASTING) - {"champion better", "stopped: guardrail"}))
def test_a_good_verdict_lets_it_advance(status: str):
    assert isinstance(step_after(results(verdicts=[Verdict(status, "", "b")])), Move)


def test_a_challenger_without_a_verdict_holds_it():
    assert cause_of(step_after(results(verdicts=[]))) == "no results"


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 2},
        {"epoch": None},
        {"epoch": 4},
        {"updated_at": None},
        {"updated_at": NOW - 61.0},
        {"updated_at": NOW + 60.0},
    ],
)
def test_results_of_another_epoch_or_time_hold_it(changes: dict[str, float | None]):
    assert cause_of(step_after(results(**changes))) == "old results"


def test_a_step_lasts_its_seconds_from_the_last_change_on():
    assert cause_of(step_after(results(), NOW - 0.1)) == "too early"
    assert rest(CANARY, canary(), NOW - 0.1) == Hold("too early", "the next move may come in 0 s")
    assert rest(CANARY, canary(), NOW) is None


@given(
    rows=st.tuples(*[st.sampled_from([1_000, 5_000, 999, 0])] * 2),
    status=st.sampled_from(["collecting", "leading", "withheld: too few", *LASTING, *WITHHELD]),
    in_question=st.booleans(),
    epoch=st.sampled_from([3, 2, 4]),
    age_s=st.sampled_from([1.0, 59.0, 61.0]),
    passed_s=st.sampled_from([3_600.0, 9_000.0, 3_599.0, 0.0]),
    brier=st.one_of(st.none(), st.floats(-1.0, 1.0)),
)
def test_it_advances_only_where_all_holds_and_by_one_step(*, rows, status, in_question, epoch, age_s, passed_s, brier):
    now = 1_000.0 + passed_s
    known = results(
        variants=[variant("a", rows[0]), variant("b", rows[1])],
        verdicts=[Verdict(status, "", "b", findings=["odd"] * in_question)],
        effects={"b": {"brier": effect(brier)}},
        epoch=epoch,
        updated_at=now - age_s,
    )
    move = step_after(known, now, guardrails=[Guardrail("brier", 0.1)])
    is_doubtful = in_question or status in (*WITHHELD, "stopped: guardrail", "champion better")
    is_due = min(rows) >= 1_000 and epoch == 3 and now - known.updated_at <= AGE_LIMIT_S and now - 1_000.0 >= 3_600.0
    assert isinstance(move, Move) == (is_due and not is_doubtful and brier is not None)
    if isinstance(move, Move):
        assert (move.step, move.coverage) == (2, 0.5)


def test_the_last_step_is_kept():
    assert cause_of(step_after(results(), step=3)) == "last step"


@pytest.mark.parametrize(
    "changes",
    [
        {"coverage": 0.2},
        {"variants": [VariantAllocation("a", "v1", 0.9), VariantAllocation("b", "v2", 0.1)]},
        {"step": 2, "coverage": 0.1},
        {"step": 9, "coverage": 0.1},
    ],
)
def test_the_schedule_rests_where_somebody_has_ramped_by_hand(changes: dict[str, object]):
    ramped = msgspec.structs.replace(canary(), **changes)
    assert cause_of(next_step(CANARY, ramped, results(), NOW, AGE_LIMIT_S)) == "off schedule"
