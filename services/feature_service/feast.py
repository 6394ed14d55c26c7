"""Feast's HTTP contract (docs.feast.dev, Python feature server): its questions and pushes read, its answers written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

import numpy as np

from services.feature_service.contracts import OnlineQuestion, Push
from services.feature_service.domain.windows import Column
from services.feature_service.errors import InvalidEvent, UnknownFeature, UnknownSource
from shared.events import EntityEvent, Scalar
from shared.features.catalogue import Catalogue, Feature
from shared.features.errors import UnknownFeatureError
from shared.features.tiles import Floats
from shared.problems import TooLarge, Unprocessable

_LATEST_S = 253_402_300_800.0  # the year 10000, beyond which a time can't be written


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, checked: the features, what they are called, and when each row's windows end, shape (rows,)."""

    features: list[Feature]
    times: Floats
    names: list[str]


def read_question(question: OnlineQuestion, catalogue: Catalogue, now: float, row_limit: int) -> Asked:
    """Check a question against the definitions.

    Raises:
        UnknownFeature: a reference, or the feature service, names nothing.
        TooLarge: more rows than the limit.
        Unprocessable: entity columns are missing or differ in length, or two features would share a name.
    """
    features = _features(question, catalogue)
    lengths = {key: len(values) for key, values in question.entities.items()}
    rows = next(iter(lengths.values()), 0)
    if rows > row_limit:
        raise TooLarge(f"entities holds {rows} rows; one call takes {row_limit}")
    for key, length in lengths.items():
        if length != rows:
            raise Unprocessable.at(f"entities.{key}", f"has {length} rows where others have {rows}")
    for feature in features:
        if feature.view.entity.join_key not in question.entities:
            raise Unprocessable.at(f"entities.{feature.view.entity.join_key}", f"is missing for {feature.reference}")
    given = question.event_timestamps
    if given and len(given) != rows:
        raise Unprocessable.at("event_timestamps", f"has {len(given)} rows where entities have {rows}")
    if not all(isfinite(time) and 0 <= time < _LATEST_S for time in given):
        raise Unprocessable.at("event_timestamps", "holds a value that is no time in seconds since 1970")
    names = [feature.column if question.full_feature_names else feature.aggregation.name for feature in features]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Unprocessable.at("features", f"several are called {', '.join(twice)}; set full_feature_names")
    times = np.asarray(given, dtype=np.float64) if given else np.full(rows, now)
    return Asked(features, times, names)


def answer(question: OnlineQuestion, asked: Asked, columns: Sequence[Column]) -> dict[str, object]:
    """The answer: entity columns first, then the features; event timestamps are when the windows end."""
    ends = [_rfc3339(time) for time in asked.times.tolist()]
    entities = [
        {"values": values, "statuses": ["PRESENT"] * len(values), "event_timestamps": ends}
        for values in question.entities.values()
    ]
    features = [{"values": column.values, "statuses": column.statuses, "event_timestamps": ends} for column in columns]
    return {
        "metadata": {"feature_names": [*question.entities, *asked.names]},
        "results": [*entities, *features],
    }


def read_push(push: Push, catalogue: Catalogue) -> list[EntityEvent]:
    """The rows of a push as events.

    Raises:
        UnknownSource: no source has the name.
        InvalidEvent: columns differ in length, or the timestamps are missing or no times.
        Unprocessable: the push is for an offline store alone.
    """
    source = catalogue.sources.get(push.push_source_name)
    if source is None:
        there = ", ".join(sorted(catalogue.sources))
        raise UnknownSource.at("push_source_name", f"is {push.push_source_name!r}; there are {there}")
    if push.to == "offline":
        raise Unprocessable.at("to", "is offline; there is no offline store: training sets take your own history")
    if source.timestamp not in push.df:
        raise InvalidEvent.at(f"df.{source.timestamp}", "is missing: the time of each event")
    rows = len(push.df[source.timestamp])
    for column, values in push.df.items():
        if len(values) != rows:
            raise InvalidEvent.at(f"df.{column}", f"has {len(values)} rows where {source.timestamp} has {rows}")
    times = [_seconds(value, f"df.{source.timestamp}[{row}]") for row, value in enumerate(push.df[source.timestamp])]
    columns = {name: values for name, values in push.df.items() if name in source.schema}
    return [
        EntityEvent(source.name, time, {name: values[row] for name, values in columns.items()})
        for row, time in enumerate(times)
    ]


def definitions(catalogue: Catalogue) -> dict[str, object]:
    """All definitions as JSON."""
    return {
        "entities": [_described(one, {"join_key": one.join_key}) for one in catalogue.entities.values()],
        "sources": [
            _described(
                one,
                {
                    "schema": {column: kind.__name__ for column, kind in one.schema.items()},
                    "timestamp": one.timestamp,
                },
            )
            for one in catalogue.sources.values()
        ],
        "views": [
            _described(
                one,
                {
                    "entity": one.entity.name,
                    "source": one.source.name,
                    "hop": one.hop,
                    "lateness": one.lateness,
                    "features": [
                        {
                            "reference": f"{one.name}:{feature.name}",
                            "name": feature.name,
                            "kind": feature.kind,
                            "column": feature.column,
                            "window": feature.window,
                            "description": feature.description,
                        }
                        for feature in one.features
                    ],
                },
            )
            for one in catalogue.views.values()
        ],
        "feature_services": [_described(one, {"features": list(one.features)}) for one in catalogue.services.values()],
    }


def _features(question: OnlineQuestion, catalogue: Catalogue) -> list[Feature]:
    if bool(question.features) == bool(question.feature_service):
        raise Unprocessable.at("features", "or feature_service is to be given, and not both")
    if not question.features:
        service = catalogue.services.get(question.feature_service)
        if service is None:
            there = ", ".join(sorted(catalogue.services)) or "none"
            raise UnknownFeature.at("feature_service", f"{question.feature_service!r} is not defined; there is {there}")
        return catalogue.features(service.features)
    found: list[Feature] = []
    for number, reference in enumerate(question.features):
        try:
            found.append(catalogue.feature(reference))
        except UnknownFeatureError as error:
            raise UnknownFeature.at(f"features[{number}]", str(error)) from error
    return found


def _seconds(value: Scalar, field: str) -> float:
    """A time as seconds since 1970, or as ISO 8601 text, which is UTC unless it says otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InvalidEvent.at(field, f"is {value!r}: expected seconds since 1970 or ISO 8601") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _rfc3339(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z")


def _described(one: object, more: dict[str, object]) -> dict[str, object]:
    common = {name: getattr(one, name) for name in ("name", "description", "owner", "tags")}
    return {"name": common.pop("name"), **more, **common}
