"""Revisions of an experiment, of which a test names what matters to it."""

from typing import Any

from contender.contracts.experiments import ExperimentRevision, VariantAllocation


def revision(**changes: Any) -> ExperimentRevision:
    """The first revision of the running experiment `e` of model `m`, but for the changes."""
    fields: dict[str, Any] = {
        "name": "e",
        "model": "m",
        "revision": 1,
        "epoch": 1,
        "status": "running",
        "seed": "s",
        "champion": "a",
        "variants": [VariantAllocation("a", "v1", 0.5), VariantAllocation("b", "v2", 0.5)],
        "metric": "log_loss",
        "window_s": 60.0,
        "changed_at": 1.0,
    }
    return ExperimentRevision(**{**fields, **changes})
