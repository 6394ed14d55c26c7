"""`contender experiment list`, `show`, `readiness`, `history` and `diff`: experiments as they stand and stood."""

from collections.abc import Iterator
from typing import Annotated, get_args

import msgspec
import typer

from contender.commands.calls import connected
from contender.commands.showing import AsJson, moment, print_json, say, short, table, when, worded
from contender.commands.terminal import console, fail
from contender.contracts.experiments import (
    ExperimentHistory,
    ExperimentList,
    ExperimentRevision,
    FieldChange,
    HistoryEntry,
    NewExperiment,
    Status,
    VariantAllocation,
)

Name = Annotated[str, typer.Argument(help="The experiment's name.")]
_SHOWN_APART = frozenset(
    [
        "name",
        "model",
        "revision",
        "epoch",
        "status",
        "variants",
        "changed_at",
        "started_at",
        "verdicts",
        "reason",
        "changed_by",
        "metric",
        "champion",
        "was_partial",
    ]
)
_BOOKKEEPING = frozenset(
    [
        "revision",
        "changed_at",
        "changed_by",
        "reason",
        "started_at",
        "stopped_at",
        "evidence",
        "verdicts",
        "was_partial",
    ]
)
"""Fields that every revision changes, that other columns tell, or that the router keeps for itself."""


def list_experiments(
    *,
    model: Annotated[str, typer.Option(help="Only experiments on this model.")] = "",
    status: Annotated[str, typer.Option(help="Only draft, running, paused, decided or stopped ones.")] = "",
    as_json: AsJson = False,
) -> None:
    """List experiments, oldest first."""
    if status and status not in get_args(Status):
        raise fail(f"--status {status}: give one of {', '.join(get_args(Status))}")
    with connected() as client:
        known = [
            revision
            for revision in client.experiments()
            if model in ("", revision.model) and status in ("", revision.status)
        ]
    if as_json:
        print_json(ExperimentList(known))
    elif not known:
        say("There is no such experiment." if model or status else "There is no experiment.")
    else:
        titles = ("experiment", "model", "status", "variants", "coverage", "metric", "started", "owner")
        console.print(table(titles, map(_list_cells, known)))


def _list_cells(revision: ExperimentRevision) -> list[str]:
    variants = ", ".join(f"{variant.name} {variant.weight:.4g}" for variant in revision.variants)
    started, owner = when(revision.started_at), revision.owner or "-"
    coverage = f"{revision.coverage:.4g}"
    return [revision.name, revision.model, revision.status, variants, coverage, revision.metric, started, owner]


def show(
    name: Name,
    *,
    revision: Annotated[int | None, typer.Option(help="The revision of this number.")] = None,
    as_of: Annotated[str, typer.Option(help="As it stood at a time: 2026-01-31T12:00 (UTC), or seconds.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show an experiment as it stands, or as it stood: its variants, and all that is not as usual."""
    with connected() as client:
        shown = client.revision(name, revision, as_of=moment(as_of, "--as-of") if as_of else None)
    if as_json:
        print_json(shown)
        return
    say(f"{shown.name} on {shown.model}: {shown.status}, revision {shown.revision}, epoch {shown.epoch}")
    who = f" by {shown.changed_by}" if shown.changed_by else ""
    say(f"changed {when(shown.changed_at)}{who}{f': {shown.reason}' if shown.reason else ''}")
    if shown.started_at is not None:
        say(f"started {when(shown.started_at)}")
    titles = ("variant", "version", "weight", "verdict")
    rows = [
        (variant.name, _version(variant), f"{variant.weight:.6g}", _verdict(shown, variant.name))
        for variant in shown.variants
    ]
    console.print(table(titles, rows))
    say(f"decides by {shown.metric}: {shown.hypothesis}")
    console.print(table(("", ""), _unusual(shown)))


def _version(variant: VariantAllocation) -> str:
    """A variant's version, and the alias that was resolved to it."""
    pinned = variant.alias and variant.alias != variant.version
    return f"{short(variant.version)}{f' ({variant.alias} at the start)' if pinned else ''}"


def _verdict(shown: ExperimentRevision, variant: str) -> str:
    if variant in shown.verdicts:
        return f"{shown.verdicts[variant].status}: {shown.verdicts[variant].sentence}"
    return "champion" if variant == shown.champion else "-"


def _unusual(shown: ExperimentRevision) -> Iterator[tuple[str, str]]:
    """The fields that a reader does not expect, by name."""
    usual = {field.name: field.default for field in msgspec.structs.fields(NewExperiment)}
    pinned = next(variant.version for variant in shown.variants if variant.name == shown.champion)
    usual |= {"model_champion": pinned, "hypothesis": shown.hypothesis}
    for name, value in msgspec.to_builtins(shown).items():
        is_usual = value in (None, "", [], {}, False) or value == usual.get(name)
        if name not in _SHOWN_APART and not is_usual:
            yield name, when(value) if name == "stopped_at" else worded(value)


def readiness(name: Name, *, as_json: AsJson = False) -> None:
    """Say what speaks against a start; exit with 1 where something does."""
    with connected() as client:
        answer = client.readiness(name)
    if as_json:
        print_json(answer)
    else:
        since = f" since {when(answer.since)}" if answer.since else ""
        say(f"{name} {'may start' if answer.ready else 'is not ready'}: {answer.rows:,} rows{since}.")
        for finding in answer.findings:
            say(f"{'Against it' if finding.blocks else 'Note'}: {finding.field} {finding.message}")
        for overlap in answer.overlaps:
            could = "could take the same units" if overlap.shares_units else "takes other units"
            say(f"Beside it {overlap.experiment} is {overlap.status}: {overlap.share:.2%} of the units; it {could}.")
    if not answer.ready:
        raise typer.Exit(1)


def history(name: Name, *, as_json: AsJson = False) -> None:
    """List an experiment's revisions: who made them, when, why, and what changed."""
    with connected() as client:
        entries = client.history(name)
    if as_json:
        print_json(ExperimentHistory(entries))
    else:
        titles = ("", "when", "who", "status", "what changed", "why")
        console.print(table(titles, map(_history_cells, entries)))


def _history_cells(entry: HistoryEntry) -> list[str]:
    revision = entry.revision
    changes = "; ".join(_change(change) for change in entry.changes if change.field not in _BOOKKEEPING)
    why = [revision.reason, f"overridden: {revision.override}" if revision.override else ""]
    if revision.evidence is not None and revision.evidence.sentence != revision.reason:
        why.append(f"verdict {revision.evidence.number}: {revision.evidence.sentence}")
    who = revision.changed_by or "-"
    reasons = "; ".join(part for part in why if part)
    return [str(revision.revision), when(revision.changed_at), who, revision.status, changes or "-", reasons or "-"]


def _change(change: FieldChange) -> str:
    before, after = (
        "none" if value in (None, "", [], {}) else worded(value) for value in (change.before, change.after)
    )
    return f"{change.field} {before} -> {after}"


def diff(
    name: Name,
    before: Annotated[int, typer.Argument(metavar="A", help="The number of a revision.")],
    after: Annotated[int, typer.Argument(metavar="B", help="The number of another one.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Compare two revisions of an experiment, field by field."""
    with connected() as client:
        revisions = {entry.revision.revision: entry.revision for entry in client.history(name)}
    for number in (before, after):
        if number not in revisions:
            raise fail(f"experiment {name} has no revision {number}: it has {min(revisions)} to {max(revisions)}")
    old, new = (msgspec.to_builtins(revisions[number]) for number in (before, after))
    changes = [FieldChange(field, old[field], new[field]) for field in old if old[field] != new[field]]
    if as_json:
        print_json(changes)
        return
    old_fields, new_fields = (_fields(revisions[number]) for number in (before, after))
    rows = [
        (field, old_fields.get(field, "-"), new_fields.get(field, "-"))
        for field in dict.fromkeys((*old_fields, *new_fields))
        if old_fields.get(field) != new_fields.get(field)
    ]
    console.print(table(("field", f"revision {before}", f"revision {after}"), rows))


def _fields(revision: ExperimentRevision) -> dict[str, str]:
    """The fields of a revision in words, a variant each in one of its own."""
    whole: dict[str, object] = msgspec.to_builtins(revision)
    del whole["variants"], whole["revision"]
    variants = {f"variant {each.name}": f"{_version(each)}, {each.weight:.6g}" for each in revision.variants}
    return variants | {
        field: when(value) if field.endswith("_at") and isinstance(value, float) else worded(value)
        for field, value in whole.items()
    }
