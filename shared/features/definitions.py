"""What people write to define features: entities, event sources, feature views and feature services."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.features.aggregations import NAME, Aggregation
from shared.features.durations import seconds
from shared.features.errors import DefinitionError

ColumnType = type[str] | type[int] | type[float] | type[bool]
COLUMN_TYPES: tuple[ColumnType, ...] = (str, int, float, bool)
NUMBERS: tuple[ColumnType, ...] = (int, float)
KEYS: tuple[ColumnType, ...] = (str, int)
MOST_TILES = 2048
"""Tiles of one window and its lateness: 64 bytes each, so an entity takes at most 128 kB in one ring."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What features describe, such as an airport. `join_key` is the column that names one."""

    name: str
    join_key: str
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("entity", self.name)
        _check_column(f"entity {self.name!r}", self.join_key)


@dataclass(frozen=True, slots=True)
class EventSource:
    """A kind of event: its columns and their types (str, int, float or bool).

    Args:
        name: what events and pushes call it.
        schema: type by column, entity columns included, the time not.
        timestamp: the column that holds the time in seconds where events come as a table.
        description: what happens when such an event arises.
        owner: who answers for it.
        tags: anything else worth finding it by.
    """

    name: str
    schema: Mapping[str, ColumnType]
    timestamp: str = "event_timestamp"
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("source", self.name)
        for column, kind in self.schema.items():
            _check_column(f"source {self.name!r}", column)
            if kind not in COLUMN_TYPES:
                raise DefinitionError(
                    f"source {self.name!r}: column {column!r} is {kind!r}, not str, int, float or bool"
                )
        if self.timestamp in self.schema:
            raise DefinitionError(
                f"source {self.name!r}: the timestamp {self.timestamp!r} must not be in the schema too"
            )


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Features of one entity from one source.

    Args:
        name: first part of a feature's reference `view:feature`.
        entity: what the features describe; its join key is a column of the source.
        source: the events.
        features: aggregations of the source's columns over windows.
        hop: width of a tile: how finely a window moves. Every window is a whole number of hops.
        lateness: how much later than the newest event of its entity an event may come and still count.
        description: what the features mean.
        owner: who answers for them.
        tags: anything else worth finding them by.
    """

    name: str
    entity: Entity
    source: EventSource
    features: Sequence[Aggregation]
    hop: str
    lateness: str = "1h"
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("view", self.name)
        key = self.entity.join_key
        if self.source.schema.get(key) not in KEYS:
            raise DefinitionError(
                f"view {self.name!r}: source {self.source.name!r} has no str or int column {key!r}, "
                f"the join key of entity {self.entity.name!r}"
            )
        if not self.features:
            raise DefinitionError(f"view {self.name!r} has no features")
        names = [feature.name for feature in self.features]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DefinitionError(f"view {self.name!r} has several features called {', '.join(twice)}")
        for feature in self.features:
            self._check_feature(feature)

    def _check_feature(self, feature: Aggregation) -> None:
        where = f"view {self.name!r}, feature {feature.name!r}"
        if feature.column is not None and self.source.schema.get(feature.column) not in NUMBERS:
            raise DefinitionError(f"{where}: source {self.source.name!r} has no int or float column {feature.column!r}")
        if feature.window_s % self.hop_s:
            raise DefinitionError(f"{where}: the window {feature.window} is not a whole number of hops of {self.hop}")
        if (tiles := feature.window_s // self.hop_s + self.lateness_tiles + 1) > MOST_TILES:
            raise DefinitionError(
                f"{where}: {tiles} tiles of {self.hop} for window and lateness; at most {MOST_TILES}: take a longer hop"
            )

    @property
    def hop_s(self) -> int:
        """Width of a tile in seconds."""
        return seconds(self.hop)

    @property
    def lateness_tiles(self) -> int:
        """The allowed lateness in tiles, rounded up."""
        return -(-seconds(self.lateness) // self.hop_s)

    def feature(self, name: str) -> Aggregation | None:
        """The feature of that name."""
        return next((feature for feature in self.features if feature.name == name), None)


@dataclass(frozen=True, slots=True)
class FeatureService:
    """A named list of feature references `view:feature` that are asked for together."""

    name: str
    features: Sequence[str]
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("feature service", self.name)
        if not self.features:
            raise DefinitionError(f"feature service {self.name!r} has no features")


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise DefinitionError(
            f"{what} {name!r}: a name takes lower-case letters, digits and single underscores, a letter first"
        )


def _check_column(where: str, column: str) -> None:
    if not column:
        raise DefinitionError(f"{where}: a column has no name")
