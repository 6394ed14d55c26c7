"""Feast's side of the comparison: makes a repository and fills its online store. Runs in Feast's own environment.

Called as `features_feast.py FOLDER REDIS_ADDRESS`; FOLDER/rows.json holds per view its join key and, by feature, the
values of each entity. Afterwards `feast serve` answers from the folder.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from feast import (  # type: ignore[import-not-found]  # in its own environment
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    ValueType,
)
from feast.types import Float64, String  # type: ignore[import-not-found]

CONFIGURATION = """
project: benchmark
provider: local
registry: registry.db
online_store:
  type: redis
  connection_string: "{address}"
offline_store:
  type: file
entity_key_serialization_version: 3
"""


def main(folder: Path, address: str) -> None:
    """Apply the views and write their values."""
    (folder / "feature_store.yaml").write_text(CONFIGURATION.format(address=address))
    tables: dict[str, dict[str, Any]] = json.loads((folder / "rows.json").read_text())
    store = FeatureStore(repo_path=str(folder))
    now = pd.Timestamp.now(tz="UTC")
    history = folder / "history.parquet"
    pd.DataFrame({"event_timestamp": [now]}).to_parquet(history)
    source = FileSource(name="history", path=str(history), timestamp_field="event_timestamp")
    for view, table in tables.items():
        key = table["join_key"]
        entity = Entity(name=f"{view}_{key}", join_keys=[key], value_type=ValueType.STRING)
        fields = [Field(name=key, dtype=String), *(Field(name=name, dtype=Float64) for name in table["features"])]
        store.apply([entity, FeatureView(name=view, entities=[entity], schema=fields, source=source)])
    for view, table in tables.items():
        rows = pd.DataFrame({table["join_key"]: table["entities"], **table["features"]})
        store.write_to_online_store(view, rows.assign(event_timestamp=now, created=now))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
