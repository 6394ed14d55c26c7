"""A cluster of real Valkey servers on free ports: three primaries, and three replicas."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from embedded.ports import free_ports
from embedded.valkey import Valkey

PRIMARIES = 3
SLOTS = 16384
DEADLINE_S = 60
NODE_TIMEOUT_MS = 1000


@dataclass(frozen=True)
class ValkeyCluster:
    """Its servers, of which the first ones begin as primaries."""

    servers: list[Valkey]

    @property
    def url(self) -> str:
        """The URL of one of its servers."""
        return self.servers[0].url


@contextmanager
def running_cluster(folder: Path) -> Iterator[ValkeyCluster]:
    """A cluster whose data lie in `folder`."""
    ports = free_ports(4 * PRIMARIES)
    options = {"cluster-enabled": "yes", "cluster-node-timeout": str(NODE_TIMEOUT_MS)}
    servers = [
        Valkey(folder / str(port), port, options={**options, "cluster-port": str(bus)})
        for port, bus in zip(ports[::2], ports[1::2], strict=True)
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_ready(DEADLINE_S)
        _join(servers, ports[1::2])
        yield ValkeyCluster(servers)
    finally:
        for server in servers:
            server.kill()


def _join(servers: list[Valkey], buses: list[int]) -> None:
    clients = [Redis.from_url(server.url) for server in servers]
    primaries, replicas = clients[:PRIMARIES], clients[PRIMARIES:]
    bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
    for client, first, behind in zip(primaries, bounds, bounds[1:], strict=False):
        client.execute_command("CLUSTER ADDSLOTSRANGE", first, behind - 1)
    for client in clients[1:]:
        client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port, buses[0])
    _wait(lambda: all(_info(client)["cluster_known_nodes"] == str(len(clients)) for client in clients))
    for client, primary in zip(replicas, primaries, strict=True):
        client.execute_command("CLUSTER REPLICATE", primary.execute_command("CLUSTER MYID"))
    _wait(lambda: all(_info(client)["cluster_state"] == "ok" for client in clients))
    _wait(lambda: all(client.info("replication")["master_link_status"] == "up" for client in replicas))
    for client in clients:
        client.close()


def _info(client: Redis) -> dict[str, str]:
    return client.execute_command("CLUSTER INFO")


def _wait(condition) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "the servers have not become a cluster"
        time.sleep(0.05)
