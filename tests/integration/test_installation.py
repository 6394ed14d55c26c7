"""`contender export` and `apply` between two installations whose services are as they are."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from onnx import helper
from typer.testing import CliRunner

from contender.cli import app
from tests.integration.servers import Servers, running
from tests.unit.inference_service.graphs import export, small


async def run(monkeypatch: pytest.MonkeyPatch, servers: Servers, *arguments: object) -> str:
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    result = await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


async def assigned(servers: Servers, units: range) -> list[Any]:
    """The variants of units."""
    rows = [{"unit": f"u{number}", "inputs": {"x": 1.5}} for number in units]
    answer = await servers.router.post("/v1/models/m/predict/batch", json={"rows": rows})
    return [prediction["variant"] for prediction in answer.json()["predictions"]]


async def test_another_installation_gets_the_same_versions_experiments_and_units(tmp_path: Path, monkeypatch):
    exports = (small(), export(helper.make_node("Identity", ["x"], ["y"], name="another")))
    new = exports[1].version
    file, models, units = tmp_path / "contender.yaml", tmp_path / "models", range(50)
    async with running(tmp_path / "here", exports=exports) as here, running(tmp_path / "elsewhere") as elsewhere:
        declared = (
            "--model",
            "m",
            "--variant",
            f"champion={new[:8]}:0.5",
            "--variant",
            f"old={small().version[:8]}:0.5",
        )
        for name in ("running", "draft"):
            await run(monkeypatch, here, "experiment", "new", name, *declared)
        await run(monkeypatch, here, "experiment", "start", "running", "--override", "a test")
        await run(monkeypatch, here, "promote", f"m@{new[:8]}")
        await run(monkeypatch, here, "export", file, "--models", models)
        output = await run(monkeypatch, elsewhere, "apply", file, "--models", models, "--override", "a test")
        assert "+ experiment running" in output
        assert await run(monkeypatch, elsewhere, "export") == file.read_text()
        assert "Nothing differs." in await run(monkeypatch, elsewhere, "apply", file)
        variants = await assigned(here, units)
        assert set(variants) == {"champion", "old"}
        assert await assigned(elsewhere, units) == variants
