"""Runners of open versions: threads of the web process, or a process of the version's own."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

import msgspec

from contender.contracts.inference_service import ANSWER, VERSION_UNAVAILABLE, RowFault, ScoredRows
from contender.contracts.problems import ProblemType
from contender.contracts.values import Scalar
from services.inference_service.answering import Answering, halves, joined
from services.inference_service.domain.columns import count_rows
from services.inference_service.errors import VersionUnavailableError
from services.inference_service.limited_process import LimitedProcess, ProcessEndedError
from services.inference_service.model_process import Opening, OpeningResult
from services.inference_service.settings import InferenceSettings
from services.inference_service.turns import Turns
from shared.errors import Overloaded

_MODULE = "services.inference_service.model_process"
_SPARE_S = 0.3
"""What a process may take beside its own limit, before it counts as hanging."""
_VALUE_BYTES = 32
"""Most bytes of a score in an answer."""
_ROW_BYTES = 4096
"""Most bytes of a label and a fault."""
Inputs = Mapping[str, Sequence[Scalar]]


class Runner(Protocol):
    """Answers for one version."""

    @property
    def idle(self) -> bool:
        """Whether no call is running."""
        ...

    async def answer(self, inputs: Inputs) -> ScoredRows:
        """Answers of rows by column.

        Raises:
            TooLarge, InvalidField: the question is malformed.
            Overloaded: too many calls wait for this version.
        """
        ...

    async def close(self) -> None:
        """Free its resources."""
        ...


class ThreadRunner:
    """A version of known cost, in the threads of the web process. It answers some calls at once, whatever others do."""

    def __init__(self, answering: Answering, threads: Executor, settings: InferenceSettings) -> None:
        self._answering = answering
        self._threads = threads
        self._seconds = settings.answer_seconds
        self._turns = Turns(
            settings.call_limit, settings.call_queue_limit, settings.answer_seconds, "this version of the model"
        )

    @property
    def idle(self) -> bool:
        """Always: a running call keeps the session that it needs."""
        return True

    async def answer(self, inputs: Inputs) -> ScoredRows:
        """Answers of rows by column."""
        ends_at = time.monotonic() + self._seconds
        async with self._turns.turn():
            seconds = ends_at - time.monotonic()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._answering.answer, inputs, seconds)

    async def close(self) -> None:
        """Nothing to do: it holds memory alone."""


class ProcessSlots:
    """Limits how many processes run at once; the longest idle one is ended for another."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: OrderedDict[ProcessRunner, None] = OrderedDict()

    async def take(self, runner: "ProcessRunner") -> None:
        """Give a runner's process a slot.

        Raises:
            Overloaded: all processes answer at the moment.
        """
        idle = None
        if runner not in self._holders and len(self._holders) >= self._limit:
            idle = next((holder for holder in self._holders if holder.idle), None)
            if idle is None:
                raise Overloaded(f"all {self._limit} processes for models of unknown cost are busy")
            del self._holders[idle]
        self._holders[runner] = None
        self._holders.move_to_end(runner)
        if idle is not None:
            await idle.close()

    def leave(self, runner: "ProcessRunner") -> None:
        """Free the runner's slot."""
        self._holders.pop(runner, None)


class ProcessRunner:
    """A version of unknown cost in a process of its own, which starts again after it has ended."""

    def __init__(self, opening: Opening, slots: ProcessSlots, settings: InferenceSettings) -> None:
        self._opening = opening
        self._slots = slots
        self._settings = settings
        self._turns = Turns(1, settings.call_queue_limit, settings.answer_seconds, "this version of the model")
        self._process: LimitedProcess | None = None
        self._ending: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no call is running."""
        return self._turns.idle

    async def open(self) -> None:
        """Start the process.

        Raises:
            VersionUnavailableError: it can't open the version.
            Overloaded: all processes are busy.
        """
        async with self._turns.turn():
            await self._running()

    async def answer(self, inputs: Inputs) -> ScoredRows:
        """Answers of rows by column."""
        limits = self._opening.limits
        count_rows(self._opening.version.inputs, inputs, limits.row_limit)
        ends_at = time.monotonic() + limits.answer_seconds
        async with self._turns.turn():
            return await self._answer(inputs, ends_at)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._slots.leave(self)
        if self._ending is not None:
            self._ending.cancel()
        if process is not None:
            await process.end()

    async def _answer(self, inputs: Inputs, ends_at: float) -> ScoredRows:
        """The process's answers. If the rows end the process, a new one is asked for each half of them."""
        rows = len(next(iter(inputs.values())))
        seconds = ends_at - time.monotonic()
        if seconds <= 0:
            return _refused(
                rows, VERSION_UNAVAILABLE, "was not answered: another row of the call ended the model's process"
            )
        process = await self._running()
        call = [msgspec.json.encode(inputs), str(seconds).encode()]
        try:
            [answers] = await process.ask(call, seconds + _SPARE_S)
        except ProcessEndedError:
            if rows > 1:
                first, second = halves(inputs)
                return joined(await self._answer(first, ends_at), await self._answer(second, ends_at))
            if seconds < self._settings.run_seconds:
                return _refused(
                    rows, VERSION_UNAVAILABLE, "was not answered in the time that the other rows of the call left"
                )
            return _refused(rows, ANSWER, "takes more time or memory than the model may have for a row")
        return msgspec.msgpack.decode(answers, type=ScoredRows)

    async def _running(self) -> LimitedProcess:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(self._settings.process_idle_seconds, self._end_idle)
        await self._slots.take(self)
        if self._process is None or not self._process.alive:
            self._process = await self._start()
        return self._process

    async def _start(self) -> LimitedProcess:
        width = len(self._opening.version.classes) or 1
        answer_limit = self._opening.limits.row_limit * (_ROW_BYTES + width * _VALUE_BYTES)
        process = await LimitedProcess.start(_MODULE, answer_limit_bytes=answer_limit)
        try:
            [head] = await process.ask([msgspec.msgpack.encode(self._opening)], self._settings.open_seconds)
        except ProcessEndedError as error:
            raise VersionUnavailableError("the version can't be opened within its limits of time and memory") from error
        result = msgspec.msgpack.decode(head, type=OpeningResult)
        if result.errors:
            await process.end()
            raise VersionUnavailableError(f"the version can't be opened: {result.errors[0].message}")
        return process

    def _end_idle(self) -> None:
        """Kill the process; the next call starts another."""
        if self.idle and self._process is not None:
            self._process.kill()
            self._process = None
            self._slots.leave(self)


def _refused(rows: int, kind: ProblemType, message: str) -> ScoredRows:
    faults = [RowFault.of(kind, row, "inputs", message) for row in range(rows)]
    return ScoredRows([None] * rows, [None] * rows, faults)
