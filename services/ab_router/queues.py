"""A queue and a breaker for each model version, so that a version that is slow or fails keeps nobody else waiting."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from prometheus_client import Counter, Histogram

from contender.contracts.inference_service import ModelVersion
from services.ab_router.clients import CallError
from services.ab_router.rows import AssignedRow, RowResult, UnansweredRow
from services.ab_router.scoring import Scorer
from services.ab_router.settings import RouterSettings
from shared.errors import Overloaded
from shared.logs import logger
from shared.microbatch import MicroBatcher

_LOG = logger(__name__)
_LEFT_ALONE = UnansweredRow("the model has failed just now and is tried again shortly")
BATCH_ROWS = Histogram(
    "contender_batch_rows", "Rows in a micro-batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
BREAKER_OPENED = Counter(
    "contender_breaker_opened_total",
    "Times that a version's calls were suspended after a timeout or repeated failures",
    ["model"],
)


class VersionQueue:
    """The rows that wait for one version. Its micro-batches carry rows of this version alone."""

    def __init__(self, version: ModelVersion, scorer: Scorer, settings: RouterSettings) -> None:
        self._version = version
        self._scorer = scorer
        self._breaker = scorer.new_breaker()
        self.batcher = MicroBatcher[AssignedRow, RowResult](
            self._send,
            senders=settings.senders,
            batch_limit=settings.batch_limit,
            queue_limit=settings.queue_limit,  # admission keeps the queues within their bounds
            weigh=lambda row: row.size_bytes,
            weight_limit=settings.body_limit_bytes,
        )

    async def _send(self, rows: list[AssignedRow]) -> Sequence[RowResult]:
        BATCH_ROWS.observe(len(rows))
        permission = self._breaker.permission()
        if permission == "ask":
            return await self._ask(rows)
        results: list[RowResult] = []
        if permission == "try":
            with suppress(CallError):  # it hangs: the trial goes on without its caller
                results += await self._breaker.trial(lambda: self._ask(rows[:1]))
            if results and not self._breaker.is_open and rows[1:]:
                results += await self._ask(rows[1:])
        return results + [_LEFT_ALONE] * (len(rows) - len(results))

    async def _ask(self, rows: list[AssignedRow]) -> list[RowResult]:
        was_open = self._breaker.is_open
        try:
            return await self._scorer.score(self._version, rows, self._breaker)
        finally:
            if self._breaker.is_open != was_open:
                self._note_change()

    def _note_change(self) -> None:
        names = {"model": self._version.model, "version": self._version.version[:12]}
        if self._breaker.is_open:
            BREAKER_OPENED.labels(self._version.model).inc()
            _LOG.warning("a version does not answer, and is only tried now and then", **names)
        else:
            _LOG.info("a version answers again", **names)


class VersionQueues:
    """The queues by model and version: opened when first needed, and dropped when idle to make room for others."""

    def __init__(self, scorer: Scorer, settings: RouterSettings) -> None:
        self._scorer = scorer
        self._settings = settings
        self._queues: dict[tuple[str, str], VersionQueue] = {}

    async def drain(self) -> None:
        """Return when every row that waits has its result."""
        await asyncio.gather(*(queue.batcher.drain() for queue in self._queues.values()))

    async def ask(
        self, version: ModelVersion, rows: Sequence[AssignedRow], waiting_limit: int | None = None
    ) -> list[RowResult]:
        """One result per row, in order. The caller sets the deadline, and how many rows may wait.

        Raises:
            Overloaded: too many rows wait for the version, or too many versions are busy.
        """
        batcher = self._queue(version).batcher
        if waiting_limit is not None and batcher.waiting + len(rows) > waiting_limit:
            raise Overloaded("too many rows wait for this version")
        return await batcher.submit_all(rows)

    def _queue(self, version: ModelVersion) -> VersionQueue:
        name = (version.model, version.version)
        queue = self._queues.pop(name, None)
        if queue is None:
            self._make_room()
            queue = VersionQueue(version, self._scorer, self._settings)
        self._queues[name] = queue  # the one that was used last comes last
        return queue

    def _make_room(self) -> None:
        """Drop the queue that has been idle longest, if the limit is reached."""
        if len(self._queues) < self._settings.version_limit:
            return
        idle = next((name for name, queue in self._queues.items() if queue.batcher.is_idle), None)
        if idle is None:
            raise Overloaded("more models are busy than are served at once")
        del self._queues[idle]
