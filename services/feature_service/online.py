"""The use case of online features: computes them for entities at given times. Knows no HTTP."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, isinf
from typing import NamedTuple

import numpy as np

from contender.contracts.values import Scalar
from contender.features import Aggregation, Catalogue, DefinitionError, Feature, FeatureView, OnDemandView, View
from contender.features.arrays import Values, computed
from contender.features.tiles import Floats
from services.feature_service.definitions import DefinitionsSnapshot
from services.feature_service.domain import Column, HeldRing, Ring, RingBatch, RingGroup, StoredRing, entity_texts
from services.feature_service.on_demand import Failures, compute_rows
from services.feature_service.store import RingQuery, RingReader
from shared.errors import TooLarge

_Key = tuple[str, str]  # label with its version, and the feature's name
_Part = tuple[str, Aggregation]  # label with its version, and what is read from tiles
_Input = tuple[type, _Key]  # type of an on-demand function's input, and which feature it is
_REMEMBERED = 128
"""Lists of features that are remembered; a deployment has about one per model."""


class TooManyTilesError(TooLarge):
    """A question needs more tiles than one call may read."""

    def __init__(self, size_bytes: float, most: float, rows: int) -> None:
        fitting = max(1, int(rows * most / size_bytes))
        super().__init__(
            f"the question needs {size_bytes / 1e6:,.0f} MB of tiles for {rows} rows; ask for {fitting} rows a call"
        )


@dataclass
class Question:
    """A question for the features of some rows.

    Args:
        current: the definitions.
        features: the features; the plan for their list is remembered.
        columns: the join keys of the features' entities, and the request columns they need, one value per row.
        times: when each row's windows end, in seconds, shape (rows,).
        partitions: of topic entity-events.
        most_bytes: most bytes of tiles that may be read.
        failures: counts the rows that an on-demand function fails on.
    """

    current: DefinitionsSnapshot
    features: Sequence[Feature]
    columns: Mapping[str, Sequence[Scalar]]
    times: Floats
    partitions: int
    most_bytes: float = inf
    failures: Failures = field(default_factory=Failures)
    _answers: dict[_Key, Column] = field(default_factory=dict)

    async def answer(self, store: RingReader) -> list[Column]:
        """The features' values and statuses, with one read for them all.

        A row that an on-demand function fails on has null there, with the status INVALID.

        Raises:
            TooManyTilesError: the rows need more tiles than `most_bytes`; nothing was read.
            StoreUnavailableError: the store can't be read.
        """
        plan = _plan(self.current, tuple(self.features), self.partitions)
        await self._read(store, plan)
        for label, view, inputs in plan.on_demand:
            await self._compute(label, view, inputs)
        return [self._answers[key] for key in plan.asked]

    async def _read(self, store: RingReader, plan: "ReadPlan") -> None:
        """Answer features of tiles."""
        entities = {join_keys: self._entities(join_keys) for join_keys in plan.join_keys}
        self._check(plan, entities)
        rings = [ring for planned in plan.batches for ring in planned.group.rings]
        answer = await store.read([RingQuery(ring, entities[ring.join_keys].distinct) for ring in rings])
        if self.current.registered.epoch not in ("", answer.epoch):
            # The store was emptied after the rings were planned: every feature is unknown, even a count.
            read = [_nothing(len(self.times))] * sum(len(planned.parts) for planned in plan.batches)
        else:
            read = self._columns(plan, iter(answer.rings), entities)
        read += [_nothing(len(self.times))] * plan.unfilled
        for key, (feature, indices) in plan.tiled.items():
            self._answers[key] = Column.combined(feature, [read[index] for index in indices])

    def _columns(
        self,
        plan: "ReadPlan",
        stored: Iterator[list[StoredRing | None]],
        entities: Mapping[tuple[str, ...], "_Entities"],
    ) -> list[Column]:
        """The values of every part of the batches, in their order."""
        columns: list[Column] = []
        for planned in plan.batches:
            held = [HeldRing(next(stored), entities[ring.join_keys].row) for ring in planned.group.rings]
            batch = RingBatch.of(planned.group, held, self.times)
            columns += [
                batch.column(read.ring, read.part, integer=read.integer, max_age_s=read.max_age_s)
                for read in planned.parts
            ]
        return columns

    def _check(self, plan: "ReadPlan", entities: Mapping[tuple[str, ...], "_Entities"]) -> None:
        """Refuse a question that needs too many tiles."""
        if isinf(self.most_bytes):
            return
        is_one_time = bool((self.times == self.times[:1]).all())
        size_bytes = sum(
            planned.group.bytes * (len(entities[ring.join_keys].distinct) if is_one_time else len(self.times))
            for planned in plan.batches
            for ring in planned.group.rings
        )
        if size_bytes > self.most_bytes:
            raise TooManyTilesError(size_bytes, self.most_bytes, len(self.times))

    def _entities(self, join_keys: Sequence[str]) -> "_Entities":
        if not join_keys:
            return _Entities([""], [0] * len(self.times))
        columns = [self.columns[key] for key in join_keys]
        texts = entity_texts(columns)
        if any(None in column for column in columns):  # a row with a null key names no entity
            texts = ["" if None in keys else text for text, *keys in zip(texts, *columns, strict=True)]
        number = {entity: index for index, entity in enumerate(dict.fromkeys(texts))}
        return _Entities(list(number), list(map(number.__getitem__, texts)))

    async def _compute(self, label: str, view: OnDemandView, inputs: Sequence[_Input]) -> None:
        columns: list[tuple[type, Values]] = [(kind, self.columns[name]) for name, kind in view.request.items()]
        columns += [(kind, self._answers[key].values) for kind, key in inputs]
        rows = len(self.times)
        try:
            features, invalid = computed(view, columns), frozenset[int]()
        except DefinitionError:
            # Finding the failing rows takes many calls; in a thread they don't hold up other questions.
            by_row = await asyncio.to_thread(compute_rows, view, columns, rows)
            self.failures.report(label, int(by_row.failed.sum()), by_row.reason)
            features, invalid = by_row.features, frozenset(np.flatnonzero(by_row.failed).tolist())
        invalid |= {row for _, key in inputs for row in self._answers[key].invalid}
        for name, feature in features.items():
            self._answers[label, name] = Column.of(feature.listed, invalid)


class _Entities(NamedTuple):
    """The distinct entities of a question, and the number of the entity that each row names."""

    distinct: list[str]
    row: list[int]


class PartRead(NamedTuple):
    """A part of a feature: the index of its ring in the batch, and the type and age that its view declares."""

    ring: int
    part: Aggregation
    integer: bool
    max_age_s: float


class PlannedBatch(NamedTuple):
    """Rings that are computed together, and the parts that are read from them."""

    group: RingGroup
    parts: Sequence[PartRead]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How to answer a list of features.

    `tiled` has the parts of each feature of tiles, by their index among the parts of all batches. Behind those come
    the `unfilled` parts (their number), whose rings are still being filled. `on_demand` has the views of the other
    features with their inputs, each view after those that it needs. `asked` has the features in their order.
    """

    join_keys: frozenset[tuple[str, ...]]
    batches: Sequence[PlannedBatch]
    unfilled: int
    tiled: Mapping[_Key, tuple[Aggregation, Sequence[int]]]
    on_demand: Sequence[tuple[str, OnDemandView, Sequence[_Input]]]
    asked: Sequence[_Key]


# Questions repeat the same lists of features: without the cache a row of 15 features takes 70 us more.
@lru_cache(_REMEMBERED)
def _plan(current: DefinitionsSnapshot, features: tuple[Feature, ...], partitions: int) -> ReadPlan:
    catalogue, rings = current.catalogue, current.rings
    needed: dict[_Key, View] = {}
    for feature in features:
        needed.update(_needed(catalogue, feature))
    parts: dict[Ring, dict[_Part, FeatureView]] = defaultdict(dict)
    tiled: dict[_Key, tuple[Aggregation, Sequence[_Part]]] = {}
    on_demand: dict[str, tuple[str, OnDemandView, Sequence[_Input]]] = {}
    for (label, name), view in needed.items():
        if isinstance(view, OnDemandView):
            inputs = [(needed.kind, _key(catalogue, needed)) for needed in catalogue.features(view.inputs)]
            on_demand[label] = (label, view, inputs)
            continue
        aggregation = Feature(view, name, label).aggregation
        of_feature = [(label, part) for part in aggregation.parts]
        tiled[label, name] = aggregation, of_feature
        for part in of_feature:
            parts[rings.ring(*part)][part] = view
    filled = {ring for ring in parts if current.is_complete(ring, partitions)}
    windows = {ring: list(dict.fromkeys(part.window for _, part in parts[ring])) for ring in filled}
    batches = []
    ordered: list[_Part] = []
    for group in RingGroup.all_of(windows):
        read = [(index, part, view) for index, ring in enumerate(group.rings) for part, view in parts[ring].items()]
        ordered += [part for _, part, _ in read]
        batches.append(
            PlannedBatch(
                group,
                [PartRead(index, part, view.is_integer(part), view.max_age_s) for index, (_, part), view in read],
            )
        )
    unfilled = [part for ring, of_ring in parts.items() if ring not in filled for part in of_ring]
    index_of = {part: index for index, part in enumerate([*ordered, *unfilled])}
    return ReadPlan(
        frozenset(ring.join_keys for ring in parts),
        batches,
        len(unfilled),
        {key: (feature, [index_of[part] for part in of_feature]) for key, (feature, of_feature) in tiled.items()},
        list(on_demand.values()),
        [_key(catalogue, feature) for feature in features],
    )


def _needed(catalogue: Catalogue, feature: Feature) -> Iterator[tuple[_Key, View]]:
    """The features that a feature needs, itself last."""
    for needed in catalogue.inputs(feature):
        yield from _needed(catalogue, needed)
    yield _key(catalogue, feature), feature.view


def _key(catalogue: Catalogue, feature: Feature) -> _Key:
    label = feature.label if "@" in feature.label else catalogue.newest(feature.label)
    return label, feature.name


def _nothing(rows: int) -> Column:
    """Null for every row: a ring that is still being filled would answer with a part of its events."""
    return Column([None] * rows, ["NOT_FOUND"] * rows)
