"""How an experiment that is there already differs from one that is declared, and what to do about it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from contender.contracts.ab_router import ExperimentRevision, VariantAllocation

_SETTINGS = ("metric", "window_s", "missing", "alpha", "tuning_n", "coverage", "fallback_value")
_VERSION_CHARACTERS = 12


def differences(revision: ExperimentRevision, body: Mapping[str, Any]) -> list[str]:
    """What an experiment has otherwise than `body` declares it, each such as `alpha is 0.05 there and 0.1 here`.

    Args:
        revision: the experiment as it stands.
        body: as `POST /v1/experiments` takes it; what it leaves out has its default.
    """
    known = {variant.name: variant for variant in revision.variants}
    declared = {variant["name"]: VariantAllocation(**variant) for variant in body["variants"]}
    pairs: dict[str, tuple[object, object]] = {
        "variants": (sorted(known), sorted(declared)),
        "champion": (revision.champion, body["champion"]),
    }
    for name in known.keys() & declared.keys():
        pairs[f"{name}'s version"] = _short(known[name].version), _short(declared[name].version)
        pairs[f"{name}'s share"] = known[name].weight, declared[name].weight
    defaults = {field.name: field.default for field in msgspec.structs.fields(ExperimentRevision)}
    for name in _SETTINGS:
        pairs[name] = getattr(revision, name), body.get(name, defaults[name])
    return [
        f"{what} is {there} there and {here} here" for what, (there, here) in sorted(pairs.items()) if there != here
    ]


def conflict(revision: ExperimentRevision, differing: list[str]) -> str:
    """Why another experiment can't run beside this one, and how to stop it."""
    return (
        f"experiment {revision.name} runs on model {revision.model} with another configuration "
        f"({'; '.join(differing)}), and one runs at a time: go on with that configuration, or stop it with "
        f"client.change({revision.name!r}, 'stop'), which is POST /v1/experiments/{revision.name}/stop"
    )


def _short(version: str) -> str:
    return version[:_VERSION_CHARACTERS]
