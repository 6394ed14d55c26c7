"""Where tiles and versions live: Protocols, with Redis and SQL behind them, and memory for tests."""

from services.feature_service.store.protocol import (
    HEALTH_TTL_S,
    FeatureStore,
    RingQuery,
    RingReader,
    RingsRead,
    StoreUnavailableError,
)
from services.feature_service.store.registry import Registry, RegistryState

__all__ = [
    "HEALTH_TTL_S",
    "FeatureStore",
    "Registry",
    "RegistryState",
    "RingQuery",
    "RingReader",
    "RingsRead",
    "StoreUnavailableError",
]
