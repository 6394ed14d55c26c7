"""The bodies of calls about experiments and promotions, and how a declaration differs from an experiment."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from contender.bodies import encoded
from contender.contracts import experiments as calls
from contender.contracts.experiments import Evidence, ExperimentRevision, Guardrail, NewExperiment
from contender.contracts.feedback_service import VerdictEvent
from contender.contracts.inference_service import ModelVersion
from contender.contracts.metrics import metrics_of
from contender.contracts.tasks import task_named
from contender.errors import ContenderError

ACTIONS = {
    "start": calls.START_EXPERIMENT,
    "pause": calls.PAUSE_EXPERIMENT,
    "ramp": calls.RAMP_EXPERIMENT,
    "stop": calls.STOP_EXPERIMENT,
    "restart": calls.RESTART_EXPERIMENT,
    "promote": calls.PROMOTE_CHALLENGER,
}
"""What changes an experiment, by the last part of its path."""

IN_FORCE = ("running", "paused", "decided")
_VERSION_CHARACTERS = 12
_NO_CONFIGURATION = ("name", "model", "variants", "seed", "revision", "changed_by", "reason")
"""Fields of a declaration that are compared in another way, or say how a change came about."""


def declaration(
    name: str | None, model: str, versions: Mapping[str, ModelVersion], share: float, metric: str | None
) -> dict[str, Any]:
    """The body of `POST /v1/experiments` for two versions, by their roles: champion and challenger.

    Args:
        name: default: the model's with the time.
        model: whose units are split.
        versions: by role.
        share: the challenger's share of the units.
        metric: default: the first metric of the challenger's task.
    """
    shares = {"champion": 1 - share, "challenger": share}
    return {
        "name": name or f"{model}-{time.strftime('%Y%m%d-%H%M%S')}",
        "model": model,
        "variants": [
            {"name": role, "version": version.version, "weight": shares[role]} for role, version in versions.items()
        ],
        "champion": "champion",
        "metric": metric or usual_metric(versions["challenger"]),
    }


def usual_metric(version: ModelVersion) -> str:
    """The first metric of a version's task, such as log loss."""
    return metrics_of(task_named(version.task))[0].name


def change_of(action: str, **fields: object) -> dict[str, object] | None:
    """The body of a change of an experiment, without the fields that are None or empty; None: the call has no body.

    Raises:
        ContenderError: there is no such action, or it takes no such field.
    """
    if action not in ACTIONS:
        raise ContenderError(f"action is {action!r}; expected {', '.join(ACTIONS)}")
    stated = _stated(fields)
    known = ACTIONS[action].body.__struct_fields__
    if unknown := sorted(stated.keys() - set(known)):
        raise ContenderError(f"{action} takes no {unknown[0]}; it takes {', '.join(known)}")
    return stated or None


def promotion(version: str, evidence: Evidence | VerdictEvent | None = None, **texts: str) -> dict[str, object]:
    """The body of a promotion; `texts` are `reason`, `changed_by` and `override`."""
    body: dict[str, object] = {"version": version, **texts}
    if evidence is not None:
        body |= {"experiment": evidence.experiment, "verdict": evidence.number, "evidence": evidence.sentence}
    return _stated(body)


def _stated(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


def declared_already(
    known: Sequence[ExperimentRevision], body: Mapping[str, Any], *, is_named: bool
) -> ExperimentRevision | None:
    """The experiment that a declaration is about; None where it is a new one.

    Args:
        known: every experiment as it stands, oldest first.
        body: the declaration.
        is_named: whether its name was given: the experiment of that name is meant then, whatever its configuration,
            else one on the model with this configuration that is in force, or a draft.

    Raises:
        ContenderError: the experiment of that name is on another model.
    """
    if is_named:
        same = next((revision for revision in known if revision.name == body["name"]), None)
        if same is not None and same.model != body["model"]:
            raise ContenderError(
                f"experiment {same.name} is on model {same.model}, and a name is final: give the one on "
                f"{body['model']} another name"
            )
        return same
    on_model = [revision for revision in known if revision.model == body["model"]]
    candidates = [revision for revision in on_model if revision.status in IN_FORCE]
    candidates += [revision for revision in reversed(on_model) if revision.status == "draft"]
    return next((revision for revision in candidates if not differences(revision, body)), None)


def differences(revision: ExperimentRevision, body: Mapping[str, Any]) -> list[str]:
    """How an experiment differs from a declaration, each such as `alpha is 0.05 there and 0.1 here`.

    Weights that a canary or a running bandit sets, and the coverage of a canary, are not compared.

    Args:
        revision: the experiment as it stands.
        body: as `POST /v1/experiments` takes it; a missing field has its default, or what the router fills in.

    Raises:
        ContenderError: the declaration can't be read.
    """
    try:
        declared = msgspec.json.decode(encoded(body), type=NewExperiment)
    except msgspec.ValidationError as error:
        raise ContenderError(f"the declaration can't be read: {error}") from error
    known = {variant.name: variant for variant in revision.variants}
    variants = {variant.name: variant for variant in declared.variants}
    pairs: dict[str, tuple[object, object]] = {"variants": (sorted(known), sorted(variants))}
    for name in known.keys() & variants.keys():
        if not (known[name].alias and known[name].alias == variants[name].version):
            pairs[f"{name}'s version"] = _short(known[name].version), _short(variants[name].version)
        if not sets_weights(revision):
            pairs[f"{name}'s share"] = known[name].weight, variants[name].weight
    filled_in = {"champion": next(iter(variants), None), "label_range": revision.label_range}
    for field in NewExperiment.__struct_fields__:
        if field not in _NO_CONFIGURATION and not (field == "coverage" and sets_coverage(revision)):
            here = getattr(declared, field)
            pairs[field] = getattr(revision, field), filled_in.get(field) if here is None else here
    return [
        f"{name} is {shown(there)} there and {shown(here)} here"
        for name, (there, here) in sorted(pairs.items())
        if msgspec.to_builtins(there) != msgspec.to_builtins(here)  # a declaration has stricter types of its own
    ]


def sets_weights(revision: ExperimentRevision) -> bool:
    """Whether a schedule or the results set the weights, so that they are not those that were declared."""
    return revision.canary is not None or (revision.bandit is not None and revision.status != "draft")


def sets_coverage(revision: ExperimentRevision) -> bool:
    """Whether a schedule sets the coverage."""
    return revision.canary is not None


def disagreement(revision: ExperimentRevision, differing: Sequence[str]) -> str:
    """Why an experiment of the declared name is not what was declared, and what can be done."""
    other = f" with another configuration ({'; '.join(differing)})" if differing else ""
    if revision.status == "stopped":
        return f"experiment {revision.name} has stopped{other}: its results stay, and restart() begins another one"
    return (
        f"experiment {revision.name} is {revision.status}{other}, and it stays as it is: its allocation is changed by "
        "ramp(); for another design stop() it, and declare one under another name"
    )


def shown(value: object) -> object:
    """A field's value for people."""
    if value == "":
        return "empty"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {part}" for key, part in value.items()) or "none"
    if isinstance(value, msgspec.Struct):
        return shown(msgspec.to_builtins(value))
    if not isinstance(value, list):
        return value
    items = (_guardrail_words(item) if isinstance(item, Guardrail) else str(shown(item)) for item in value)
    return ", ".join(items) or "none"


def _guardrail_words(guardrail: Guardrail) -> str:
    place = f" in each {guardrail.segment}" if guardrail.segment else ""
    return f"{guardrail.metric} by {guardrail.margin}{place}"


def _short(version: str) -> str:
    return version[:_VERSION_CHARACTERS]
