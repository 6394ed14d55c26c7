"""What people write to define features: entities, event sources, feature views and feature services."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from contender.contracts.topics import ENTITY_EVENTS
from contender.contracts.values import Scalar
from contender.features.conditions import Condition, Value, check_filter
from contender.features.durations import seconds
from contender.features.errors import DefinitionError, caller
from contender.features.kinds.kind import ALL_TIME, Aggregation, Features
from contender.features.layouts import MOST_RING_BYTES
from contender.features.limits import MOST_EXACT, NAME
from contender.features.on_demand import REQUEST, OnDemandView, check_references

ColumnType = type[str] | type[int] | type[float] | type[bool]
COLUMN_TYPES: tuple[ColumnType, ...] = (str, int, float, bool)
NUMBERS: tuple[ColumnType, ...] = (int, float)
KEYS: tuple[ColumnType, ...] = (str, int)
MOST_TILES = 2048
"""Tiles of one window and its lateness: 72 bytes each for sums, so an entity takes at most 147 kB in such a ring."""

MOST_KEYS = 8


@dataclass(frozen=True, slots=True)
class Entity:
    """What features describe, such as an airport. `join_key` is the column that names one."""

    name: str
    join_key: str
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    location: str = field(default_factory=caller, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_name("entity", self.name, self.location)
        check_texts(f"entity {self.name!r}", self)
        _check_column(f"entity {self.name!r}", self.join_key, self.location)


@dataclass(frozen=True, slots=True)
class EventSource:
    """A kind of event: its columns and their types (str, int, float or bool), its history and its live topic.

    Args:
        name: what events and pushes call it.
        schema: type by column; it includes the entity columns, but not the time.
        timestamp: the column that holds the time in seconds where events come as a table.
        history: a Parquet or CSV file, or a pattern of several, with what happened before.
        ingested_at: the column of the history that says when an event became known, in seconds.
        topic: where live events come from; `entity-events` is the one that workers read.
        description: what happens when such an event arises.
        owner: who answers for it.
        tags: anything else worth finding it by.
    """

    name: str
    schema: Mapping[str, ColumnType]
    timestamp: str = "event_timestamp"
    history: str = ""
    ingested_at: str = ""
    topic: str = ENTITY_EVENTS
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    location: str = field(default_factory=caller, compare=False, repr=False)

    def __post_init__(self) -> None:
        subject = f"source {self.name!r}"
        _check_name("source", self.name, self.location)
        check_texts(subject, self)
        for what in ("timestamp", "history", "ingested_at"):
            if not isinstance(getattr(self, what), str):
                raise DefinitionError(
                    f"{subject}: {what}={getattr(self, what)!r} must be text: one name or path", self.location
                )
        if not isinstance(self.schema, Mapping):
            raise DefinitionError(
                f"{subject}: schema must map column to type, such as {{'delay': float}}", self.location
            )
        for column, kind in self.schema.items():
            _check_column(subject, column, self.location)
            if kind not in COLUMN_TYPES:
                raise DefinitionError(
                    f"{subject}: column {column!r} is {kind!r}, not str, int, float or bool", self.location
                )
        for column in (self.timestamp, self.ingested_at):
            if column in self.schema:
                raise DefinitionError(
                    f"{subject}: the timestamp {column!r} must not be in the schema too", self.location
                )
        if self.topic != ENTITY_EVENTS:
            raise DefinitionError(
                f"{subject}: topic {self.topic!r} is not read; live events come from {ENTITY_EVENTS!r}", self.location
            )


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Features of one entity, or of a combination of several, from one source.

    Args:
        name: first part of a feature's reference `view:feature`.
        entity: what the features describe: one entity, several, or None for features of the whole; the join keys are
            columns of the source.
        source: the events.
        features: aggregations of the source's columns over windows.
        hop: width of a tile: how finely a window moves. Every window is a whole number of hops.
        lateness: how much later than the newest event of its entity an event may come and still count.
        where: which events count for all features of the view.
        max_age: how old the newest event of a window may be; a feature of an older one is null.
        fresh_within: how soon after it was sent an event shall be in the features: the view's objective.
        description: what the features mean.
        owner: who answers for them.
        tags: anything else worth finding them by.
    """

    name: str
    entity: Entity | Sequence[Entity] | None
    source: EventSource
    features: Sequence[Aggregation | Features]
    hop: str
    lateness: str = "1h"
    where: Condition | None = None
    max_age: str = ""
    fresh_within: str = "1s"
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    location: str = field(default_factory=caller, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_name("view", self.name, self.location)
        check_texts(f"view {self.name!r}", self)
        try:
            self._check_kinds()
            if self.where is not None:
                object.__setattr__(self, "where", self._fitted(f"view {self.name!r}", self.where, self.location))
            features = (self._with_fitted_filters(feature) for feature in _flat(self.features))
            object.__setattr__(self, "features", tuple(_with(feature, self.where) for feature in features))
            self._check()
        except DefinitionError as error:
            raise error if error.location else DefinitionError(str(error), self.location) from error

    def _check_kinds(self) -> None:
        """Refuse names in place of entities or the source, the likeliest slip."""
        for entity in self.entities:
            if not isinstance(entity, Entity):
                raise DefinitionError(
                    f"view {self.name!r}: {entity!r} is not an Entity; give the variable, not its name"
                )
        if not isinstance(self.source, EventSource):
            raise DefinitionError(f"view {self.name!r}: {self.source!r} is not an EventSource; give the variable")
        check_filter(self.where, self.location)

    def _check(self) -> None:
        for entity in self.entities:
            if self.source.schema.get(entity.join_key) not in KEYS:
                raise DefinitionError(
                    f"view {self.name!r}: source {self.source.name!r} has no str or int column {entity.join_key!r}, "
                    f"the join key of entity {entity.name!r}; it has {self._columns}"
                )
        if len(set(self.join_keys)) < len(self.join_keys) or len(self.join_keys) > MOST_KEYS:
            raise DefinitionError(f"view {self.name!r} names a join key twice, or more than {MOST_KEYS} of them")
        if not self.features:
            raise DefinitionError(f"view {self.name!r} has no features; list some, such as mean('delay', '1h')")
        for what in ("hop", "lateness", "fresh_within", *(["max_age"] if self.max_age else [])):
            try:
                seconds(getattr(self, what))
            except DefinitionError as error:
                raise DefinitionError(f"view {self.name!r}, {what}: {error}") from error
        self._check_features()

    def _check_features(self) -> None:
        names = [feature.name for feature in self.aggregations]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DefinitionError(
                f"view {self.name!r} has several features called {', '.join(twice)}; tell them apart with name="
            )
        for feature in self.aggregations:
            if isinstance(feature.default, str | bool):
                raise DefinitionError(
                    f"view {self.name!r}, feature {feature.name!r}: the default {feature.default!r} must be a number",
                    feature.location,
                )
            for part in feature.parts:
                self._check_feature(feature, part)

    def _check_feature(self, feature: Aggregation, part: Aggregation) -> None:
        subject = f"view {self.name!r}, feature {feature.name!r}"
        column_type = self._column_type(part)
        if part.column is not None and (column_type is None or (part.needs_numbers and column_type not in NUMBERS)):
            kinds = "int or float " if part.needs_numbers else ""
            raise DefinitionError(
                f"{subject}: source {self.source.name!r} has no {kinds}column {part.column!r}; it has {self._columns}",
                part.location,
            )
        self._check_size(subject, part)

    def _check_size(self, subject: str, part: Aggregation) -> None:
        window_s = 0 if part.window == ALL_TIME else seconds(part.window)
        if window_s % self.hop_s:
            raise DefinitionError(
                f"{subject}: the window {part.window} is not a whole number of hops of {self.hop}; change one of them",
                part.location,
            )
        if (tiles := self.slots([part])) > MOST_TILES:
            raise DefinitionError(
                f"{subject}: {tiles} tiles of {self.hop} for window and lateness; at most {MOST_TILES}: take a longer "
                "hop, less lateness, a shorter window, or 'all' for all time",
                part.location,
            )
        if (size := tiles * part.layout.cell_bytes) > MOST_RING_BYTES:
            raise DefinitionError(
                f"{subject}: an entity would take {size:,} bytes; at most {MOST_RING_BYTES:,}: take a longer hop or "
                "less lateness",
                part.location,
            )

    def _with_fitted_filters(self, feature: Aggregation) -> Aggregation:
        where, parts = feature.where, tuple(self._with_fitted_filters(part) for part in feature.of)
        if where is not None:
            where = self._fitted(f"view {self.name!r}, feature {feature.name!r}", where, feature.location)
        return replace(feature, where=where, of=parts)

    def _fitted(self, subject: str, condition: Condition, location: str) -> Condition:
        """The condition with listed values in the columns' types: polars compares no others."""

        def fit(column: str, value: Value) -> Value:
            kind = self._compared_type(subject, column, value, location)
            if not isinstance(value, tuple):
                return value
            return tuple(_listed(subject, column, kind, entry, location) for entry in value)

        return condition.fitted(fit)

    def _compared_type(self, subject: str, column: str, value: Value, location: str) -> ColumnType:
        kind = self.source.schema.get(column)
        if kind is None:
            raise DefinitionError(
                f"{subject}: the filter looks at {column!r}; source {self.source.name!r} has {self._columns}", location
            )
        for operand in value if isinstance(value, tuple) else (value,):
            if isinstance(operand, bool) != (kind is bool) or isinstance(operand, str) != (kind is str):
                raise DefinitionError(
                    f"{subject}: the filter compares column {column!r}, which is {kind.__name__}, with {operand!r}",
                    location,
                )
        return kind

    @property
    def _columns(self) -> str:
        return ", ".join(f"{column} ({kind.__name__})" for column, kind in self.source.schema.items())

    @property
    def aggregations(self) -> tuple[Aggregation, ...]:
        """The features, one by one."""
        return tuple(_flat(self.features))

    @property
    def entities(self) -> tuple[Entity, ...]:
        """What the features describe: none, one or several."""
        if self.entity is None:
            return ()
        return (self.entity,) if isinstance(self.entity, Entity) else tuple(self.entity)

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The columns that name what is described."""
        return tuple(entity.join_key for entity in self.entities)

    @property
    def hop_s(self) -> int:
        """Width of a tile in seconds."""
        return seconds(self.hop)

    @property
    def lateness_tiles(self) -> int:
        """The allowed lateness in tiles, rounded up."""
        return -(-seconds(self.lateness) // self.hop_s)

    @property
    def max_age_s(self) -> float:
        """The maximum age in seconds; infinite where there is none."""
        return seconds(self.max_age) if self.max_age else float("inf")

    def feature(self, name: str) -> Aggregation | None:
        """The feature of that name."""
        return next((feature for feature in self.aggregations if feature.name == name), None)

    def is_integer(self, feature: Aggregation) -> bool:
        """Whether a feature's values are whole numbers."""
        return feature.is_integer(self._column_type(feature))

    def value_type(self, feature: Aggregation) -> type:
        """The type of a feature's values: int, float or list."""
        return feature.value_type(self._column_type(feature))

    def slots(self, parts: Iterable[Aggregation]) -> int:
        """How many tiles the longest window of some features and the allowed lateness take."""
        windows = (seconds(part.window) for part in parts if part.window != ALL_TIME)
        return max(windows, default=0) // self.hop_s + self.lateness_tiles + 1

    def _column_type(self, feature: Aggregation) -> ColumnType | None:
        return self.source.schema.get(feature.column or "")


@dataclass(frozen=True, slots=True)
class FeatureService:
    """A named list of feature references `view:feature` that are asked for together."""

    name: str
    features: Sequence[str]
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    location: str = field(default_factory=caller, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_name("feature service", self.name, self.location)
        check_texts(f"feature service {self.name!r}", self)
        if not self.features:
            raise DefinitionError(
                f"feature service {self.name!r} has no features; list references 'view:feature'", self.location
            )
        check_references(f"feature service {self.name!r}", self.features, self.location)


Definition = Entity | EventSource | FeatureView | FeatureService | OnDemandView


def check_texts(subject: str, definition: "Definition") -> None:
    """Refuse a description, an owner or tags that can't be shown.

    Raises:
        DefinitionError: description or owner is not text, or the tags do not map str to str.
    """
    for what in ("description", "owner"):
        if not isinstance(getattr(definition, what), str):
            raise DefinitionError(f"{subject}: {what}={getattr(definition, what)!r} must be text", definition.location)
    tags: Any = definition.tags
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for tag in tags.items() for text in tag):
        raise DefinitionError(
            f"{subject}: tags={tags!r}; tags must map str to str, such as {{'team': 'ops'}}", definition.location
        )


def _flat(features: Sequence[Aggregation | Features]) -> Iterator[Aggregation]:
    for feature in features:
        if isinstance(feature, Aggregation):
            yield feature
        elif isinstance(feature, list | tuple):
            yield from _flat(feature)
        else:
            raise DefinitionError(
                f"the feature {feature!r} is not an aggregation; write one such as mean('delay', '1h')"
            )


def _with(feature: Aggregation, where: Condition | None) -> Aggregation:
    """The feature with the view's filter as well."""
    if where is None:
        return feature
    both = where if feature.where is None else where & feature.where
    return replace(feature, where=both, of=tuple(_with(part, where) for part in feature.of))


def _listed(subject: str, column: str, kind: ColumnType, value: Scalar, location: str) -> Scalar:
    """A value of among() in the type of its column."""
    if kind not in NUMBERS or not isinstance(value, int | float):
        return value
    whole = kind is int or isinstance(value, int)
    if (whole and abs(value) > MOST_EXACT) or kind(value) != value:
        raise DefinitionError(
            f"{subject}: the filter lists {value!r} for column {column!r}, which is {kind.__name__}; list such values, "
            "and whole numbers up to 2**53",
            location,
        )
    return kind(value)


def _check_name(what: str, name: str, location: str) -> None:
    if not NAME.fullmatch(str(name)):
        raise DefinitionError(
            f"{what} {name!r}: a name takes lower-case letters, digits and single underscores, at most 63, a letter "
            "first",
            location,
        )
    if name == REQUEST:
        raise DefinitionError(
            f"{what} {name!r}: this name is reserved for columns of a request; choose another", location
        )


def _check_column(subject: str, column: str, location: str) -> None:
    if not column:
        raise DefinitionError(f"{subject}: a column has no name", location)
    if not isinstance(column, str):
        raise DefinitionError(
            f"{subject}: {column!r} is not a column's name; an entity has one, and a view may have several entities",
            location,
        )
