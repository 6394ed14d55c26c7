"""A promotion under load: the router and the inference service as they are."""

import asyncio
from collections import Counter
from pathlib import Path

from onnx import helper

from tests.integration.servers import running
from tests.unit.inference_service.graphs import export, small

CALLERS = 8


async def test_no_request_is_dropped_by_a_promotion_and_a_rollback(tmp_path: Path):
    exports = (small(), export(helper.make_node("Neg", ["x"], ["y"])))
    old, new = (uploaded.version for uploaded in exports)
    async with running(tmp_path, exports=exports) as servers:
        answered: Counter[str] = Counter()
        ended = asyncio.Event()

        async def ask() -> None:
            while not ended.is_set():
                answer = await servers.router.post("/v1/models/m/predict", json={"unit": "u", "inputs": {"x": 1.5}})
                answered[answer.json()["version"] if answer.status_code == 200 else answer.text] += 1

        async def answered_by(version: str) -> None:
            before = answered[version]
            while answered[version] < before + 50:
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            for _ in range(CALLERS):
                group.create_task(ask())
            await answered_by(old)
            promoted = await servers.inference.put("/v1/models/m/aliases/champion", json={"version": new})
            await answered_by(new)
            back = await servers.inference.post("/v1/models/m/aliases/champion/rollback")
            await answered_by(old)
            ended.set()
        assert (promoted.json()["version"], back.json()["version"]) == (new, old)
        assert answered.keys() == {old, new}
