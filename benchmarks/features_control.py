"""The control that a row's latency is compared with: `python -m benchmarks.features_control PORT REDIS_URL`.

A bare FastAPI endpoint, served as our services are, that reads the fields of one hash and answers them as JSON.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from redis.asyncio import Redis

from shared.processes import run_web
from shared.settings import Settings

KEY = "control"
FIELDS = [f"feature_{number}" for number in range(15)]


def create_app(url: str) -> FastAPI:
    """The control's application."""
    redis = Redis.from_url(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with redis:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/row/{key}")
    async def row(key: str) -> dict[str, float]:
        values = await redis.hmget(key, FIELDS)
        return {name: float(value or 0) for name, value in zip(FIELDS, values, strict=True)}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    run_web(create_app(sys.argv[2]), Settings(ab_router_port=int(sys.argv[1])), "ab_router")
