"""A source's history files as frames: the events up to a cutover, in the same order at every reading.

The files provide the events up to the cutover, and the topic those after it: an event that lies in both counts once.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from contender.features import EventSource, TrainingSetError
from contender.features.offline.tables import open_events, time_column
from services.feature_service.domain import HISTORY
from services.feature_service.frames import FramePosition, ReadFrame
from shared.errors import Conflict
from shared.events import EntityEvent

_FRAME_EVENTS = 5_000


class HistoryChangedError(Conflict):
    """The history files differ from those that features were filled from."""


class HistoryCutover(msgspec.Struct, frozen=True):
    """The time up to which events come from files, and the digest of those files."""

    until_s: float
    sha256: str


def cutover_of(source: EventSource, latest_s: float) -> HistoryCutover | None:
    """The cutover at the last event of a source's history as it is now; None if there is no history, or no event.

    Args:
        source: the source.
        latest_s: the latest time that an event may have: the topic's events up to the cutover do not count.

    Raises:
        TrainingSetError: the files can't be read, lack a column, or hold invalid events.
    """
    if not source.history:
        return None
    opened = open_events(source, {})
    time = time_column(opened, source)
    for name, kind in source.schema.items():
        opened.column(name, kind)
    opened.check([time], source.schema)
    last = opened.frame.select(opened.seconds(time).max().alias("last")).collect(engine="streaming")["last"][0]
    if last is None:
        return None
    if last > latest_s:
        moment = datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
        raise TrainingSetError(f"{opened.where}: the last event is at {moment}, in the future; leave it out")
    return HistoryCutover(float(last), _sha256(opened.files))


def read_history(source: EventSource, cutover: HistoryCutover) -> Iterator[ReadFrame]:
    """The frames of the history, oldest first; their offsets count from 0.

    Raises:
        HistoryChangedError: the files have changed since the cutover was decided.
        TrainingSetError: the files can't be read.
    """
    opened = open_events(source, {})
    if _sha256(opened.files) != cutover.sha256:
        raise HistoryChangedError(
            f"the history of source {source.name!r} has changed since features were filled from it; "
            "run `contender features rebuild` to fill them from it as it is now"
        )
    times = opened.seconds(time_column(opened, source)).alias("")
    columns = [opened.column(name, kind).alias(name) for name, kind in source.schema.items()]
    ordered = opened.frame.select(times, *columns).sort("", maintain_order=True).collect(engine="streaming")
    for number, part in enumerate(ordered.iter_slices(_FRAME_EVENTS)):
        events = [_event(source.name, row) for row in part.iter_rows(named=True)]
        yield ReadFrame(FramePosition("", HISTORY, number), events)


def _event(source: str, row: dict[str, bool | int | float | str | None]) -> EntityEvent:
    time = row.pop("")
    return EntityEvent(source, float(time or 0.0), row)


def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
