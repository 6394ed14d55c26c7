"""How an experiment of a file differs from the one of the installation, and which calls make them the same."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from contender.client import Client
from contender.contracts.experiments import CHAMPION, Design, ExperimentRevision, NewExperiment
from contender.errors import RefusedError
from contender.experiments import sets_coverage, sets_weights, shown
from contender.installation.document import ExperimentEntry, entry_of
from contender.installation.plan import SHORT, Action, Phase, Step, Who, step_of

_WAYS = {
    ("draft", "draft"): (),
    ("draft", "running"): (("start", Phase.START),),
    ("draft", "paused"): (("start", Phase.START), ("pause", Phase.PAUSE_STARTED)),
    ("running", "running"): (),
    ("running", "paused"): (("pause", Phase.PAUSE),),
    ("running", "stopped"): (("stop", Phase.STOP),),
    ("paused", "paused"): (),
    ("paused", "running"): (("start", Phase.START),),
    ("paused", "stopped"): (("stop", Phase.STOP),),
    ("stopped", "stopped"): (),
}
"""The changes that lead from one state to another."""
_ALLOCATION = frozenset(("weights", "coverage"))
_FIXED = frozenset((*Design.__struct_fields__, "model", "champion", "variants", "seed"))
"""Fields that can't change after the start."""
_SHARE_TOLERANCE = 1e-9
_ATTEMPTS = 5


def experiment_step(entry: ExperimentEntry, present: ExperimentRevision | None, location: str) -> Step:
    """The step of one experiment.

    Args:
        entry: as the file has it.
        present: as the installation has it.
        location: where it stands in the file, for messages.
    """
    subject = f"experiment {entry.name}"
    if present is None:
        if entry.status == "stopped":  # it has no results here, and takes no units
            return step_of(subject, (), ())
        actions = [Action(Phase.DECLARE, partial(_create, entry)), *_changes(entry, "draft")]
        return step_of(subject, [_declared(entry)], actions, is_new=True)
    here = entry_of(present)
    if (here.status, entry.status) not in _WAYS:
        return step_of(subject, (), (), [f"{location}: {_impossible(here, entry)}"])
    if here.status == "stopped":
        return step_of(subject, (), ())
    differing = _differing(here, entry, present)
    details = [f"{name} {_worded(before)} -> {_worded(after)}" for name, (before, after) in differing.items()]
    if here.status != entry.status:
        details.append(f"status {here.status} -> {entry.status}")
    fixed = sorted(_FIXED & differing.keys()) if here.status != "draft" else []
    fault = (
        f"{location}: experiment {entry.name} has started, and its {', '.join(fixed)} can't change any more: restart "
        "it under another name"
    )
    actions = [*_edits(entry, here, present, differing), *_changes(entry, here.status)]
    return step_of(subject, details, actions, [fault] if fixed else ())


def _worded(value: Any) -> object:
    """A field's value in words, versions by their first characters."""
    if isinstance(value, dict):
        value = {name: part[:SHORT] if isinstance(part, str) else part for name, part in value.items()}
    return shown(value)


def _declared(entry: ExperimentEntry) -> str:
    variants = ", ".join(f"{each.name} {each.version[:SHORT]} {each.weight:.4g}" for each in entry.variants)
    return f"on {entry.model}, {entry.status}, {variants}"


def _impossible(here: ExperimentEntry, entry: ExperimentEntry) -> str:
    if here.status == "stopped":
        return f"experiment {entry.name} has stopped, and a name is final: declare another one"
    if entry.status == "stopped":
        return f"experiment {entry.name} is a draft, which is not stopped: leave it out of the file"
    return f"experiment {entry.name} is {here.status}, and can't become a draft again"


def _differing(
    here: ExperimentEntry, entry: ExperimentEntry, present: ExperimentRevision
) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, each as here and as in the file; what the file leaves to the router does not differ."""
    ours, theirs = _compared(here), _compared(entry)
    left_out = {name for name in ("label_range", "seed") if not getattr(entry, name)}
    left_out |= {"weights"} if sets_weights(present) else set()
    left_out |= {"coverage"} if sets_coverage(present) else set()
    if any(variant.alias for variant in present.variants):
        theirs["variants"] = _resolved(theirs["variants"], present)
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if name not in left_out and not _is_same(ours[name], theirs[name])
    }


def _compared(entry: ExperimentEntry) -> dict[str, Any]:
    """The fields of a declaration by name, its variants apart from their weights."""
    whole: dict[str, Any] = msgspec.to_builtins(entry)
    del whole["status"], whole["name"], whole["revision"], whole["changed_by"], whole["reason"]
    variants = whole.pop("variants")
    whole["champion"] = whole["champion"] or variants[0]["name"]
    whole["variants"] = {each["name"]: each["version"] for each in variants}
    whole["weights"] = {each["name"]: each["weight"] for each in variants}
    return whole


def _resolved(variants: Mapping[str, str], present: ExperimentRevision) -> dict[str, str]:
    """The versions of a file, with what an alias was resolved to."""
    pinned = {each.name: each.version for each in present.variants if each.alias}
    return {name: pinned.get(name, version) if version == CHAMPION else version for name, version in variants.items()}


def _is_same(before: Any, after: Any) -> bool:
    if isinstance(before, dict) and before.keys() == after.keys():
        return all(_is_same(before[name], after[name]) for name in before)
    if isinstance(before, float) and isinstance(after, float):
        return abs(before - after) <= _SHARE_TOLERANCE * max(1.0, abs(before))
    return bool(before == after)


def _edits(
    entry: ExperimentEntry, here: ExperimentEntry, present: ExperimentRevision, differing: Mapping[str, object]
) -> Iterator[Action]:
    """The calls that change the declaration: a draft is replaced, a started one ramped, or revised in what is free."""
    if here.status == "draft":
        if differing:
            yield Action(Phase.DECLARE, partial(_replace, entry, present.revision))
        return
    if entry.status == "stopped":
        return
    if not differing.keys() <= _ALLOCATION:
        yield Action(Phase.REVISE, partial(_revise, entry))
    if not differing.keys().isdisjoint(_ALLOCATION):
        yield Action(Phase.RAMP, partial(_ramp, entry, sorted(_ALLOCATION & differing.keys())))


def _changes(entry: ExperimentEntry, status: str) -> list[Action]:
    return [Action(phase, partial(_change, entry.name, action)) for action, phase in _WAYS[status, entry.status]]


def _create(entry: ExperimentEntry, client: Client, who: Who) -> object:
    return client.create(_body(entry, who))


def _replace(entry: ExperimentEntry, revision: int, client: Client, who: Who) -> object:
    return client.revise(entry.name, {**_body(entry, who), "revision": revision})


def _revise(entry: ExperimentEntry, client: Client, who: Who) -> object:
    """Change what is free, beside the design and the allocation of this moment: other actions came before.

    The router makes revisions of its own, such as the one after a promotion: where one comes between, it is read again.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        current = client.revision(entry.name)
        kept = {name: getattr(current, name) for name in ("variants", "coverage", "champion", "label_range", "seed")}
        try:
            return _replace(msgspec.structs.replace(entry, **kept), current.revision, client, who)
        except RefusedError:
            if attempt == _ATTEMPTS or client.revision(entry.name).revision == current.revision:
                raise
    return None


def _ramp(entry: ExperimentEntry, fields: list[str], client: Client, who: Who) -> object:
    allocation = {"weights": {each.name: each.weight for each in entry.variants}, "coverage": entry.coverage}
    return client.change(entry.name, "ramp", **{name: allocation[name] for name in fields}, **who.fields)


def _change(name: str, action: str, client: Client, who: Who) -> object:
    override = {"override": who.override} if action == "start" else {}
    return client.change(name, action, **who.fields, **override)


def _body(entry: ExperimentEntry, who: Who) -> dict[str, Any]:
    declared = {name: getattr(entry, name) for name in NewExperiment.__struct_fields__ if name != "revision"}
    body: dict[str, Any] = msgspec.to_builtins(declared)
    return {**body, "changed_by": who.changed_by, "reason": entry.reason or who.reason}
