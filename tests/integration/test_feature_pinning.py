"""Two versions of a model in one experiment are served two versions of one feature, and what is computed on demand."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from contender import Client, ContenderError
from contender.errors import RegistrationWarning
from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from embedded.valkey import Valkey
from shared.settings import SERVICE_NAMES

DEADLINE_S = 60
FIRST = """
from contender.features import Entity, EventSource, FeatureView, on_demand, sum

shop = Entity("pinned_shop", "pinned_shop")
sales = EventSource("pinned_sales", {"pinned_shop": str, "items": int})
trade = FeatureView("trade", shop, sales, [sum("items", "2h", name="items", default=0)], hop="1h")


@on_demand(request={"staff": float}, inputs=["trade:items"], features={"load": float})
def work(staff, items):
    return items / staff
"""
SECOND = FIRST.replace('sum("items", "2h",', 'sum("items", "24h",')


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.1)


@pytest.fixture
def stack(kafka_broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Path]]:
    module = tmp_path / "pinned_definitions.py"
    module.write_text(FIRST)
    router_port, inference_port, feature_port, valkey_port = free_ports(4)
    monkeypatch.setenv("CONTENDER_FEATURES", "pinned_definitions")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    settings = StackSettings(
        home=tmp_path,
        kafka_port=kafka_broker.port,
        valkey_port=valkey_port,
        ab_router_port=router_port,
        inference_service_port=inference_port,
        feature_service_port=feature_port,
    )
    services = [("feature_service", "web"), ("feature_service", "worker"), ("inference_service", "web")]
    services.append(("ab_router", "web"))
    processes = [
        Valkey(tmp_path / "valkey", valkey_port),
        *(Service(ServiceProcess(name, role), settings) for name, role in services),
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_ready(DEADLINE_S)
        with Client(urls={service: settings.url(service) for service in SERVICE_NAMES}) as client:
            yield client, module
    finally:
        for process in processes:
            process.kill()


def register(client: Client, strength: float) -> Any:
    rows = pd.DataFrame({"items": np.arange(100.0), "load": np.arange(100.0) / 4})
    fitted = LogisticRegression(C=strength).fit(rows, rows["items"] > 50)
    with pytest.warns(RegistrationWarning, match="load .* is null there"):
        return client.register("sell_out", fitted, rows, sources={"items": "trade:items", "load": "work:load"})


@pytest.mark.timeout(180)
def test_each_version_is_served_the_features_that_it_was_registered_with(stack: tuple[Client, Path]):
    client, module = stack
    url = client.feature_url
    wait_for(lambda: all(view["complete"] for view in httpx.get(f"{url}/v1/definitions").json()["views"]))
    now = time.time()
    events = [
        {"source": "pinned_sales", "time": now - age, "values": {"pinned_shop": "s1", "items": items}}
        for age, items in ((1, 8), (5 * 3600, 40))
    ]
    (frame,) = httpx.post(f"{url}/v1/events", json={"events": events}).json()["frame_ids"]
    assert httpx.get(f"{url}/v1/frames/{frame}?wait_s=30", timeout=40).json()["applied"]
    old = register(client, 1.0)
    assert {column.name: column.source for column in old.inputs} == {"items": "trade@1:items", "load": "work@1:load"}
    assert old.inputs[0].default == 0
    with pytest.raises(ContenderError, match="there is no feature trade:none"):
        client.register("sell_out", None, None, sources={"items": "trade:none"})
    module.write_text(SECOND)
    added = httpx.post(f"{url}/v1/definitions/apply", json={}, timeout=30).json()
    assert added == {"added": ["trade@2", "work@2"]}  # what is computed from it means something else too
    wait_for(lambda: all(view["complete"] for view in httpx.get(f"{url}/v1/definitions").json()["views"]))
    new = register(client, 0.01)
    assert {column.source for column in new.inputs} == {"trade@2:items", "work@2:load"}
    client.experiment("sell_out", challenger=new, champion=old).start()
    # The champion answers for the challenger until the router knows the views of both.
    wanted = {"champion": {"items": 8, "load": 2.0}, "challenger": {"items": 48, "load": 12.0}}
    wait_for(lambda: served(client) == wanted)
    with pytest.raises(ContenderError, match="staff"):
        client.predict("sell_out", unit="u", entities={"pinned_shop": "s1"})


def served(client: Client) -> dict[str, Any]:
    """What was asked for each variant; `degraded` where features could not be had."""
    rows = [
        {"unit": f"u-{n}", "entities": {"pinned_shop": "s1"}, "inputs": {"staff": 4.0}, "return_inputs": True}
        for n in range(20)
    ]
    answers = client.predict_batch("sell_out", rows)
    return {answer.variant or "": "degraded" if answer.degraded else dict(answer.inputs) for answer in answers}
