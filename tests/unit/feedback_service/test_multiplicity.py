"""Metrics that do not decide, corrected for their number on request."""

import numpy as np
import pytest

from services.feedback_service.domain.multiplicity import holm
from tests.unit.feedback_service.worlds import World, rows


def test_holm_steps_down():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}, 4) == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09})
    assert holm({"a": 0.6, "b": 0.7}, 2) == {"a": 1.0, "b": 1.0}
    assert holm({}, 3) == {}


def test_metrics_that_do_not_decide_are_corrected_on_request():
    some = rows(np.random.default_rng(1), 8000, (0.36, 0.25))
    plain, corrected = (
        World(declared={"correction": correction}).look(some).results.effects["challenger"]
        for correction in ("none", "holm")
    )
    assert corrected["log_loss"] == plain["log_loss"]
    assert {name for name, effect in corrected.items() if effect.corrected} == set(corrected) - {"log_loss"}
    assert not any(effect.corrected for effect in plain.values())
    assert corrected["brier"].high - corrected["brier"].low > plain["brier"].high - plain["brier"].low
    assert corrected["brier"].p > plain["brier"].p


@pytest.mark.parametrize(("score", "better"), [(0.45, True), (0.25, None)])
def test_who_is_better_follows_the_corrected_ones(score, better):
    some = rows(np.random.default_rng(1), 8000, (score, 0.25))
    world = World(declared={"correction": "holm", "cycle_days": 7, "cycle_reason": ""})
    effects = world.look(some).results.effects["challenger"]
    assert effects["brier"].better is better
    assert (effects["brier"].p < 0.05) == (better is not None)
