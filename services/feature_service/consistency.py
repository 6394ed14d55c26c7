"""Compares the online values of sampled entities with those of a training set, while the stream goes on.

Both sides are cut at the same time and at the same offsets. In time: the check reads values as of the last moment of a
tile that has ended. In the topic: it reads rings once the store holds everything that the topic held when the check
began. Of later events a ring holds exactly those below the offset marks in its own bytes. The check reads the topic on
up to those marks, and computes history for each ring of each entity from the events that this ring has merged. So
events that arrive late, or between the reads of two rings, make no difference, and busy entities are checked, too,
without reading them again until they agree.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import polars as pl

from contender.contracts.feature_service import FeatureReport, FeatureValue
from contender.contracts.values import Scalar
from contender.features import Aggregation, Feature
from contender.features.offline import build_training_set
from contender.features.tiles import tile_of
from services.feature_service.definitions import Definitions, DefinitionsSnapshot
from services.feature_service.domain import Column, Ring, StoredRing, compare, fits
from services.feature_service.errors import CheckRunningError
from services.feature_service.event_log import OpenLog
from services.feature_service.metrics import CONSISTENCY, CONSISTENCY_CHECKED, CONSISTENCY_ERROR
from services.feature_service.online import Question
from services.feature_service.sample import Sample, SampledEvent
from services.feature_service.samples import Samples, boundary
from services.feature_service.store import FeatureStore, RingQuery, RingsRead
from shared.clock import Clock

_POLL_S = 0.05
_APPLIED_WITHIN_S = 30.0
_READ_ROWS = 500
"""Entities whose rings one call reads: Redis answers nobody else meanwhile."""


class _ServedSample(NamedTuple):
    """The served values of a sample as of a time.

    `beyond` has, by ring name and entity, the offset marks past the ends that the topic had when the check began, by
    partition.
    """

    sample: Sample
    at: float
    features: Sequence[Feature]
    columns: Sequence[Column]
    beyond: Mapping[tuple[str, str], Mapping[int, int]]


@dataclass
class Consistency:
    """Compares the store with the topic and the history files, in threads: the service goes on answering questions.

    One check runs at a time, since each reads the whole topic. It keeps in memory the events of sampled entities alone.

    Args:
        definitions: the served versions.
        store: holds the served values.
        log: opens the topic.
        clock: the current time.
        partitions: of the topic.
        write_lag_s: the declared time from an event until it is served; younger tiles are left out.
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

    async def check(self, share: float) -> list[FeatureReport]:
        """Compare a share of the entities of all versions of all views, as of a write lag ago.

        Skips on-demand features: the same function runs on both sides.

        Raises:
            CheckRunningError: another check is running.
            HistoryChangedError: the files have changed since features were filled from them.
            TrainingSetError: the files can't be read.
            Unavailable: the store or the topic can't be read, or the worker does not keep up.
        """
        if self._lock.locked():
            raise CheckRunningError("another check of served values is running; ask again when it has ended")
        async with self._lock:
            reports = await self._check(self.definitions.current, share)
        for metric in (CONSISTENCY, CONSISTENCY_ERROR):
            metric.clear()  # drops retired versions
        for report in reports:
            for kind in ("mismatch", "missing", "extra"):
                CONSISTENCY.labels(report.feature, kind).set(getattr(report, kind))
            CONSISTENCY_ERROR.labels(report.feature, "mean").set(report.error_mean)
            CONSISTENCY_ERROR.labels(report.feature, "max").set(report.error_max)
        CONSISTENCY_CHECKED.set(self.clock.now())
        return reports

    async def _check(self, current: DefinitionsSnapshot, share: float) -> list[FeatureReport]:
        now = self.clock.now()
        samples = Samples.of(current, share=share, at=now - self.write_lag_s, now=now, future_s=self.future_s)
        await asyncio.to_thread(samples.take_history)
        async with self.log() as log:
            ends = await log.ends()
            async for frames in log.read({}, ends):
                await asyncio.to_thread(samples.take, frames)
            samples.close()
            await self._wait_until_applied(ends)
            served = [await self._read_served(current, sample, ends) for sample in samples.views]
            marks = [mark for part in served for beyond in part.beyond.values() for mark in beyond.items()]
            newest = await log.ends()  # a mark beyond them is broken
            claimed = {
                partition: min(max([end, *_marks_of(marks, partition)]), newest[partition])
                for partition, end in ends.items()
            }
            async for frames in log.read(ends, claimed):
                await asyncio.to_thread(samples.take, frames)
        return [report for part in served for report in await asyncio.to_thread(_compare, current, part, ends)]

    async def _wait_until_applied(self, ends: Mapping[int, int]) -> None:
        """Return once everything before the ends is in the store."""
        async with asyncio.timeout(_APPLIED_WITHIN_S):
            while True:
                offsets = await self.store.applied(list(ends))
                applied = [-1 if offset is None else offset for offset in offsets]
                if all(offset >= end - 1 for offset, end in zip(applied, ends.values(), strict=True)):
                    return
                await asyncio.sleep(_POLL_S)

    async def _read_served(
        self, current: DefinitionsSnapshot, sample: Sample, ends: Mapping[int, int]
    ) -> _ServedSample:
        # Just before the boundary, because exactly on it the newest tile is empty.
        at = float(np.nextafter(boundary(self.clock.now() - self.write_lag_s, sample.view.hop_s), -np.inf))
        features = [Feature(sample.view, aggregation.name, sample.label) for aggregation in sample.view.aggregations]
        columns = [Column([], []) for _ in features]
        beyond: dict[tuple[str, str], Mapping[int, int]] = {}
        entities = list(sample.entities.items())
        for start in range(0, len(entities), _READ_ROWS):
            batch = entities[start : start + _READ_ROWS]
            join_keys: dict[str, Sequence[Scalar]] = {
                key: [values[index] for _, values in batch] for index, key in enumerate(sample.view.join_keys)
            }
            reader = _RecordingReader(self.store)
            question = Question(current, features, join_keys, np.full(len(batch), at), self.partitions)
            for column, answer in zip(columns, await question.answer(reader), strict=True):
                column.values.extend(answer.values)
                column.statuses.extend(answer.statuses)
            for ring in current.rings.of_view(sample.label):
                for entity, _ in batch:
                    if marks := _beyond(ring, reader.stored.get((ring.name, entity)), ends):
                        beyond[ring.name, entity] = marks
        return _ServedSample(sample, at, features, columns, beyond)


@dataclass(frozen=True, slots=True)
class _RecordingReader:
    """Reads rings for a question and keeps them: offset marks count only for the ring that holds them."""

    store: FeatureStore
    stored: dict[tuple[str, str], StoredRing | None] = field(default_factory=dict)

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        """The rings that queries ask for."""
        answer = await self.store.read(queries)
        for (ring, entities), rings in zip(queries, answer.rings, strict=True):
            self.stored.update({(ring.name, entity): stored for entity, stored in zip(entities, rings, strict=True)})
        return answer


def _marks_of(marks: Sequence[tuple[int, int]], partition: int) -> list[int]:
    return [mark for of_partition, mark in marks if of_partition == partition]


def _beyond(ring: Ring, stored: StoredRing | None, ends: Mapping[int, int]) -> dict[int, int]:
    """The offset marks of a ring that lie beyond the ends."""
    marks = stored.offset_marks(ring) if stored else {}
    return {at: int(mark) for at, mark in marks.items() if ends.get(at, mark) < mark < float("inf")}


def _compare(current: DefinitionsSnapshot, served: _ServedSample, ends: Mapping[int, int]) -> list[FeatureReport]:
    """A report per feature."""
    sample = served.sample
    expected = _expected(current, served, ends)
    newest: dict[str, float] = defaultdict(float)
    for event in sample.events:
        newest[event.entity] = max(newest[event.entity], event.time)
    held_until = tile_of(served.at, sample.view.hop_s) + 1 + sample.view.lateness_tiles
    overtaken = [bool(tile_of(newest[entity], sample.view.hop_s) > held_until) for entity in sample.entities]
    # The name that callers use: without a number for today's version.
    name = sample.view.name if current.catalogue.today.get(sample.view.name) == sample.label else sample.label
    reports = []
    for feature, values, column in zip(served.features, expected, served.columns, strict=True):
        pairs = [
            (value, served_value)
            for value, served_value, status, is_overtaken in zip(
                values, column.values, column.statuses, overtaken, strict=True
            )
            # An event ahead of the clock has replaced tiles of the window: the value can't be known.
            if not (is_overtaken and status == "OUTSIDE_MAX_AGE")
        ]
        reports.append(compare(f"{name}:{feature.name}", pairs))
    return reports


def _expected(current: DefinitionsSnapshot, served: _ServedSample, ends: Mapping[int, int]) -> list[list[FeatureValue]]:
    """The values that history gives each entity, by feature. A ratio's parts may lie in two rings, with two cuts."""
    sample = served.sample
    before = [event for event in sample.events if event.offset < ends.get(event.partition, event.offset + 1)]
    after = [event for event in sample.events if event.offset >= ends.get(event.partition, event.offset + 1)]
    parts = [part for aggregation in sample.view.aggregations for part in aggregation.parts]
    columns = len(sample.view.source.schema)
    former = [index for index, event in enumerate(before) if len(sample.columns(event)) < columns]
    # Parts by the events of `after` that their rings hold, and those of `before` that they lack.
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        ring = current.rings.ring(sample.label, part)
        lacking = tuple(index for index in former if not fits(before[index].values, ring.reads))
        groups[_held(ring, after, served.beyond), lacking].append(number)
    values: dict[int, list[FeatureValue]] = {}
    for (held, lacking), numbers in groups.items():
        without = set(lacking)
        known = [event for index, event in enumerate(before) if index not in without]
        table = sample.table([*known, *(after[index] for index in held)])
        values.update(_history(served, {number: parts[number] for number in numbers}, table))
    number, answers = 0, []
    for aggregation in sample.view.aggregations:
        answers.append(aggregation.combine_lists([values[number + part] for part in range(len(aggregation.parts))]))
        number += len(aggregation.parts)
    return answers


def _held(
    ring: Ring, after: Sequence[SampledEvent], beyond: Mapping[tuple[str, str], Mapping[int, int]]
) -> tuple[int, ...]:
    """Indices of the events since the check began that a ring holds, or that its filter drops: those change nothing."""
    return tuple(
        index
        for index, event in enumerate(after)
        if fits(event.values, ring.reads)
        and (
            event.offset < beyond.get((ring.name, event.entity), {}).get(event.partition, 0)
            or not (ring.where is None or ring.where.holds(event.values))
        )
    )


def _history(
    served: _ServedSample, parts: Mapping[int, Aggregation], table: pl.DataFrame
) -> dict[int, list[FeatureValue]]:
    sample = served.sample
    named = [replace(part, name=f"part_{number}") for number, part in parts.items()]
    view = replace(sample.view, features=named, where=None)  # the parts have the view's filter already
    built = build_training_set([view], sample.rows(served.at), {view.source.name: table})
    return {number: built[f"{view.name}__part_{number}"].to_list() for number in parts}
