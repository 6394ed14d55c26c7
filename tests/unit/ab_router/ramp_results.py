"""Results of a canary or a bandit, of which a test names what matters to it. Epoch 3 runs since second 1,000."""

from typing import Any

import msgspec

from contender.contracts.experiments import Canary, ExperimentRevision, VariantAllocation
from contender.contracts.feedback_service import (
    Arrival,
    Counts,
    Effect,
    Health,
    Interval,
    Results,
    Split,
    VariantResult,
    Verdict,
)
from services.ab_router.domain.ramps import allocation_at
from tests.experiment_revisions import revision

NOW = 1_000.0 + 3_600.0
AGE_LIMIT_S = 60.0
CANARY = Canary([0.01, 0.05, 0.25, 0.5], rows_per_step=1_000, seconds_per_step=3_600.0)


def canary(step: int = 1, schedule: Canary = CANARY, challengers: str = "b", **changes: Any) -> ExperimentRevision:
    """A running canary at a step, with champion `a`."""
    coverage, weights = allocation_at(schedule, step, len(challengers))
    variants = [
        VariantAllocation(name, f"v-{name}", weight) for name, weight in zip("a" + challengers, weights, strict=True)
    ]
    fields = {"coverage": coverage, "variants": variants, "step": step, "epoch": 3, "changed_at": 1_000.0}
    return revision(**{**fields, "canary": schedule, "started_at": 100.0, **changes})


def variant(name: str, epoch_matured: int, mean: float = 0.5, half: float = 0.1, n: int = 5_000) -> VariantResult:
    """A variant with so many matured rows of the newest epoch, and so many in all."""
    counts = dict.fromkeys(
        ("n", "labelled", "matured", "matured_labelled", "corrections", "late", "refused", "duplicates"), n
    )
    return VariantResult(
        name=name,
        version=f"v-{name}",
        champion=name == "a",
        fallbacks=0,
        degraded=0,
        metrics={"log_loss": Interval(mean, mean - half, mean + half, n)},
        live={},
        epoch_matured=epoch_matured,
        **counts,
    )


def effect(estimate: float | None, *, lower_is_better: bool = True) -> Effect:
    """Challenger minus champion."""
    return Effect(estimate, None, None, 1.0, 10_000, None, lower_is_better)


RESULTS = Results(
    experiment="e",
    status="running",
    model="m",
    metric="log_loss",
    champion="a",
    alpha=0.05,
    missing="excluded",
    window_s=60.0,
    watermark=NOW,
    variants=[variant("a", 1_000), variant("b", 1_000)],
    effects={"b": {"log_loss": effect(0.0), "brier": effect(0.0)}},
    split=Split(1.0, {}),
    arrival=Arrival(None),
    verdict=Verdict("collecting", "Nothing yet.", "b"),
    health=Health(0, 0, 0, 0, 0, 0, 0),
    totals=Counts(),
    offsets={},
    updated_at=NOW - 1.0,
    verdicts=[Verdict("collecting", "Nothing yet.", "b")],
    epoch=3,
)
"""They speak for the next step: in epoch 3 each arm has 1,000 matured rows."""


def results(**changes: Any) -> Results:
    """Those results but for the changes."""
    return msgspec.structs.replace(RESULTS, **changes)
