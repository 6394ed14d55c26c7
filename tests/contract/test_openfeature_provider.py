"""OpenFeature's own provider of OFREP against the router over a socket."""

import asyncio
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from contender import Client
from embedded.ports import free_ports
from services.ab_router.settings import RouterSettings
from shared.connections import ConnectionLimits, bounded_config
from shared.guard import Admission, Guard
from tests.contract.applications import open_router

START_S = 30
ROW = {"entities": {"origin": "EWR"}, "inputs": {"distance": 700.0}}


async def _serve(folder: Path, port: int, started: threading.Event, servers: list[uvicorn.Server]) -> None:
    settings = RouterSettings(data=folder, ab_router_port=port)
    async with open_router(folder) as app:
        guarded = Guard(app, Admission.of(settings))
        limits = ConnectionLimits.of(settings)
        server = uvicorn.Server(bounded_config(guarded, limits, host="127.0.0.1", port=port))
        servers.append(server)
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started.set()
        await serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router on which experiment `e` runs."""
    (port,), started, servers = free_ports(1), threading.Event(), []
    folder = tmp_path_factory.mktemp("router")
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder, port, started, servers)))
    thread.start()
    assert started.wait(START_S)
    yield f"http://127.0.0.1:{port}"
    servers[0].should_exit = True
    thread.join(START_S)
    assert not thread.is_alive()


@pytest.fixture(params=["openfeature", "contender"])
def flags(url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of OpenFeature with its own provider of the protocol, and with ours."""
    if request.param == "openfeature":
        provider = OFREPProvider(url)
    else:
        provider = import_module("contender.openfeature").ContenderProvider(Client(url))
    api.set_provider(provider)
    yield api.get_client()
    api.clear_providers()
    provider.session.close()


def test_a_flag_has_the_variant_that_a_prediction_of_the_unit_has(flags, url):
    with httpx.Client(base_url=url) as router:
        for unit in map("user-{}".format, range(200)):
            details = flags.get_string_details("e", "code default", EvaluationContext(unit, {"country": "NZ"}))
            prediction = router.post("/v1/models/late/predict", json={"unit": unit, **ROW}).json()
            assert (details.error_code, details.reason) == (None, Reason.SPLIT)
            assert details.value == details.variant == prediction["variant"]
            assert details.flag_metadata["version"] == prediction["version"]
            assert details.flag_metadata["probability"] == 0.5


@pytest.mark.parametrize(
    ("key", "context", "code"),
    [
        ("unknown", EvaluationContext("user-1"), ErrorCode.FLAG_NOT_FOUND),
        ("e", EvaluationContext(), ErrorCode.TARGETING_KEY_MISSING),
        ("e", EvaluationContext("user-1", {"plan": "x" * 51}), ErrorCode.INVALID_CONTEXT),
    ],
)
def test_what_can_not_be_evaluated_has_the_codes_default(flags, key, context, code):
    details = flags.get_string_details(key, "code default", context)
    assert (details.value, details.error_code) == ("code default", code)
    assert details.error_message


def test_a_flag_is_a_text(flags):
    details = flags.get_boolean_details("e", True, EvaluationContext("user-1"))
    assert (details.value, details.error_code) == (True, ErrorCode.TYPE_MISMATCH)


def test_all_flags_are_answered_once_as_long_as_they_are_the_same(url):
    body = {"context": {"targetingKey": "user-1"}}
    with httpx.Client(base_url=f"{url}/ofrep/v1/evaluate/") as router:
        first = router.post("flags", json=body)
        assert [flag["key"] for flag in first.json()["flags"]] == ["e"]
        again = router.post("flags", json=body, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
