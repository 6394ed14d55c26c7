"""A child process as its parent sees it: it answers messages, within limits of time and size.

A message is a number of byte strings, then each of them behind its length. The child's side is `child_process`.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

_ROOT = Path(__file__).resolve().parents[2]
_BUFFER_BYTES = 1024**2
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Each thread reserves its own memory as a whole, which would use up the limits."""

LENGTH_BYTES = 8


class ProcessEndedError(RuntimeError):
    """The process has ended, or was ended because it did not answer in time."""


class LimitedProcess:
    """A Python module that answers messages, one at a time; it ends when its standard input does.

    Args:
        process: runs the module.
        answer_limit_bytes: longest answer that is read.
    """

    def __init__(self, process: asyncio.subprocess.Process, answer_limit_bytes: int) -> None:
        self._process = process
        self._answer_limit_bytes = answer_limit_bytes

    @classmethod
    async def start(cls, module: str, *, answer_limit_bytes: int) -> Self:
        """Start `python -m module`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_BUFFER_BYTES,
            cwd=_ROOT,  # the module of this very installation, whatever lies in the caller's folder
            env={**os.environ, **_ENVIRONMENT},
        )
        return cls(process, answer_limit_bytes)

    @property
    def alive(self) -> bool:
        """Whether it may still answer."""
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def ask(self, parts: Sequence[bytes], seconds: float) -> list[bytes]:
        """The answer to a message; a process that gives none in time is ended.

        Raises:
            ProcessEndedError: there is no answer.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(parts)
        except TimeoutError as error:
            await self.end()
            raise ProcessEndedError(f"no answer within {seconds:g} s") from error
        except (asyncio.IncompleteReadError, OSError, MessageError) as error:
            await self.end()
            raise ProcessEndedError("the process has ended") from error
        except asyncio.CancelledError:  # half a message may be on its way: nobody can use the process any more
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """End it, and return when it has ended."""
        self.kill()
        await self._process.wait()

    async def _exchange(self, parts: Sequence[bytes]) -> list[bytes]:
        writer, reader = self._process.stdin, self._process.stdout
        if writer is None or reader is None:  # never happens: both were asked for
            raise ProcessEndedError("the process has no pipes")
        for piece in packed(parts):
            writer.write(piece)
        await writer.drain()
        return await receive(reader, self._answer_limit_bytes)


class MessageError(ValueError):
    """The other side sent bytes that are not a message, or a message beyond the limit."""


def packed(parts: Sequence[bytes]) -> list[bytes]:
    """The pieces of a message, which are written one by one so that large parts are not copied."""
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
    for _ in range(_checked(await reader.readexactly(LENGTH_BYTES), limit_bytes)):
        length = _checked(await reader.readexactly(LENGTH_BYTES), limit_bytes - size)
        size += length
        parts.append(await reader.readexactly(length))
    return parts


def _number(value: int) -> bytes:
    return value.to_bytes(LENGTH_BYTES)


def _checked(raw: bytes, limit: int) -> int:
    value = int.from_bytes(raw)
    if value > limit:
        raise MessageError(f"{value} is more than {limit}")
    return value
