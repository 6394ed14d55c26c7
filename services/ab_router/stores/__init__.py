"""Stores in Redis or Valkey."""

from services.ab_router.stores.traffic import RedisTraffic as RedisTraffic
