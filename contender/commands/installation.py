"""`contender export` and `contender apply`: an installation as a file for review in git."""

from pathlib import Path
from typing import Annotated

import typer

from contender.commands.calls import connected
from contender.commands.showing import By, Reason, person, print_json, say
from contender.commands.terminal import errors, fail, visible
from contender.errors import ContenderError
from contender.installation.comparing import plan_of
from contender.installation.document import Contents, Present, exported
from contender.installation.files import write_uploads
from contender.installation.plan import Plan, Who
from contender.yaml_files import Document

Models = Annotated[Path | None, typer.Option(help="The folder of the versions' files.", file_okay=False)]


def export(
    file: Annotated[Path | None, typer.Argument(help="The YAML file; default: it is printed.")] = None,
    *,
    models: Models = None,
) -> None:
    """Write what the installation holds: champions, experiments with their seeds, feature definitions.

    With --models the files of all versions go to a folder, so that another installation can register them.
    """
    with connected() as client:
        present = Present.of(client)
        written = None if models is None else write_uploads(client, present, models)
    text = exported(present)
    if file is None:
        typer.echo(text, nl=False)
    else:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise fail(f"{file} can't be written: {error.strerror}") from error
        say(f"Wrote {file}.")
    if written is not None:
        wrote = f"Wrote the files of {written} versions to {models}." if written else f"{models} has all files already."
        errors.print(visible(wrote), soft_wrap=True)


def apply(
    file: Annotated[Path, typer.Argument(help="A YAML file such as `contender export` writes.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference, and change nothing.")] = False,
    models: Models = None,
    override: Annotated[str, typer.Option(help="Why experiments start though their traffic does not suit.")] = "",
    reason: Reason = "",
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Make the installation as the file has it: show the difference, then change what differs; nothing is deleted.

    Nothing is changed where something of the file can't be applied: an unknown version, another design of a started
    experiment, other feature definitions.
    """
    with connected() as client:
        document = Document.read(file)
        document.converted(Contents)  # what is no such file is refused before anything is asked
        plan = plan_of(document, Present.of(client), models)
        _show(plan, as_json=as_json)
        if plan.faults:
            raise fail("Nothing was changed. " + " ".join(f"{fault}." for fault in plan.faults))
        if dry_run:
            return
        who = Who(person(by), reason, override)
        for number, action in enumerate(plan.actions):
            try:
                action.call(client, who)
            except ContenderError as error:
                done = f"{number} of {len(plan.actions)} changes were made; apply the file again for the others"
                raise fail(f"{error} ({done})") from error
    if not as_json:
        is_same = plan.counted()["same"] == len(plan.steps)
        say("Nothing differs." if is_same else f"Made {len(plan.actions)} changes.")


def _show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        steps = [{"subject": step.subject, "kind": step.kind, "details": list(step.details)} for step in plan.steps]
        print_json({"steps": steps, "faults": plan.faults})
        return
    say(*map(str, plan.steps))
    counts = plan.counted()
    say(f"{counts['new']} new, {counts['changed']} changed, {counts['same']} the same.")
