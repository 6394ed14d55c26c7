"""Compares an experiment on the router with a declaration, and says how to resolve a conflict."""

from collections.abc import Mapping
from typing import Any

import msgspec

from contender.contracts.ab_router import ExperimentRevision, NewExperiment, VariantAllocation

_VERSION_CHARACTERS = 12


def differences(revision: ExperimentRevision, body: Mapping[str, Any]) -> list[str]:
    """How an experiment differs from a declaration, each such as `alpha is 0.05 there and 0.1 here`.

    Args:
        revision: the experiment as it stands.
        body: as `POST /v1/experiments` takes it; a missing field has its default.
    """
    known = {variant.name: variant for variant in revision.variants}
    declared = {variant["name"]: VariantAllocation(**variant) for variant in body["variants"]}
    pairs: dict[str, tuple[object, object]] = {"variants": (sorted(known), sorted(declared))}
    for name in known.keys() & declared.keys():
        pairs[f"{name}'s version"] = _short(known[name].version), _short(declared[name].version)
        pairs[f"{name}'s share"] = known[name].weight, declared[name].weight
    for field in msgspec.structs.fields(NewExperiment):
        if field.name not in ("name", "model", "variants"):
            pairs[field.name] = getattr(revision, field.name), body.get(field.name, field.default)
    return [
        f"{name} is {there} there and {here} here" for name, (there, here) in sorted(pairs.items()) if there != here
    ]


def conflict(revision: ExperimentRevision, differing: list[str]) -> str:
    """Why another experiment can't run beside this one, and how to stop it."""
    return (
        f"experiment {revision.name} runs on model {revision.model} with another configuration "
        f"({'; '.join(differing)}), and a model has one running experiment: continue with that configuration, or stop "
        f"it with client.change({revision.name!r}, 'stop'), which is POST /v1/experiments/{revision.name}/stop"
    )


def _short(version: str) -> str:
    return version[:_VERSION_CHARACTERS]
