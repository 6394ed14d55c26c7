"""How the revisions of an experiment differ, and which one stood at a time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from contender.contracts.experiments import ExperimentRevision, FieldChange, HistoryEntry

_OF_THE_CHANGE = ("revision", "changed_at", "changed_by", "reason", "evidence", "override")
"""Fields that describe a change, not the experiment."""


def history_of(revisions: Sequence[ExperimentRevision]) -> list[HistoryEntry]:
    """Each revision with its differences from the one before; the first has none."""
    first = [HistoryEntry(revision, []) for revision in revisions[:1]]
    return first + [HistoryEntry(after, list(field_changes(before, after))) for before, after in pairwise(revisions)]


def field_changes(before: ExperimentRevision, after: ExperimentRevision) -> Iterator[FieldChange]:
    """The fields that differ, of variants each one's own, such as `variants[1].weight`."""
    for field in ExperimentRevision.__struct_fields__:
        old, new = getattr(before, field), getattr(after, field)
        if field in _OF_THE_CHANGE or old == new:
            continue
        if field == "variants" and [arm.name for arm in old] == [arm.name for arm in new]:
            for index, pair in enumerate(zip(old, new, strict=True)):
                yield from _differences(f"variants[{index}].", *pair)
        else:
            yield FieldChange(field, msgspec.to_builtins(old), msgspec.to_builtins(new))


def at_time(revisions: Sequence[ExperimentRevision], as_of: float) -> ExperimentRevision | None:
    """The newest revision at a Unix time; None before the first one."""
    return next((revision for revision in reversed(revisions) if revision.changed_at <= as_of), None)


def _differences(path: str, before: msgspec.Struct, after: msgspec.Struct) -> Iterator[FieldChange]:
    for field in before.__struct_fields__:
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield FieldChange(path + field, old, new)
