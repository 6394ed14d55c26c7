"""Runs in the Feast SDK's own environment: a call of it per line of standard input, its outcome per line of output.

Started as `feast_sdk.py URL FOLDER`; the registry lies in the folder, the remote online store is at the URL.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    ValueType,
)
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String

JOIN_KEYS = {"origin": "origin", "carrier": "carrier", "aircraft": "tail_number"}
VIEWS = {
    "origin_delays": (
        "origin",
        {"mean_dep_delay_1h": Float64, "count_1h": Int64, "mean_dep_delay_3h": Float64, "count_3h": Int64},
    ),
    "carrier_delays": (
        "carrier",
        {"mean_dep_delay_3h": Float64, "count_3h": Int64, "mean_dep_delay_24h": Float64, "count_24h": Int64},
    ),
    "tail_delays": ("aircraft", {"last_arr_delay_24h": Float64}),
}


class Sdk:
    """What the tests do with the SDK."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def read(self, features: list[str] | str, entity_rows: list[dict[str, Any]], **options: bool) -> dict[str, Any]:
        """Ask `get_online_features`; one name stands for the registered feature service."""
        asked = self.store.get_feature_service(features) if isinstance(features, str) else features
        response = self.store.get_online_features(features=asked, entity_rows=entity_rows, **options)
        results = response.proto.results
        return {
            "names": list(response.proto.metadata.feature_names.val),
            "views": [view.name for view in response.proto.metadata.feature_view_metadata],
            "values": list(response.to_dict().values()),
            "types": [[value.WhichOneof("val") for value in result.values] for result in results],  # noqa: PD011 - no table
            "statuses": [[FieldStatus.Name(status) for status in result.statuses] for result in results],
        }

    def read_view(self, view: str, join_key: str, entities: list[str], features: list[str]) -> list[Any]:
        """Ask the online store for one view, as older versions of the SDK do for every question."""
        keys = [EntityKey(join_keys=[join_key], entity_values=[Value(string_val=entity)]) for entity in entities]
        provider = self.store._get_provider()
        rows = provider.online_read(self.store.config, self.store.get_feature_view(view), keys, features)
        return [[time.timestamp(), {name: _plain(value) for name, value in row.items()}] for time, row in rows]

    def push(self, source: str, df: dict[str, list[Any]]) -> None:
        """Push the rows of a table."""
        self.store.push(source, _table(df))

    def write(self, view: str, df: dict[str, list[Any]]) -> None:
        """Write the rows of a table as a view's features."""
        self.store.write_to_online_store(view, _table(df))


def open_store(url: str, folder: Path) -> FeatureStore:
    """A feature store whose definitions are named as the service's own."""
    config = RepoConfig(
        project="flights",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "remote", "path": url},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply(list(definitions(folder)))
    return store


def definitions(folder: Path) -> Iterator[Any]:
    """Entities, views, a feature service; and a view of the raw events, through which a push reaches their source."""
    history = folder / "history.parquet"
    pd.DataFrame({"event_timestamp": pd.to_datetime(["2013-01-01"], utc=True)}).to_parquet(history)
    batch = FileSource(name="history", path=str(history), timestamp_field="event_timestamp")
    entities = {
        name: Entity(name=name, join_keys=[join_key], value_type=ValueType.STRING)
        for name, join_key in JOIN_KEYS.items()
    }
    views = [
        FeatureView(name=name, entities=[entities[entity]], schema=_fields(JOIN_KEYS[entity], features), source=batch)
        for name, (entity, features) in VIEWS.items()
    ]
    yield from [*entities.values(), *views, FeatureService(name="streaming", features=views)]
    yield FeatureView(
        name="departures",
        entities=list(entities.values()),
        schema=[Field(name=name, dtype=String) for name in JOIN_KEYS.values()]
        + [Field(name="dep_delay", dtype=Float64)],
        source=PushSource(name="departures", batch_source=batch),
    )


def _fields(join_key: str, features: dict[str, Any]) -> list[Field]:
    return [Field(name=join_key, dtype=String), *(Field(name=name, dtype=kind) for name, kind in features.items())]


def _table(df: dict[str, list[Any]]) -> pd.DataFrame:
    times = pd.to_datetime(df["event_timestamp"], unit="s", utc=True)
    return pd.DataFrame({**df, "event_timestamp": times})


def _plain(value: Value) -> Any:
    held = value.WhichOneof("val")
    return None if held is None else getattr(value, held)


def main(url: str, folder: Path) -> None:
    """Answer calls until there are no more; what the SDK itself prints goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    sdk = Sdk(open_store(url, folder))
    for line in sys.stdin:
        call, arguments = json.loads(line)
        try:
            outcome = {"returned": getattr(sdk, call)(**arguments)}
        except RuntimeError as error:
            outcome = {"raised": str(error)}
        print(json.dumps(outcome), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
