"""A day of traffic as people read it."""

from collections.abc import Iterable
from itertools import islice

from contender.contracts.experiments import ColumnTraffic, ModelTraffic, ShadowLatency, TrafficHour
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain import traffic as keys
from services.ab_router.domain.traffic import DayOfTraffic, kept_text

VALUES_SHOWN = 50


def shown(model: str, versions: Iterable[ModelVersion], day: DayOfTraffic) -> ModelTraffic:
    """The counts of a day; `versions` are the model's, which say what values are known."""
    categories: dict[str, set[str]] = {}
    for version in versions:
        for column, known in version.categories.items():
            categories.setdefault(column, set()).update(known, map(kept_text, known))
    rows = max(day.accepted, 1)
    nulls, values = day.by_name(keys.NULL), day.by_pair(keys.VALUE)
    return ModelTraffic(
        model=model,
        since=day.since,
        until=day.until,
        rows=day.rows,
        refused=day.refused,
        hours=[
            TrafficHour(float(hour * keys.HOUR_S), counts.get(keys.ROWS, 0), counts.get(keys.REFUSED, 0))
            for hour, counts in sorted(day.hours.items())
        ],
        columns={
            name: _column((sent - nulls.get(name, 0)) / rows, nulls.get(name, 0) / rows, name, values, categories)
            for name, sent in sorted(day.by_name(keys.SENT).items())
        },
        entities={key: number / rows for key, number in day.by_name(keys.ENTITY).items()},
        refusals=day.by_name(keys.FAULT),
        features=day.by_pair(keys.FEATURE),
        shadows={version: _latency(version, day) for version in day.by_pair(keys.SHADOW)},
    )


def _column(
    sent: float, null: float, name: str, values: dict[str, dict[str, int]], categories: dict[str, set[str]]
) -> ColumnTraffic:
    counted = values.get(name, {})
    most = dict(islice(counted.items(), VALUES_SHOWN))
    if further := sum(counted.values()) - sum(most.values()):
        most[keys.FURTHER] = most.get(keys.FURTHER, 0) + further
    known = categories.get(name, set())
    unseen = ((value, number) for value, number in counted.items() if value not in known)
    return ColumnTraffic(sent, null, most, dict(islice(unseen, VALUES_SHOWN)))


def _latency(version: str, day: DayOfTraffic) -> ShadowLatency:
    p50_s, rows = day.latency_s(version, 0.5)
    return ShadowLatency(rows=rows, p50_s=p50_s, p95_s=day.latency_s(version, 0.95)[0])
