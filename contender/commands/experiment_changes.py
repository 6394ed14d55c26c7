"""`contender experiment start`, `pause`, `ramp`, `stop`, `restart` and `promote`: changes with a name and a reason."""

from typing import Annotated

import typer

from contender.commands.calls import connected
from contender.commands.experiment_views import Name
from contender.commands.showing import AsJson, By, Reason, number, pair, person, print_json, say, short
from contender.commands.terminal import fail
from contender.contracts.experiments import ExperimentRevision, StoppedExperiments

Override = Annotated[str, typer.Option(help="Why it goes ahead against what the router finds.")]
Revision = Annotated[
    int | None, typer.Option(help="The revision that you have seen: the change is refused if there is a newer one.")
]


def start(
    name: Name,
    *,
    reason: Reason = "",
    override: Override = "",
    revision: Revision = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Assign units from now on; a paused experiment goes on."""
    with connected() as client:
        fields = {"reason": reason, "override": override, "revision": revision, "changed_by": person(by)}
        changed = client.change(name, "start", **fields)
    _report(changed, "runs", as_json=as_json)


def pause(name: Name, *, reason: Reason = "", revision: Revision = None, by: By = "", as_json: AsJson = False) -> None:
    """Let the champion answer until the experiment is started again; no rows count meanwhile."""
    with connected() as client:
        changed = client.change(name, "pause", reason=reason, revision=revision, changed_by=person(by))
    _report(changed, "is paused: the champion answers", as_json=as_json)


def ramp(
    name: Name,
    *,
    coverage: Annotated[float | None, typer.Option(help="The share of the units that take part.")] = None,
    weight: Annotated[list[str] | None, typer.Option(help="VARIANT=SHARE, for each variant; they add up to 1.")] = None,
    reason: Reason = "",
    revision: Revision = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Change weights or coverage: units that are in keep their variant, and an epoch begins."""
    pairs = [pair(text, "--weight", "VARIANT=SHARE, such as new=0.3") for text in weight or []]
    weights = {variant: number(share, f"--weight {variant}") for variant, share in pairs}
    if len(weights) < len(pairs):
        raise fail("--weight names a variant twice")
    if not weights and coverage is None:
        raise fail("nothing is to change: give --coverage, or --weight VARIANT=SHARE for each variant")
    with connected() as client:
        allocation = {"weights": weights or None, "coverage": coverage}
        fields = {"reason": reason, "revision": revision, "changed_by": person(by)}
        changed = client.change(name, "ramp", **allocation, **fields)
    shares = ", ".join(f"{variant.name} {variant.weight:.4g}" for variant in changed.variants)
    _report(changed, f"has {shares} of {changed.coverage:.2%} of the units", as_json=as_json)


def stop(
    name: Annotated[str, typer.Argument(help="The experiment's name; or --model and --all.")] = "",
    *,
    model: Annotated[str, typer.Option(help="With --all: the model whose experiments are stopped.")] = "",
    all_of_model: Annotated[bool, typer.Option("--all", help="Stop all experiments on the model at once.")] = False,
    reason: Reason = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """End the assignment of units for good: the model's champion answers."""
    if bool(name) == bool(model or all_of_model) or bool(model) != all_of_model:
        raise fail("name one experiment, or give --model MODEL --all to stop all on a model")
    with connected() as client:
        if name:
            changed = client.change(name, "stop", reason=reason, changed_by=person(by))
            _report(changed, "is stopped: the champion answers", as_json=as_json)
            return
        stopped = client.stop_all(model, reason, changed_by=person(by))
    if as_json:
        print_json(StoppedExperiments(stopped))
    else:
        names = ", ".join(revision.name for revision in stopped)
        say(f"Stopped on {model}: {names}." if names else f"No experiment is in force on {model}.")


def restart(
    name: Name,
    *,
    new_name: Annotated[
        str, typer.Option("--as", help="The new draft's name; default: this one's with the next free number.")
    ] = "",
    reason: Reason = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Create a draft with the same declaration and a fresh seed: its results begin anew."""
    with connected() as client:
        draft = client.change(name, "restart", name=new_name, reason=reason, changed_by=person(by))
    _report(draft, f"is a draft with the declaration of {name}", as_json=as_json)


def promote(
    name: Name,
    *,
    variant: Annotated[str, typer.Option(help="The challenger, where verdicts leave open which one is meant.")] = "",
    reason: Reason = "",
    override: Override = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make the version that a verdict names as better the champion, and stop the experiment."""
    with connected() as client:
        fields = {"reason": reason, "override": override, "variant": variant, "changed_by": person(by)}
        changed = client.change(name, "promote", **fields)
        champion = client.version(changed.model).version
    evidence = f" on the evidence: {changed.evidence.sentence}" if changed.evidence else ""
    _report(
        changed, f"is {changed.status}; {changed.model} {short(champion)} is the champion{evidence}", as_json=as_json
    )


def _report(changed: ExperimentRevision, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(changed)
    else:
        say(f"{changed.name} {sentence} (revision {changed.revision}, epoch {changed.epoch}).")
