"""Reading features: the latency of one row beside a bare endpoint, and rows per second beside Feast's server."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from random import Random
from typing import Any

from redis import Redis

from benchmarks import features_control as control
from benchmarks.features_stack import MODULE, START_S, Stack
from contender.features.catalogue import Catalogue
from embedded.ports import free_ports
from embedded.process import ManagedProcess, answers_ok
from tests.contract.feast_environment import NotInstallableError, default_cache, ensure_environment

SEED = 20262
# As many as the flights have: the airports of New York, their airlines, and an aircraft of its own for every row.
ENTITIES = {
    "origin": [f"origin-{number}" for number in range(3)],
    "carrier": [f"carrier-{number}" for number in range(16)],
    "tail_number": [f"tail-{number}" for number in range(50)],
}
_FILLED_S = 24 * 3600
_EVENT_EVERY_S = 600
_EVENTS_PER_CALL = 5000
_WAIT_S = 60
_BUFFER_BYTES = 256 * 1024
_CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
ROW_ROUNDS, ROW_CALLS, ROW_WARMUP = 75, 40, 200
CONNECTIONS = 4
BATCH_ROWS, BATCH_ROUNDS, BATCH_CALLS, BATCH_WARMUP = 50, 9, 40, 20
Answer = dict[str, Any]


class Caller:
    """One connection to a server, which sends one request after the other."""

    def __init__(self, port: int, method: str, path: str, body: object = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        self._method = method
        # In one piece: http.client would send a body behind its head, and wake the server twice.
        self._request = f"{head}content-length: {len(content)}\r\n\r\n".encode() + content
        self._connection = HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)
        self._connection.connect()

    def call(self) -> bytes:
        """The body of an answer.

        Raises:
            RuntimeError: it is no 2xx.
        """
        self._connection.sock.sendall(self._request)
        answer = HTTPResponse(self._connection.sock, method=self._method)
        answer.begin()
        content = answer.read()
        if answer.status // 100 != 2:  # noqa: PLR2004
            raise RuntimeError(f"{self._request[:200]!r}: {answer.status} {content[:500]!r}")
        return content

    def load(self, calls: int) -> None:
        """Call and drop the answers, at a fraction of a client's own processor time: servers shall have it.

        Raises:
            RuntimeError: an answer is no 200.
        """
        self._connection.close()
        self._connection.connect()
        connection, buffer = self._connection.sock, bytearray(_BUFFER_BYTES)
        for _ in range(calls):
            connection.sendall(self._request)
            received = connection.recv_into(buffer)
            length = _CONTENT_LENGTH.search(buffer, 0, received)
            if length is None or not buffer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{self._request[:200]!r}: {bytes(buffer[:500])!r}")
            missing = buffer.index(b"\r\n\r\n") + 4 + int(length[1]) - received
            while missing > 0:
                missing -= connection.recv_into(buffer)

    def latencies(self, calls: int) -> list[float]:
        """Seconds that each of some calls took, on a connection of their own: an idle one may have been closed."""
        self._connection.close()
        self._connection.connect()
        seconds = []
        for _ in range(calls):
            started = time.perf_counter()
            self.call()
            seconds.append(time.perf_counter() - started)
        return seconds


class Probed(ManagedProcess):
    """A server that is ready once a path is answered."""

    def __init__(self, name: str, command: Sequence[str | Path], *, port: int, log: Path, path: str) -> None:
        super().__init__(name, command, port=port, log=log)
        self._path = path

    def is_ready(self) -> bool:
        """Whether the path is answered with 200."""
        return self.alive and answers_ok("127.0.0.1", self.port, self._path)


def measure_row(stack: Stack) -> dict[str, Any]:
    """p50 of POST /get-online-features for one row of 15 features, over that of one HMGET of 15 fields."""
    fill(stack)
    with Redis.from_url(stack.valkey) as redis:
        redis.hset(control.KEY, mapping={name: number / 7 for number, name in enumerate(control.FIELDS)})
    ours = Caller(stack.web.port, "POST", "/get-online-features", question([0]))
    expect_values(ours.call())
    with _control(stack) as server:
        theirs = Caller(server.port, "GET", f"/row/{control.KEY}")
        rounds = _interleaved(ours, theirs, ROW_ROUNDS, ROW_CALLS, ROW_WARMUP)
    p50s = [(statistics.median(own), statistics.median(other)) for own, other in rounds]
    return {
        "row_p50_vs_hmget": statistics.median(own / other for own, other in p50s),
        "row_p50_ms": 1e3 * statistics.median(own for own, _ in p50s),
        "hmget_p50_ms": 1e3 * statistics.median(other for _, other in p50s),
        "row_ratios": [own / other for own, other in p50s],
    }


def measure_feast(stack: Stack) -> dict[str, Any]:
    """Rows per second of calls of 50 rows x 15 features, over those of Feast's Python feature server."""
    try:
        python = ensure_environment(default_cache())
    except NotInstallableError as error:
        return {"rows50_vs_feast": None, "rows50_reason": f"Feast is not installed and can't be: {error}"}
    fill(stack)
    asked = question(range(BATCH_ROWS))
    ours = [Caller(stack.web.port, "POST", "/get-online-features", asked) for _ in range(CONNECTIONS)]
    expect_values(ours[0].call())
    with _feast(stack, python, json.loads(ours[0].call())) as server:
        references = Catalogue.load(MODULE).services["fifteen"].features
        body = {"features": list(references), "entities": asked["entities"], "full_feature_names": True}
        theirs = [Caller(server.port, "POST", "/get-online-features", body) for _ in range(CONNECTIONS)]
        expect_values(theirs[0].call())
        rates = _rates_in_turns(ours, theirs)
    return {
        "rows50_vs_feast": statistics.median(own / other for own, other in rates),
        "rows50_per_s": statistics.median(own for own, _ in rates),
        "rows50_feast_per_s": statistics.median(other for _, other in rates),
        "rows50_ratios": [own / other for own, other in rates],
    }


def _rates_in_turns(ours: Sequence[Caller], theirs: Sequence[Caller]) -> list[tuple[float, float]]:
    """Rows per second of both, in turns that take about as long: in a shorter one connecting would weigh more."""
    warm = [_rate(ours, BATCH_WARMUP), _rate(theirs, BATCH_WARMUP)]
    calls = round(BATCH_CALLS * max(1.0, warm[0] / warm[1]))
    return [(_rate(ours, calls), _rate(theirs, BATCH_CALLS)) for _ in range(BATCH_ROUNDS)]


def _rate(callers: Sequence[Caller], calls: int) -> float:
    """Rows per second over connections that all call at once."""
    started = time.perf_counter()
    with ThreadPoolExecutor(len(callers)) as pool:
        list(pool.map(lambda caller: caller.load(calls), callers))
    return BATCH_ROWS * calls * len(callers) / (time.perf_counter() - started)


def question(rows: Sequence[int]) -> Answer:
    """The body of a question for the features of some entities."""
    columns = [_whom(row) for row in rows]
    return {
        "feature_service": "fifteen",
        "entities": {key: [column[key] for column in columns] for key in ENTITIES},
        "full_feature_names": True,
    }


def expect_values(answer: bytes) -> None:
    """Make sure that what is measured is full answers.

    Raises:
        RuntimeError: a value is missing.
    """
    results = json.loads(answer)["results"]
    missing = sum(status != "PRESENT" for result in results for status in result["statuses"])
    if missing or len(results) != 3 + 15:
        raise RuntimeError(f"{missing} values are missing from the answer: {answer[:500]!r}")


def fill(stack: Stack) -> None:
    """Events for every tile of the last 24 hours of every entity."""
    redis = Redis.from_url(stack.valkey)
    with redis:
        if redis.get("benchmark:filled"):
            return
        redis.set("benchmark:filled", 1)
    fill_entities(stack.web.port)


def fill_entities(port: int) -> None:
    """Send events for every tile of the last 24 hours of every entity to the feature service on a port.

    Raises:
        RuntimeError: they do not get into the features.
    """
    random = Random(SEED)  # noqa: S311 - numbers to measure with
    events = list(_events(random, time.time()))
    for start in range(0, len(events), _EVENTS_PER_CALL):
        some = {"events": events[start : start + _EVENTS_PER_CALL]}
        frame_id = json.loads(Caller(port, "POST", "/v1/events", some).call())["frame_ids"][0]
        waiting = Caller(port, "GET", f"/v1/frames/{frame_id}?wait_s={_WAIT_S}")
        if not json.loads(waiting.call())["applied"]:
            raise RuntimeError(f"events are not in the features after {_WAIT_S} s: see the worker's log")


def _events(random: Random, now: float) -> Iterator[Answer]:
    for step in range(_FILLED_S // _EVENT_EVERY_S):
        at = now - _FILLED_S + step * _EVENT_EVERY_S
        for row in range(BATCH_ROWS):
            for source, delay in (("departures", "dep_delay"), ("arrivals", "arr_delay")):
                time_s = at + random.uniform(0, _EVENT_EVERY_S)
                yield {"source": source, "time": time_s, "values": {**_whom(row), delay: random.gauss(10, 20)}}


def _whom(row: int) -> dict[str, str]:
    """The entities that a row is about."""
    return {key: names[row % len(names)] for key, names in ENTITIES.items()}


def _interleaved(
    ours: Caller, theirs: Caller, rounds: int, calls: int, warmup: int
) -> list[tuple[list[float], list[float]]]:
    """Latencies of both, in turns, so that a noisy moment meets both."""
    ours.latencies(warmup)
    theirs.latencies(warmup)
    return [(ours.latencies(calls), theirs.latencies(calls)) for _ in range(rounds)]


@contextmanager
def _served(server: Probed) -> Iterator[Probed]:
    server.start()
    try:
        server.wait_ready(START_S)
        yield server
    finally:
        server.stop()


@contextmanager
def _control(stack: Stack) -> Iterator[Probed]:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", control.__name__, str(port), stack.valkey]
    with _served(Probed("control", command, port=port, log=stack.folder / "control.log", path="/readyz")) as server:
        yield server


@contextmanager
def _feast(stack: Stack, python: Path, answer: Answer) -> Iterator[Probed]:
    """Feast's server with the same features of the same entities, on the same Valkey."""
    folder = stack.folder / "feast"
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(_tables(answer)))
    address = f"127.0.0.1:{stack.settings.valkey_port}"
    script = Path(__file__).with_name("features_feast.py")
    done = subprocess.run(  # noqa: S603 - our own script
        [python, script, folder, address], capture_output=True, text=True, timeout=START_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"Feast's repository can't be made: {done.stderr}")
    port = free_ports(1)[0]
    command: list[str | Path] = [
        python.with_name("feast"),
        "-c",
        folder,
        "serve",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "--no-access-log",
    ]
    # Feast restarts its worker now and then against leaks; a restart is not what is compared here.
    command += ["--max-requests", "1000000"]
    with _served(Probed("feast", command, port=port, log=folder / "serve.log", path="/health")) as server:
        yield server


def _tables(answer: Answer) -> Mapping[str, Answer]:
    """An answer of ours as what Feast's views are filled with."""
    columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    tables: dict[str, Answer] = {}
    for view in Catalogue.load(MODULE).views.values():
        key = view.join_keys[0]
        names = [feature.name for feature in view.aggregations]
        # Of an entity that several rows are about one is enough.
        rows = {entity: row for row, entity in enumerate(columns[key]["values"])}
        values = {name: columns[f"{view.name}__{name}"]["values"] for name in names}
        features = {name: [float(column[row]) for row in rows.values()] for name, column in values.items()}
        tables[view.name] = {"join_key": key, "entities": list(rows), "features": features}
    return tables
