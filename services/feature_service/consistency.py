"""Whether what is served is what history says: online values of sampled entities against a training set's.

The stream goes on meanwhile, so both sides are cut at the same place, in time and in the topic. In time: values are
asked for as of the last moment of a tile that has ended, as a tile is cut only at the latest events. In the topic:
everything that was there when the check began must be in the store before its rings are read, and of what came later a
ring holds exactly what lies below the offset marks that its own bytes carry. The topic is read on up to those marks,
and history is worked out for each ring of each entity from the events that this very ring claims. So nothing that
arrives late, or between the reading of two rings, passes for a difference, and nothing has to be looked at twice:
entities that never come to rest are checked, too. Were one that differs looked at again until it agrees, a busy one
would always differ.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import polars as pl

from contender.contracts.values import Scalar
from contender.features.aggregations import Aggregation
from contender.features.catalogue import Feature
from contender.features.offline import build_training_set
from contender.features.tiles import tile_of
from services.feature_service.definitions import Definitions, DefinitionsSnapshot
from services.feature_service.domain.reports import Report
from services.feature_service.domain.rings import Ring
from services.feature_service.domain.validation import fits
from services.feature_service.domain.windows import Column, FeatureValue
from services.feature_service.event_log import OpenLog
from services.feature_service.metrics import CONSISTENCY, CONSISTENCY_CHECKED, CONSISTENCY_ERROR
from services.feature_service.online import Question
from services.feature_service.samples import Placed, Sample, Samples, boundary
from services.feature_service.store.protocol import FeatureStore
from shared.clock import Clock

_POLL_S = 0.05
_APPLIED_WITHIN_S = 30.0
_READ_ROWS = 500
"""Entities whose rings are asked for at a time: Redis answers nobody else meanwhile."""


class CheckRunningError(Exception):
    """Another check has not ended yet."""


class _Served(NamedTuple):
    """What the store said of a sample as of a time.

    `beyond` has per ring's name and entity the marks that lie beyond what was there when the check began, by partition.
    """

    sample: Sample
    at: float
    features: Sequence[Feature]
    columns: Sequence[Column]
    beyond: Mapping[tuple[str, str], Mapping[int, int]]


@dataclass
class Consistency:
    """Compares the store with the topic and the sources' files, in threads: questions go on being answered beside it.

    One check runs at a time, since each reads the whole topic. In memory are the events of sampled entities alone.

    Args:
        definitions: what is served.
        store: what is served from.
        log: opens the topic.
        clock: tells the time.
        partitions: of the topic.
        write_lag_s: the declared time that an event may take to the store; younger tiles are left out.
        future_s: how far ahead of the clock an event may be.
    """

    definitions: Definitions
    store: FeatureStore
    log: OpenLog
    clock: Clock
    partitions: int
    write_lag_s: float
    future_s: float
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, share: float) -> list[Report]:
        """Compare a share of the entities of all versions of all views, as of a write lag ago.

        Not those computed on demand: the function that history would be computed by is the very one that serves.

        Raises:
            CheckRunningError: another check has not ended yet.
            HistoryChangedError: the files have changed since their seam was decided.
            TrainingSetError: the files can't be read.
            aiokafka.errors.KafkaError: the topic can't be read.
            StoreUnavailableError: the store can't be read.
            TimeoutError: the worker does not keep up.
        """
        if self._lock.locked():
            raise CheckRunningError
        async with self._lock:
            reports = await self._check(self.definitions.current, share)
        for metric in (CONSISTENCY, CONSISTENCY_ERROR):
            metric.clear()  # of versions that were retired nothing is told any longer
        for report in reports:
            for kind in ("mismatch", "missing", "extra"):
                CONSISTENCY.labels(report.feature, kind).set(getattr(report, kind))
            CONSISTENCY_ERROR.labels(report.feature, "mean").set(report.error_mean)
            CONSISTENCY_ERROR.labels(report.feature, "max").set(report.error_max)
        CONSISTENCY_CHECKED.set(self.clock.now())
        return reports

    async def _check(self, current: DefinitionsSnapshot, share: float) -> list[Report]:
        now = self.clock.now()
        samples = Samples.of(current, share=share, at=now - self.write_lag_s, now=now, future_s=self.future_s)
        await asyncio.to_thread(samples.take_history)
        async with self.log() as log:
            ends = await log.ends()
            async for read in log.read({}, ends):
                await asyncio.to_thread(samples.take, read)
            samples.close()
            await self._applied(ends)
            served = [await self._served(current, sample, ends) for sample in samples.views]
            marks = [mark for one in served for beyond in one.beyond.values() for mark in beyond.items()]
            there = await log.ends()  # a mark beyond them is a broken one
            claimed = {place: min(max([end, *_of(marks, place)]), there[place]) for place, end in ends.items()}
            async for read in log.read(ends, claimed):
                await asyncio.to_thread(samples.take, read)
        return [report for one in served for report in await asyncio.to_thread(_compared, current, one, ends)]

    async def _applied(self, ends: Mapping[int, int]) -> None:
        """Return once everything before the ends is in the store."""
        async with asyncio.timeout(_APPLIED_WITHIN_S):
            while True:
                applied = await self.store.applied(list(ends))
                if all(
                    (-1 if one is None else one) >= end - 1 for one, end in zip(applied, ends.values(), strict=True)
                ):
                    return
                await asyncio.sleep(_POLL_S)

    async def _served(self, current: DefinitionsSnapshot, sample: Sample, ends: Mapping[int, int]) -> _Served:
        # Not the boundary itself: as of that a window lacks its last tile, and one of a single tile would be empty.
        at = float(np.nextafter(boundary(self.clock.now() - self.write_lag_s, sample.view.hop_s), -np.inf))
        features = [Feature(sample.view, one.name, sample.label) for one in sample.view.aggregations]
        columns = [Column([], []) for _ in features]
        beyond: dict[tuple[str, str], Mapping[int, int]] = {}
        entities = list(sample.entities.items())
        for start in range(0, len(entities), _READ_ROWS):
            some = entities[start : start + _READ_ROWS]
            given: dict[str, Sequence[Scalar]] = {
                key: [keys[place] for _, keys in some] for place, key in enumerate(sample.view.join_keys)
            }
            reader = _Reader(self.store)
            question = Question(current, features, given, np.full(len(some), at), self.partitions)
            for column, found in zip(columns, await question.answer(reader), strict=True):
                column.values.extend(found.values)
                column.statuses.extend(found.statuses)
            for ring in current.rings.of_view(sample.label):
                for entity, _ in some:
                    if marks := _beyond(ring, reader.held.get(ring.key(entity)), ends):
                        beyond[ring.name, entity] = marks
        return _Served(sample, at, features, columns, beyond)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads for a question and keeps what it was answered: marks count only for the bytes that they stand in."""

    store: FeatureStore
    held: dict[str, bytes | None] = field(default_factory=dict)

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key."""
        found = await self.store.read(keys)
        self.held.update(zip(keys, found, strict=True))
        return found


def _of(marks: Sequence[tuple[int, int]], partition: int) -> list[int]:
    return [mark for place, mark in marks if place == partition]


def _beyond(ring: Ring, held: bytes | None, ends: Mapping[int, int]) -> dict[int, int]:
    """The marks of a ring's bytes that lie beyond the ends."""
    marks = np.frombuffer((held or b"")[ring.cells_bytes :], dtype="<f8").tolist()[1:]  # the first is history's
    return {place: int(mark) for place, mark in enumerate(marks) if ends.get(place, mark) < mark < float("inf")}


def _compared(current: DefinitionsSnapshot, served: _Served, ends: Mapping[int, int]) -> list[Report]:
    """A report per feature."""
    sample = served.sample
    expected = _expected(current, served, ends)
    newest: dict[str, float] = defaultdict(float)
    for event in sample.events:
        newest[event.entity] = max(newest[event.entity], event.time)
    held_until = tile_of(served.at, sample.view.hop_s) + 1 + sample.view.lateness_tiles
    overtaken = [bool(tile_of(newest[one], sample.view.hop_s) > held_until) for one in sample.entities]
    # As one asks for it: without a number for what the definitions say today.
    named = sample.view.name if current.catalogue.today.get(sample.view.name) == sample.label else sample.label
    reports = []
    for feature, wanted, column in zip(served.features, expected, served.columns, strict=True):
        pairs = [
            (one, other)
            for one, other, status, is_overtaken in zip(wanted, column.values, column.statuses, overtaken, strict=True)
            # An event ahead of the clock has taken the place of tiles that the window asks for: nobody can tell.
            if not (is_overtaken and status == "OUTSIDE_MAX_AGE")
        ]
        reports.append(Report.of(f"{named}:{feature.name}", pairs))
    return reports


def _expected(current: DefinitionsSnapshot, served: _Served, ends: Mapping[int, int]) -> list[list[FeatureValue]]:
    """Per feature what history says of each entity. A ratio's parts may lie in two rings, of two cuts."""
    sample = served.sample
    before = [one for one in sample.events if one.offset < ends.get(one.partition, one.offset + 1)]
    after = [one for one in sample.events if one.offset >= ends.get(one.partition, one.offset + 1)]
    parts = [part for one in sample.view.aggregations for part in one.parts]
    former = [place for place, one in enumerate(before) if len(sample.columns(one)) < len(sample.view.source.schema)]
    # Parts by what their rings hold of `after`, and what they lack of `before`.
    alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        ring = current.rings.ring(sample.label, part)
        lacking = tuple(place for place in former if not fits(before[place].values, ring.reads))
        alike[_held(ring, after, served.beyond), lacking].append(number)
    found: dict[int, list[FeatureValue]] = {}
    for (places, lacking), numbers in alike.items():
        without = set(lacking)
        known = [one for place, one in enumerate(before) if place not in without]
        table = sample.table([*known, *(after[place] for place in places)])
        found.update(_history(served, {number: parts[number] for number in numbers}, table))
    values = []
    number = 0
    for one in sample.view.aggregations:
        values.append(found[number] if len(one.parts) == 1 else _divided(found[number], found[number + 1]))
        number += len(one.parts)
    return values


def _held(ring: Ring, after: Sequence[Placed], beyond: Mapping[tuple[str, str], Mapping[int, int]]) -> tuple[int, ...]:
    """Which events that came during the check are in a ring; those that it does not count change nothing."""
    return tuple(
        place
        for place, event in enumerate(after)
        if fits(event.values, ring.reads)
        and (
            event.offset < beyond.get((ring.name, event.entity), {}).get(event.partition, 0)
            or not (ring.where is None or ring.where.holds(event.values))
        )
    )


def _history(served: _Served, parts: Mapping[int, Aggregation], table: pl.DataFrame) -> dict[int, list[FeatureValue]]:
    sample = served.sample
    named = [replace(part, name=f"part_{number}") for number, part in parts.items()]
    view = replace(sample.view, features=named, where=None)  # the parts have the view's filter already
    built = build_training_set([view], sample.rows(served.at), {view.source.name: table})
    return {number: built[f"{view.name}__part_{number}"].to_list() for number in parts}


def _divided(top: Sequence[FeatureValue], bottom: Sequence[FeatureValue]) -> list[FeatureValue]:
    return [
        one / other if isinstance(one, int | float) and isinstance(other, int | float) and other else None
        for one, other in zip(top, bottom, strict=True)
    ]
