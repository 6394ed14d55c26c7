"""`contender promote`, `rollback` and `models promotions`: which version answers outside of experiments."""

from typing import Annotated

import typer

from contender.client import Client
from contender.commands.calls import connected
from contender.commands.showing import AsJson, By, Reason, person, print_json, say, short, table, when
from contender.commands.terminal import console, fail
from contender.commands.versions import find_version
from contender.contracts.feedback_service import VerdictEvent
from contender.contracts.inference_service import ModelVersion, PromotionRecord, Promotions

Model = Annotated[str, typer.Argument(help="The model's name.")]


def promote(
    version: Annotated[
        str, typer.Argument(metavar="MODEL@VERSION", help="The version, by 6 of its first characters or more.")
    ],
    *,
    experiment: Annotated[str, typer.Option(help="The experiment whose verdict on the version is the evidence.")] = "",
    reason: Reason = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make a version the champion; no request is dropped meanwhile."""
    model, _, prefix = version.rpartition("@")
    if not (model and prefix):
        raise fail(f"{version} names no version: give MODEL@VERSION, such as churn@0c912f6d1ab4")
    with connected() as client:
        chosen = find_version(client, model, prefix)
        if chosen.champion:
            promoted = client.promote(model, chosen)
            sentence = f"{model} {short(chosen.version)} is the champion already."
        else:
            evidence = _verdict(client, experiment, chosen) if experiment else None
            promoted = client.promote(model, chosen, reason=reason, changed_by=person(by), evidence=evidence)
            sentence = f"{model} {short(promoted.version)} is the champion now; `contender rollback {model}` undoes it."
    if as_json:
        print_json(promoted)
    else:
        say(sentence)


def _verdict(client: Client, experiment: str, version: ModelVersion) -> VerdictEvent:
    """The last verdict of an experiment on a version."""
    variants = {each.name for each in client.revision(experiment).variants if each.version == version.version}
    if not variants:
        raise fail(f"experiment {experiment} has no variant of {version.model} {short(version.version)}")
    about = [event for event in client.verdicts(experiment) if event.challenger in variants]
    if not about:
        raise fail(f"experiment {experiment} has no verdict on {version.model} {short(version.version)} yet")
    return about[-1]


def rollback(model: Model, *, reason: Reason = "", by: By = "", as_json: AsJson = False) -> None:
    """Go back to the champion before the last promotion that stands; once more goes further back."""
    with connected() as client:
        promoted = client.rollback(model, reason, changed_by=person(by))
    if as_json:
        print_json(promoted)
    else:
        say(f"{model} {short(promoted.version)} is the champion again.")


def promotions(model: Model, *, as_json: AsJson = False) -> None:
    """List a model's promotions and rollbacks, oldest first, with who made them and why."""
    with connected() as client:
        records = client.promotions(model)
    if as_json:
        print_json(Promotions(records))
    elif not records:
        say(f"Model {model} has had one champion alone: no promotion is on record.")
    else:
        titles = ("", "when", "who", "champion", "before", "why")
        console.print(table(titles, map(_cells, records)))


def _cells(record: PromotionRecord) -> list[str]:
    rests_on = [record.reason]
    if record.rolls_back is not None:
        rests_on.append(f"takes back {record.rolls_back}")
    if record.experiment:
        verdict = "" if record.verdict is None else f", verdict {record.verdict}"
        rests_on.append(f"experiment {record.experiment}{verdict}{f': {record.evidence}' if record.evidence else ''}")
    if record.override:
        rests_on.append(f"overridden: {record.override}")
    why = "; ".join(part for part in rests_on if part)
    who = record.changed_by or "-"
    return [str(record.number), when(record.at), who, short(record.version), short(record.replaced), why or "-"]
