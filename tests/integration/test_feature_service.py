"""The feature service as it is run: a web process and a worker, from an event to its features."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded.ports import free_ports

DEADLINE_S = 40


@pytest.fixture
def url(kafka: str, valkey: str, tmp_path: Path) -> Iterator[str]:
    port = free_ports(1)[0]
    environment = {
        **os.environ,
        "CONTENDER_KAFKA": kafka,
        "CONTENDER_REDIS": valkey.rsplit("/", 1)[0] + "/6",
        "CONTENDER_DATA": str(tmp_path),
        "CONTENDER_FEATURE_SERVICE_PORT": str(port),
    }
    with (tmp_path / "log").open("ab") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "services.feature_service", role],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
            for role in ("web", "worker")
        ]
    try:
        yield f"http://127.0.0.1:{port}"
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait(60)


async def ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_an_event_is_in_the_features_when_its_frame_is_applied(url: str):
    values = {"carrier": "UA", "origin": "EWR", "tail_number": "N1", "dep_delay": 30.0}
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
        async with asyncio.timeout(DEADLINE_S):
            while not await ready(client):
                await asyncio.sleep(0.1)
        body = {"events": [{"source": "departures", "time": time.time() - 1, "values": values}]}
        (frame_id,) = (await client.post("/v1/events", json=body)).json()["frame_ids"]
        assert (await client.get(f"/v1/frames/{frame_id}?wait_s=30")).json()["applied"] is True
        question = {"features": ["origin_delays:mean_dep_delay_1h"], "entities": {"origin": ["EWR"]}}
        response = (await client.post("/get-online-features", json=question)).json()
        assert response["results"][1]["values"] == [30.0]
        assert "contender_http_request_seconds" in (await client.get("/metrics")).text
