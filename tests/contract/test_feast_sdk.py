"""The Feast SDK with its remote online store against the feature service as it is run."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from tests.contract.feast_environment import NotInstallableError, default_cache, ensure_environment

pytestmark = pytest.mark.timeout(900)  # the first run installs the SDK
START_S = 60
DEADLINE_S = 40
HOUR_S = 3600
ORIGIN = ["origin_delays:mean_dep_delay_1h", "origin_delays:count_1h", "origin_delays:mean_dep_delay_3h"]


@pytest.fixture(scope="session")
def feast_python() -> Path:
    try:
        return ensure_environment(default_cache())
    except NotInstallableError as error:
        pytest.skip(f"the Feast SDK is not installed in {default_cache()} and can't be now: {error}")


@pytest.fixture(scope="module")
def url(kafka: str, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Redis.from_url(valkey) as redis:
        redis.flushdb()
    settings = StackSettings(
        home=tmp_path_factory.mktemp("stack"),
        feature_service_port=free_ports(1)[0],
        kafka_port=int(kafka.rpartition(":")[2]),
        valkey_port=int(valkey.rpartition(":")[2].partition("/")[0]),
    )
    services = [Service(ServiceProcess("feature_service", role), settings) for role in ("web", "worker")]
    try:
        for service in services:
            service.start()
        for service in services:
            service.wait_ready(START_S)
        yield settings.url("feature_service")
    finally:
        for service in services:
            service.stop()


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Sdk:
    """The SDK in a process of its own."""

    process: subprocess.Popen[str]
    log: Path

    def outcome(self, call: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([call, arguments]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        return json.loads(answer)

    def __call__(self, call: str, **arguments: Any) -> Any:
        outcome = self.outcome(call, **arguments)
        assert "returned" in outcome, outcome
        return outcome["returned"]


@pytest.fixture(scope="module")
def sdk(url: str, feast_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    folder = tmp_path_factory.mktemp("feast")
    script = Path(__file__).with_name("feast_sdk.py")
    path = folder / "log"
    with (
        path.open("w") as log,
        subprocess.Popen(
            [feast_python, script, url, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            # Far from UTC, which times without a zone are in.
            env={**os.environ, "NO_PROXY": "127.0.0.1", "TZ": "America/New_York"},
        ) as process,
    ):
        try:
            yield Sdk(process, path)
        finally:
            process.kill()


@pytest.fixture(scope="module", autouse=True)
def departures(feast_python: Path, api: httpx.Client) -> None:
    """DTW has departures within the hour, MSP only before it; LAX has none."""
    now = time.time()
    late = {"carrier": "DL", "origin": "DTW", "tail_number": "N17", "dep_delay": 12.0}
    events = [{"source": "departures", "time": now - 60, "values": late}]
    earlier = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 2 * HOUR_S))
    table = {
        "carrier": ["DL", "WN"],
        "origin": ["DTW", "MSP"],
        "tail_number": ["N17", "N18"],
        "dep_delay": [18.0, -4.0],
        "event_timestamp": [now - 30, earlier],
    }
    answers = [
        api.post("/v1/events", json={"events": events}),
        api.post("/push", json={"push_source_name": "departures", "df": table, "to": "online"}),
    ]
    for frame_id in [frame_id for answer in answers for frame_id in answer.json()["frame_ids"]]:
        assert api.get(f"/v1/frames/{frame_id}?wait_s={DEADLINE_S}").json()["applied"] is True


def same_over_http(api: httpx.Client, response: dict[str, Any], question: dict[str, Any]) -> bool:
    answer = api.post("/get-online-features", json=question).json()
    results = answer["results"]
    return (response["names"], response["values"], response["statuses"]) == (
        answer["metadata"]["feature_names"],
        [column["values"] for column in results],
        [column["statuses"] for column in results],
    )


def test_the_sdk_reads_the_values_and_statuses_of_known_idle_and_unknown_entities(sdk, api):
    origins = ["DTW", "MSP", "LAX"]
    response = sdk("read", features=ORIGIN, entity_rows=[{"origin": origin} for origin in origins])
    assert response["names"] == ["origin", "mean_dep_delay_1h", "count_1h", "mean_dep_delay_3h"]
    assert response["values"] == [origins, [15.0, None, None], [2, 0, 0], [15.0, -4.0, None]]
    assert response["types"] == [
        ["string_val"] * 3,
        ["double_val", None, None],
        ["int64_val"] * 3,
        ["double_val", "double_val", None],
    ]
    assert response["statuses"] == [
        ["PRESENT"] * 3,
        ["PRESENT", "NULL_VALUE", "NOT_FOUND"],
        ["PRESENT"] * 3,
        ["PRESENT", "PRESENT", "NOT_FOUND"],
    ]
    assert same_over_http(api, response, {"features": ORIGIN, "entities": {"origin": origins}})


def test_the_sdk_reads_several_views_by_several_entities_under_full_names(sdk, api):
    features = ["origin_delays:mean_dep_delay_3h", "carrier_delays:mean_dep_delay_3h", "carrier_delays:count_24h"]
    rows = [{"origin": "DTW", "carrier": "WN"}, {"origin": "MSP", "carrier": "XX"}]
    response = sdk("read", features=features, entity_rows=rows, full_feature_names=True)
    assert response["names"] == ["origin", "carrier", *(feature.replace(":", "__") for feature in features)]
    assert response["values"] == [["DTW", "MSP"], ["WN", "XX"], [15.0, -4.0], [-4.0, None], [1, 0]]
    assert response["statuses"][2:] == [["PRESENT", "PRESENT"], ["PRESENT", "NOT_FOUND"], ["PRESENT", "PRESENT"]]
    entities = {"origin": ["DTW", "MSP"], "carrier": ["WN", "XX"]}
    assert same_over_http(api, response, {"features": features, "entities": entities, "full_feature_names": True})


def test_the_sdk_reads_a_feature_service(sdk, api):
    row = {"origin": "MSP", "carrier": "WN", "tail_number": "N18"}
    response = sdk("read", features="streaming", entity_rows=[row], full_feature_names=True)
    assert dict(zip(response["names"], response["values"], strict=True)) == {
        "origin": ["MSP"],
        "carrier": ["WN"],
        "tail_number": ["N18"],
        "origin_delays__mean_dep_delay_1h": [None],
        "origin_delays__count_1h": [0],
        "origin_delays__mean_dep_delay_3h": [-4.0],
        "origin_delays__count_3h": [1],
        "carrier_delays__mean_dep_delay_3h": [-4.0],
        "carrier_delays__count_3h": [1],
        "carrier_delays__mean_dep_delay_24h": [-4.0],
        "carrier_delays__count_24h": [1],
        "tail_delays__last_arr_delay_24h": [None],
    }
    entities = {name: [value] for name, value in row.items()}
    question = {"feature_service": "streaming", "entities": entities, "full_feature_names": True}
    assert same_over_http(api, response, question)


def test_the_sdk_is_told_which_views_answered(sdk):
    option = {"include_feature_view_version_metadata": True}
    assert sdk("read", features=ORIGIN, entity_rows=[{"origin": "DTW"}], **option)["views"] == ["origin_delays"]
    assert sdk("read", features=ORIGIN, entity_rows=[{"origin": "DTW"}])["views"] == []


def test_the_sdk_reads_one_view_as_its_older_versions_do(sdk):
    question = {"view": "origin_delays", "join_key": "origin", "features": ["mean_dep_delay_1h", "count_1h"]}
    asked = time.time()
    (first, known), (_, idle), (_, unknown) = sdk("read_view", entities=["DTW", "MSP", "LAX"], **question)
    assert known == {"mean_dep_delay_1h": 15.0, "count_1h": 2}
    assert idle == unknown == {"mean_dep_delay_1h": None, "count_1h": 0}
    assert asked <= first <= time.time()


def test_the_sdk_says_what_is_wrong_with_a_question(sdk):
    unknown = sdk.outcome("read", features=["origin_delays:nothing"], entity_rows=[{"origin": "DTW"}])
    assert "422" in unknown["raised"]
    assert "features[0]" in unknown["raised"]
    twice = sdk.outcome("read", features="streaming", entity_rows=[{"origin": "A", "carrier": "B", "tail_number": "C"}])
    assert "set full_feature_names" in twice["raised"]


def table_of(origin: str, *, rows: int) -> dict[str, list[Any]]:
    return {
        "origin": [origin] * rows,
        "carrier": ["AS"] * rows,
        "tail_number": ["N19"] * rows,
        "dep_delay": [10.0 * row for row in range(rows)],
        "event_timestamp": [time.time() - 60 - row for row in range(rows)],
    }


@pytest.mark.parametrize(("origin", "call"), [("SEA", {"source": "departures"}), ("PDX", {"view": "departures"})])
def test_events_that_the_sdk_pushes_or_writes_reach_the_features(sdk, origin, call):
    assert sdk("push" if "source" in call else "write", df=table_of(origin, rows=3), **call) is None
    end = time.monotonic() + DEADLINE_S
    while (values := sdk("read", features=ORIGIN, entity_rows=[{"origin": origin}])["values"]) != [
        [origin],
        [10.0],
        [3],
        [10.0],
    ]:
        assert time.monotonic() < end, values


def test_the_sdk_is_told_that_the_features_of_a_view_are_computed(sdk):
    table = {"origin": ["DTW"], "event_timestamp": [time.time()]}
    features = {"mean_dep_delay_1h": [1.0], "count_1h": [1], "mean_dep_delay_3h": [1.0], "count_3h": [1]}
    refused = sdk.outcome("write", view="origin_delays", df={**table, **features})
    assert "write events of its source 'departures'" in refused["raised"]


def test_a_write_that_fits_no_source_names_the_field(api):
    body = {"feature_view_name": "nowhere", "df": table_of("DTW", rows=1)}
    refused = api.post("/write-to-online-store", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "feature_view_name")
    without_time = {"feature_view_name": "departures", "df": {"origin": ["DTW"]}}
    refused = api.post("/write-to-online-store", json=without_time)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "df.event_timestamp")


def test_rows_that_are_written_again_count_once(api):
    table = {**table_of("ANC", rows=1), "event_timestamp": ["2026-01-01T12:00:00"], "created": [None]}
    body = {"feature_view_name": "departures", "df": table, "allow_registry_cache": False}
    first, again = [api.post("/write-to-online-store", json=body).json() for _ in range(2)]
    assert first["accepted"] == 1
    assert first["frame_ids"] == again["frame_ids"]
