"""Local ports: whether a port is free, and free ports for tests."""

import socket
import time
from dataclasses import dataclass

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class NeededPort:
    """A port that a process listens on: `above` is how far it lies above the value of the variable `setting`."""

    port: int
    setting: str
    above: int = 0


def is_free(port: int, host: str = "127.0.0.1", *, wait_s: float = 0) -> bool:
    """Whether a server can listen there within `wait_s`: a killed server's socket takes a moment to close."""
    end = time.monotonic() + wait_s
    while not _can_listen(host, port):
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True


def free_ports(count: int) -> list[int]:
    """Distinct ports that nothing listens on."""
    held = []
    try:
        for _ in range(count):
            candidate = socket.socket()
            candidate.bind(("127.0.0.1", 0))
            held.append(candidate)
        return [candidate.getsockname()[1] for candidate in held]
    finally:
        for candidate in held:
            candidate.close()


def _can_listen(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as candidate:
        # As servers do: a connection that lingers in TIME_WAIT does not count.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError:
            return False
    return True
