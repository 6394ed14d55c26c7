"""The open versions of the web process, one for each model and version, even where two models have the same file."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from contender.contracts.inference_service import ModelVersion, ScoredRows
from contender.contracts.values import Scalar
from services.inference_service.answering import Answering, Limits
from services.inference_service.domain.cost import RULES, TrialRecord
from services.inference_service.errors import VersionUnavailableError
from services.inference_service.files import ModelFiles
from services.inference_service.model_process import Opening
from services.inference_service.runners import ProcessRunner, ProcessSlots, Runner, ThreadRunner
from services.inference_service.session import RUN_ROWS, Session
from services.inference_service.settings import InferenceSettings
from services.inference_service.trial import Trial
from services.inference_service.trials import Trials
from services.inference_service.watchdog import Watchdog
from shared.errors import InvalidField

_RUN_MS = 500.0
"""Longest time of a run, estimated from the trial."""
Key = tuple[str, str]
Opener = Callable[[bytes, ModelVersion], Session]


class Runtime:
    """Opens versions and answers for them; the longest unused is closed first.

    Args:
        files: the ONNX files and the records of their trials.
        trials: measures versions that have no such record under the present rules.
        settings: the limits.
        opener: makes a session of a file; tests give their own.
    """

    def __init__(
        self, files: ModelFiles, trials: Trials, settings: InferenceSettings, opener: Opener = Session.of
    ) -> None:
        self._opener = opener
        self._files = files
        self._trials = trials
        self._settings = settings
        self._limits = Limits(settings.row_limit, settings.text_limit, settings.run_seconds, settings.answer_seconds)
        self._watchdog = Watchdog()
        self._slots = ProcessSlots(settings.process_limit)
        # As many as may have a turn, so that no version waits for another's.
        self._threads = ThreadPoolExecutor(settings.session_limit * settings.call_limit, "model")
        self._runners: OrderedDict[Key, asyncio.Task[Runner]] = OrderedDict()

    async def answer(self, version: ModelVersion, inputs: Mapping[str, Sequence[Scalar]]) -> ScoredRows:
        """Answers of rows by column.

        Raises:
            TooLarge, InvalidField: the question is malformed.
            VersionUnavailableError, Overloaded: the version can't answer at the moment.
        """
        key = (version.model, version.version)
        task = self._runners.get(key)
        if task is None or not task.done():
            return await (await self.open(version)).answer(inputs)
        self._runners.move_to_end(key)
        return await task.result().answer(inputs)

    async def open(self, version: ModelVersion) -> Runner:
        """The version's runner; concurrent callers wait for the same opening.

        Raises:
            VersionUnavailableError, Overloaded: it can't be opened at the moment.
        """
        key = (version.model, version.version)
        task = self._runners.get(key)
        if task is None:
            task = self._runners[key] = asyncio.create_task(self._open(version))
            task.add_done_callback(lambda done: self._forget_failed(key, done))
        self._runners.move_to_end(key)
        try:
            async with asyncio.timeout(self._settings.open_seconds):
                runner = await asyncio.shield(task)
        except TimeoutError as error:
            raise VersionUnavailableError("the version is being opened, which takes long") from error
        await self._close_unused()
        return runner

    async def forget(self, version: ModelVersion) -> None:
        """Close a version if it is open."""
        task = self._runners.pop((version.model, version.version), None)
        if task is not None and task.done() and not task.cancelled() and task.exception() is None:
            await task.result().close()

    async def close(self) -> None:
        """End all processes and threads."""
        tasks = list(self._runners.values())
        self._runners.clear()
        for task in tasks:
            task.cancel()
        for runner in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(runner, BaseException):
                await runner.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _open(self, version: ModelVersion) -> Runner:
        try:
            record = await asyncio.to_thread(self._files.record, version.model, version.version)
            if record is None or record.rules != RULES:
                record = await self._measure(version)
            if record.quick:
                return await self._open_in_threads(version, record)
        except FileNotFoundError as error:
            raise VersionUnavailableError(f"the file of version {version.version} is not there") from error
        except InvalidField as error:
            raise VersionUnavailableError(f"version {version.version} can't be opened: {error.detail}") from error
        runner = ProcessRunner(self._opening(version, record), self._slots, self._settings)
        await runner.open()
        return runner

    async def _open_in_threads(self, version: ModelVersion, record: TrialRecord) -> Runner:
        content = await asyncio.to_thread(self._files.read, version.version)
        session = await asyncio.to_thread(self._opener, content, version)
        answering = Answering(session, version.inputs, record.reference, self._limits, self._watchdog)
        return ThreadRunner(answering, self._threads, self._settings)

    def _opening(self, version: ModelVersion, record: TrialRecord) -> Opening:
        return Opening(
            file=str(self._files.path(version.version)),
            version=version,
            reference=record.reference,
            limits=self._limits,
            run_rows=min(RUN_ROWS, max(1, int(_RUN_MS / max(record.row_ms, 1e-3)))),
            seconds=int(self._settings.open_seconds),
            memory_bytes=self._settings.trial_bytes,
            call_bytes=self._settings.process_bytes,
        )

    async def _measure(self, version: ModelVersion) -> TrialRecord:
        """Check and measure a version that was registered under other rules; its file becomes the checked one."""
        content = await asyncio.to_thread(self._files.read, version.version)
        trial = msgspec.structs.replace(trial_of(version, 0.0, self._settings), has_sample=False)
        result = await self._trials.run(trial, content, b"")
        await asyncio.to_thread(self._files.write, version.version, result.checked)
        await asyncio.to_thread(self._files.write_record, version.model, version.version, result.finding.record)
        return result.finding.record

    async def _close_unused(self) -> None:
        while len(self._runners) > self._settings.session_limit:
            older = list(self._runners.items())[:-1]
            key = next((key for key, task in older if task.done() and task.result().idle), None)
            if key is None:
                return
            await self._runners.pop(key).result().close()

    def _forget_failed(self, key: Key, task: asyncio.Task[Runner]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._runners.get(key) is task:
            del self._runners[key]


def trial_of(version: ModelVersion, tolerance: float, settings: InferenceSettings) -> Trial:
    """A trial of a version within the service's limits."""
    return Trial(
        version=version,
        tolerance=tolerance,
        row_limit=settings.row_limit,
        text_limit=settings.text_limit,
        node_limit=settings.node_limit,
        seconds=settings.trial_seconds,
        memory_bytes=settings.trial_bytes,
    )
