"""What the pages draw and how they say numbers."""

import pytest

from contender.contracts.feedback_service import DayPoint, Effect
from services.feedback_service.pages import axis, chance, check, curve, duration, state


def effect(low: float | None, high: float | None, **changes) -> Effect:
    fields = {"estimate": 0.0, "low": low, "high": high, "p": 0.5, "n": 10, "better": None, "lower_is_better": True}
    return Effect(**{**fields, **changes})


def test_the_challengers_share_one_axis_a_metric_and_it_says_which_side_is_better():
    shared = axis([effect(-0.1, 0.4), effect(-0.2, 0.1), effect(None, None)])
    assert (shared.reach, shared.better_left) == (0.4, True)
    assert shared.x(-0.4) < shared.x(0.0) < shared.x(0.4)
    assert shared.x(0.0) == shared.width / 2
    assert axis([effect(None, None)]) is None


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
