"""A connection to Redis that packs its commands in C."""

import hiredis
from redis.asyncio import Connection
from redis.typing import EncodableT


class PackingConnection(Connection):
    """Commands packed by hiredis, which redis-py's asyncio connections leave to it in answers only.

    Fifty rows ask for some ninety keys at once; packed in Python they take a fifth of the time until they are read.
    """

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """The command as Redis reads it; a name of several words is several arguments."""
        name, *rest = args
        words = name.split() if isinstance(name, str | bytes) else [name]
        return [hiredis.pack_command((*words, *rest))]
