"""Messages over the pipes of a child process: some byte strings each, every one behind its length."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

_LENGTH_BYTES = 8


class MessageError(ValueError):
    """The other side sent something that is no message, or more than it may."""


def packed(parts: Sequence[bytes]) -> list[bytes]:
    """A message as it is written, piece by piece, so that large parts are not copied."""
    pieces = [_number(len(parts))]
    for part in parts:
        pieces += [_number(len(part)), part]
    return pieces


async def receive(reader: asyncio.StreamReader, limit_bytes: int) -> list[bytes]:
    """The next message.

    Raises:
        asyncio.IncompleteReadError: the other side has ended.
        MessageError: the message is longer than `limit_bytes`.
    """
    parts: list[bytes] = []
    size = 0
    for _ in range(_checked(await reader.readexactly(_LENGTH_BYTES), limit_bytes)):
        length = _checked(await reader.readexactly(_LENGTH_BYTES), limit_bytes - size)
        size += length
        parts.append(await reader.readexactly(length))
    return parts


class ParentPipes:
    """The child's side: its standard input and output, which nothing else may use from then on."""

    def __init__(self) -> None:
        self._input: BinaryIO = sys.stdin.buffer
        self._output: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not write into a message

    def read(self) -> list[bytes]:
        """The next message; empty when the parent has ended or wants no more."""
        head = self._input.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            return []
        return [self._input.read(int.from_bytes(self._input.read(_LENGTH_BYTES))) for _ in range(int.from_bytes(head))]

    def write(self, parts: Sequence[bytes]) -> None:
        """Send a message."""
        for piece in packed(parts):
            self._output.write(piece)
        self._output.flush()


def _number(value: int) -> bytes:
    return value.to_bytes(_LENGTH_BYTES)


def _checked(raw: bytes, limit: int) -> int:
    value = int.from_bytes(raw)
    if value > limit:
        raise MessageError(f"{value} is more than {limit}")
    return value
