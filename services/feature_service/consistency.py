"""Whether what is served is what history says: online values of sampled entities against a training set's.

Entities are sampled by a hash of their key, so that every run looks at the same ones and several processes agree.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Any

import numpy as np
import polars as pl
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.feature_service.backfill import frame_of
from services.feature_service.definitions import Current
from services.feature_service.domain.rings import entity_text
from services.feature_service.domain.validation import fault
from services.feature_service.history import frames
from services.feature_service.metrics import CONSISTENCY, CONSISTENCY_ERROR
from services.feature_service.online import Question
from services.feature_service.store.protocol import FeatureStore
from shared.events import EntityEvent, Scalar
from shared.features.catalogue import Feature
from shared.features.definitions import EventSource, FeatureView
from shared.features.offline import build_training_set
from shared.features.offline.tables import TYPES
from shared.topics import ENTITY_EVENTS

_READ_MS = 500
_TOLERANCE = 1e-9
_POLL_S = 0.05
_APPLIED_WITHIN_S = 30.0
_HASHES = 2**32


@dataclass(frozen=True, slots=True)
class Report:
    """How one feature's served values compare. Rates are shares of the compared values.

    `missing`: history has a value and nothing is served; `extra`: the other way round; `mismatch`: both, and they
    differ, by `error_mean` and at most `error_max`.
    """

    feature: str
    compared: int
    mismatch: float
    missing: float
    extra: float
    error_mean: float
    error_max: float


@dataclass
class Consistency:
    """Compares the store with the topic and the sources' files, in threads: questions go on being answered beside it.

    Args:
        current: the definitions.
        store: what is served from.
        kafka: bootstrap servers.
        partitions: of topic entity-events.
        sample: the share of entities that are looked at.
        write_lag_s: the declared time that an event may take to the store; younger events are left out.
        future_s: how far ahead of the clock an event may be.
    """

    current: Current
    store: FeatureStore
    kafka: str
    partitions: int
    sample: float
    write_lag_s: float
    future_s: float
    _events: dict[str, list[EntityEvent]] = field(default_factory=dict)

    async def check(self, now: float) -> list[Report]:
        """Compare the newest versions of all views, as of a write lag ago.

        Raises:
            aiokafka.errors.KafkaError: the topic can't be read.
            StoreUnavailableError: the store can't be read.
            TimeoutError: the worker does not keep up.
        """
        at = now - self.write_lag_s
        await self._read(now)
        reports = [report for view in self.current.catalogue.views.values() for report in await self._view(view, at)]
        for report in reports:
            for kind in ("mismatch", "missing", "extra"):
                CONSISTENCY.labels(report.feature, kind).set(getattr(report, kind))
            CONSISTENCY_ERROR.labels(report.feature, "mean").set(report.error_mean)
            CONSISTENCY_ERROR.labels(report.feature, "max").set(report.error_max)
        return reports

    async def _read(self, now: float) -> None:
        """Take up every event that counts: of the topic as far as it goes now, each frame once."""
        seen: set[str] = set()
        async with AIOKafkaConsumer(bootstrap_servers=self.kafka, enable_auto_commit=False) as consumer:
            places = [TopicPartition(ENTITY_EVENTS.name, number) for number in range(self.partitions)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            await self._applied(ends)
            behind = [place for place, end in ends.items() if await consumer.position(place) < end]
            while behind:
                for place, records in (await consumer.getmany(*behind, timeout_ms=_READ_MS)).items():
                    before = [record for record in records if record.offset < ends[place]]
                    await asyncio.to_thread(self._take, before, seen, now)
                behind = [place for place in behind if await consumer.position(place) < ends[place]]

    def _take(self, records: Iterable[ConsumerRecord], seen: set[str], now: float) -> None:
        for record in records:
            position, events = frame_of(record)
            if position.frame_id and position.frame_id in seen:
                continue
            seen.add(position.frame_id)
            for event in events:
                if fault(event, self.current.catalogue, now + self.future_s) is None:
                    self._events.setdefault(event.source, []).append(event)

    async def _applied(self, ends: Mapping[TopicPartition, int]) -> None:
        async with asyncio.timeout(_APPLIED_WITHIN_S):
            while True:
                applied = await self.store.applied([place.partition for place in ends])
                if all(
                    (-1 if one is None else one) >= end - 1 for one, end in zip(applied, ends.values(), strict=True)
                ):
                    return
                await asyncio.sleep(_POLL_S)

    async def _view(self, view: FeatureView, at: float) -> list[Report]:
        label = self.current.catalogue.newest(view.name)
        features = [Feature(view, one.name, label) for one in view.aggregations]
        rows, offline = await asyncio.to_thread(self._history, view, label, at)
        given: dict[str, Sequence[Scalar]] = {key: rows[key].to_list() for key in view.join_keys}
        question = Question(self.current, features, given, np.full(rows.height, at), self.partitions)
        served = await question.answer(self.store)
        return [
            _compared(f"{view.name}:{one.name}", offline[f"{view.name}__{one.name}"].to_list(), column.values)
            for one, column in zip(features, served, strict=True)
        ]

    def _history(self, view: FeatureView, label: str, at: float) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The sampled entities, and what their features should be."""
        events = [one for one in self._of(view.source, label) if self._sampled(view, one)]
        keys = {key: TYPES[view.source.schema[key]] for key in view.join_keys}
        columns = {"time": pl.Float64, **{name: TYPES[kind] for name, kind in view.source.schema.items()}}
        table = pl.DataFrame([{"time": one.time, **one.values} for one in events], schema=columns)
        rows = table.select(list(keys)).unique(maintain_order=True) if keys else table.select("time").head(1)
        rows = rows.with_columns(pl.lit(at).alias("time"))
        return rows, build_training_set([view], rows, {view.source.name: table})

    def _of(self, source: EventSource, label: str) -> list[EntityEvent]:
        """The events that count for a version of a view: of files up to its seam, and of the topic after it."""
        found = self._events.get(source.name, [])
        seam = self.current.registered.seams.get(label)
        if seam is None:
            return found
        before = [event for _, events in frames(source, seam) for event in events]
        return [*before, *(event for event in found if event.time > seam.until_s)]

    def _sampled(self, view: FeatureView, event: EntityEvent) -> bool:
        key = entity_text([event.values[name] for name in view.join_keys]) if view.join_keys else ""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        return int.from_bytes(digest) < self.sample * _HASHES


def _compared(feature: str, expected: Sequence[Any], found: Sequence[Any]) -> Report:
    pairs = list(zip(expected, found, strict=True))
    rows = max(1, len(pairs))
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    apart = [_error(one, other) for one, other in both if not _same(one, other)]
    return Report(
        feature,
        len(pairs),
        len(apart) / rows,
        sum(one is not None and other is None for one, other in pairs) / rows,
        sum(one is None and other is not None for one, other in pairs) / rows,
        sum(apart) / len(apart) if apart else 0.0,
        max(apart, default=0.0),
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _error(one: Any, other: Any) -> float:
    return abs(one - other) if isinstance(one, int | float) and isinstance(other, int | float) else 1.0
