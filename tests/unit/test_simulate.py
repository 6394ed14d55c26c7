"""The simulation, in small: it runs, and the worlds that break a naive verdict do not break this one."""

import pytest

from benchmarks.simulate.__main__ import line, main
from benchmarks.simulate.plans import WORLDS, days_left, planned_rows

QUICK = (
    "effects of days, nil on average",
    "weekdays, 5,000 a day",
    "independent days, +2 points",
    "errors 5 % smaller",
    "champion drops 1.1 % hard rows",
    "50 segments alike",
    "one of 10 segments harmed by 16 points",
    "4 points fading over 4 weeks",
    "4 points all along, but at weekends",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_world_comes_out_as_wanted(name):
    came, is_right, _ = line(name, quick=True)
    assert is_right, came


def test_the_command_ends_with_one_line_a_world(capsys):
    assert main(["--quick", "--only", "independent days"]) == 0
    assert "independent days: wrong 0.0%" in capsys.readouterr().out


def test_planned_rows_are_near_those_of_simulated_experiments():
    planned, came = planned_rows(WORLDS["absolute error, 6 % smaller"], 100)
    assert planned == pytest.approx(came, rel=0.25)


def test_half_of_the_experiments_are_decided_by_the_day_that_was_stated():
    came, is_right = days_left(60, cycle=7)
    assert is_right, came
