"""docker-compose.yml says in containers what the code says of its processes, ports, settings and Kafka."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from sqlalchemy import make_url

from embedded.jars import locked_jars
from embedded.kafka import BROKER_SETTINGS
from embedded.service import SERVICES, ServiceProcess
from embedded.settings import StackSettings
from embedded.valkey import Valkey
from services.ab_router.settings import RouterSettings
from services.feature_service.settings import FeatureSettings
from services.feedback_service.settings import FeedbackSettings
from services.inference_service.settings import InferenceSettings
from shared import processes, worker_process
from shared.guard import Admission
from shared.publisher import Publisher
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
PASSWORD = "s3cret"
SETTINGS: dict[str, type[Settings]] = {
    "ab_router": RouterSettings,
    "feature_service": FeatureSettings,
    "feedback_service": FeedbackSettings,
    "inference_service": InferenceSettings,
}
# What code says when it needs an address, and the variable that gives it.
ADDRESSES = {
    r"settings\.kafka\b|Publisher\.from_settings\(": "CONTENDER_KAFKA",
    r"settings\.redis\b": "CONTENDER_REDIS",
    r"settings\.database_url\(": "CONTENDER_DATABASE",
    **{rf'settings\.url\("{service}"': f"CONTENDER_{service.upper()}_URL" for service in SETTINGS},
}
# First assignments, counts of traffic and request ids are the web process's alone.
ASKED_BY_THE_WEB_PROCESS = {"ab_router": {"CONTENDER_REDIS"}}
# The router asks for plans alone, and only before a start: predictions do not wait for the feedback service.
DONE_WITHOUT = {"ab_router": {"feedback_service"}}
each_process = pytest.mark.parametrize("process", SERVICES, ids=lambda process: process.name)


@pytest.fixture(autouse=True)
def no_variables_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is about ports that nobody has moved."""
    for name in [name for name in os.environ if name.startswith("CONTENDER_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def containers() -> dict[str, dict[str, Any]]:
    text = (ROOT / "docker-compose.yml").read_text()
    assert PASSWORD not in text
    services: dict[str, dict[str, Any]] = yaml.safe_load(re.sub(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", PASSWORD, text))[
        "services"
    ]
    assert "${" not in str(services)
    return services


@pytest.fixture
def probed() -> Iterator[HTTPServer]:
    """A server that answers /readyz with its attribute `status`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def variables(container: dict[str, Any], prefix: str = "CONTENDER_") -> dict[str, str]:
    return {name: value for name, value in container["environment"].items() if name.startswith(prefix)}


def settings_of(process: ServiceProcess, container: dict[str, Any]) -> Settings:
    fields = {name.removeprefix("CONTENDER_").lower(): value for name, value in variables(container).items()}
    return SETTINGS[process.service](**fields)


def address(value: str) -> tuple[str | None, int | None]:
    url = urlsplit(value if "://" in value else f"//{value}")
    return url.hostname, url.port


def seconds(duration: str) -> float:
    number = re.fullmatch(r"(\d+)s", duration)
    assert number is not None, duration
    return float(number[1])


def test_the_containers_are_the_processes_that_up_runs_with_postgresql_in_the_place_of_sqlite(containers):
    assert sorted(containers) == sorted(["kafka", "valkey", "postgres", *(process.name for process in SERVICES)])


@each_process
def test_a_process_is_started_as_up_starts_it(process: ServiceProcess, containers):
    container = containers[process.name]
    assert container["command"] == process.command
    assert container["build"] == {"context": ".", "args": {"SERVICE": process.service}}


@each_process
def test_every_variable_is_a_setting_of_the_service_and_its_value_is_valid(process: ServiceProcess, containers):
    container = containers[process.name]
    assert all(isinstance(value, str) for value in container["environment"].values())
    assert variables(container) == container["environment"]
    known = {f"CONTENDER_{name.upper()}" for name in SETTINGS[process.service].model_fields}
    assert set(variables(container)) <= known
    settings = settings_of(process, container)
    assert settings.host == "0.0.0.0"
    assert container["volumes"] == [f"{process.name}:{settings.data}"]


@each_process
def test_a_process_gets_the_address_of_all_that_its_code_asks_for_and_of_nothing_else(process, containers):
    code = "".join(path.read_text() for path in (ROOT / "services" / process.service).rglob("*.py"))
    needed = {variable for pattern, variable in ADDRESSES.items() if re.search(pattern, code)}
    if process.role == "worker":
        needed -= ASKED_BY_THE_WEB_PROCESS.get(process.service, set())
    assert needed == set(variables(containers[process.name])) - {
        "CONTENDER_HOST",
        "CONTENDER_DATA",
        "CONTENDER_ALLOWED_HOSTS",
    }


@each_process
def test_a_process_waits_until_every_container_that_its_addresses_name_is_healthy(process, containers):
    environment = variables(containers[process.name])
    hosts = {address(environment[variable])[0] for variable in ADDRESSES.values() if variable in environment}
    hosts -= DONE_WITHOUT.get(process.name, set())
    assert containers[process.name]["depends_on"] == {host: {"condition": "service_healthy"} for host in hosts}


@each_process
def test_addresses_name_the_port_that_the_other_container_listens_on(process: ServiceProcess, containers):
    container = containers[process.name]
    settings = settings_of(process, container)
    if "CONTENDER_KAFKA" in container["environment"]:
        assert address(settings.kafka) == address(containers["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    for other in SETTINGS:
        if f"CONTENDER_{other.upper()}_URL" in container["environment"]:
            assert address(settings.url(other)) == (other, settings.port(other))
    if "CONTENDER_REDIS" in container["environment"]:
        assert address(settings.redis) == ("valkey", 6379)
    if "CONTENDER_DATABASE" in container["environment"]:
        url = make_url(settings.database_url(process.service))
        postgres = variables(containers["postgres"], "POSTGRES_")
        assert (url.drivername, url.host, url.port) == ("postgresql+asyncpg", "postgres", 5432)
        assert (url.username, url.password, url.database) == tuple(
            postgres[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB")
        )


@each_process
def test_a_process_answers_to_the_name_of_every_container_that_asks_by_it(process: ServiceProcess, containers):
    admission = Admission.of(settings_of(process, containers[process.name]))
    assert all(admission.serves(f"{other.name}:8400".encode()) for other in SERVICES)
    assert not admission.serves(b"evil.example:8400")


@each_process
def test_only_web_ports_are_published_and_only_on_this_machine(process: ServiceProcess, containers):
    port = StackSettings().port(process.service)
    published = containers[process.name].get("ports", [])
    assert published == ([f"127.0.0.1:{port}:{port}"] if process.role == "web" else [])


def test_what_stands_below_the_services_is_not_published(containers):
    assert not any("ports" in containers[name] for name in ("kafka", "valkey", "postgres"))


def test_every_container_has_a_healthcheck_that_is_asked_often_while_it_starts(containers):
    for container in containers.values():
        health = container["healthcheck"]
        assert health["test"][0] in ("CMD", "CMD-SHELL")
        assert seconds(health["start_interval"]) <= 3 < seconds(health["interval"])
        assert seconds(health["start_period"]) >= 60
        assert container["restart"] == "unless-stopped"


@each_process
def test_the_healthcheck_asks_the_process_whether_it_is_ready(process: ServiceProcess, containers, probed):
    port = process.port(StackSettings())
    kind, program, *arguments = containers[process.name]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    assert f"'http://127.0.0.1:{port}/readyz'" in arguments[-1]
    arguments[-1] = arguments[-1].replace(str(port), str(probed.server_port))
    codes = []
    for probed.status in (200, 503):
        codes.append(subprocess.run([sys.executable, "-S", *arguments], capture_output=True, check=False).returncode)
    assert codes == [0, 1]


@each_process
def test_a_process_has_time_to_drain_before_it_is_killed(process: ServiceProcess, containers):
    finish_s = RouterSettings().finish_s if process.service == "ab_router" else processes.FINISH_S
    drain_s = finish_s + signature(Publisher).parameters["drain_s"].default
    assert seconds(containers[process.name]["stop_grace_period"]) >= 2 * max(drain_s, worker_process._STOP_S)


def test_every_volume_is_declared_and_used_by_one_container(containers):
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"]
    used = [volume.partition(":")[0] for container in containers.values() for volume in container["volumes"]]
    assert sorted(used) == sorted(declared)


def test_kafka_is_set_as_the_embedded_one_is(containers):
    environment = variables(containers["kafka"], "KAFKA_")
    expected = {f"KAFKA_{name.upper().replace('.', '_')}": str(value) for name, value in BROKER_SETTINGS.items()}
    assert {name: environment.get(name) for name in expected} == expected
    assert f"{containers['kafka']['volumes'][0]}".endswith(":" + environment["KAFKA_LOG_DIRS"])


def test_valkey_is_set_as_the_embedded_one_is(containers):
    embedded = Valkey._arguments(Path("unused"), 0, {})[1:]
    options = dict(zip(embedded[::2], embedded[1::2], strict=True))
    kept = {name: options[name] for name in options if name not in ("--bind", "--port", "--dir", "--daemonize")}
    program, *arguments = containers["valkey"]["command"]
    assert program == "valkey-server"
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == kept


def test_images_are_pinned_and_of_the_versions_that_up_runs(containers):
    images = dict(container["image"].split(":") for container in containers.values() if "image" in container)
    assert all(re.fullmatch(r"\d+\.\d+(\.\d+)?", version) for version in images.values())
    assert images["apache/kafka"] == next(jar.version for jar in locked_jars() if jar.artifact == "kafka-clients")
    server = subprocess.run(
        [Valkey._arguments(Path(), 0, {})[0], "--version"], capture_output=True, text=True, check=True
    )
    embedded = re.search(r"v=(\d+\.\d+)\.", server.stdout)
    assert embedded is not None
    assert images["valkey/valkey"].rpartition(".")[0] == embedded[1]
