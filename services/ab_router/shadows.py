"""Scores answered rows by the other variants, in shadow: after the answer has gone, and never in its way.

Where an outcome would be the same under any answer, two scores of one row tell more than scores of two rows.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from services.ab_router.queues import VersionQueues
from services.ab_router.rows import RejectedRow, RowResult, ScoredRow, UnansweredRow
from services.ab_router.scoring import Scorer
from services.ab_router.settings import RouterSettings
from services.ab_router.shadow_writer import ShadowRow, ShadowScore, ShadowWriter, count_shadows
from shared.clock import Clock
from shared.errors import Overloaded
from shared.ids import PredictionId
from shared.journal import Journal
from shared.logs import logger

_LOG = logger(__name__)
_BATCH_ROWS = 256
"""Rows in a micro-batch, of which each version gets one at a time: answers hardly wait behind it."""
_LINGER_S = 0.05
"""How long rows are collected before they are scored: nobody waits, and large batches are in the answers' way least."""

_LATE = UnansweredRow("the version does not answer in time")


class Shadows:
    """Scores and records a share of the answered rows of experiments in shadow, or whose outcomes no answer changes.

    The champion's rows are scored by every challenger, and a challenger's by the champion. Rows for which there is no
    room are dropped.

    Args:
        scorer: another one than that of the answers, so that features that fail here are still served there.
        journal: where the scores are written.
        clock: the time in frame ids.
        settings: the limits.
        note_latency: counts rows that a model's version has scored, with the seconds that it took; a row without an
            answer takes the whole deadline.
        draw: a random number in [0, 1), another one for each row.
    """

    def __init__(
        self,
        scorer: Scorer,
        journal: Journal,
        clock: Clock,
        settings: RouterSettings,
        *,
        note_latency: Callable[[str, str, float, int], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._queues = VersionQueues(scorer, settings.model_copy(update={"senders": 1, "batch_limit": _BATCH_ROWS}))
        self._writer = ShadowWriter(journal, clock, settings.shadow_limit)
        self._settings = settings
        self._note_latency = note_latency
        self._draw = draw
        self._rows_under_way = 0
        self._bytes_under_way = 0
        self._waiting: dict[tuple[str, str, str], list[ShadowRow]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, results: Sequence[ScoredRow | RejectedRow], prediction_ids: Sequence[PredictionId | None]) -> None:
        """Score rows whose predictions are on disk, in the background."""
        for result, prediction_id in zip(results, prediction_ids, strict=True):
            if isinstance(result, ScoredRow) and prediction_id and self._is_drawn(result):
                for row in _shadow_rows(result, prediction_id):
                    self._collect(row)

    def _collect(self, row: ShadowRow) -> None:
        if not self._admit(row):
            count_shadows([row], "dropped")
            return
        key = (row.assigned.model.name, row.experiment.name, row.variant.name)
        if key in self._waiting:
            self._waiting[key].append(row)
            return
        self._waiting[key] = [row]
        task = asyncio.create_task(self._score_collected(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _score_collected(self, key: tuple[str, str, str]) -> None:
        await asyncio.sleep(_LINGER_S)
        rows = self._waiting.pop(key)
        for start in range(0, len(rows), _BATCH_ROWS):
            await self._score(rows[start : start + _BATCH_ROWS])

    async def drain(self) -> None:
        """Return when every row that waits is scored and written, or given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._queues.drain()

    def _is_drawn(self, row: ScoredRow) -> bool:
        """Whether a row is sampled among those that their own variant answered and whose labels count."""
        experiment, variant = row.assigned.experiment, row.assigned.variant
        if experiment is None or variant is None or not row.assigned.counts:
            return False
        if not experiment.shadow and experiment.outcome != "independent of the answer":
            return False
        is_own = row.served_variant == variant.name
        return is_own and row.label_probability > 0 and self._draw() < experiment.shadow_share

    def _admit(self, row: ShadowRow) -> bool:
        """Count a row as under way, if there is room for it."""
        limits, size = self._settings, row.assigned.size_bytes
        if self._rows_under_way >= limits.shadow_limit or self._bytes_under_way + size > limits.shadow_limit_bytes:
            return False
        self._rows_under_way += 1
        self._bytes_under_way += size
        return True

    async def _score(self, rows: Sequence[ShadowRow]) -> None:
        """Score and record rows of the same variant; whatever fails, they give up their room."""
        try:
            results = list(zip(rows, await self._ask(rows), strict=True))
            count_shadows([row for row, result in results if isinstance(result, RejectedRow)], "rejected")
            count_shadows([row for row, result in results if isinstance(result, UnansweredRow)], "unanswered")
            await self._writer.write(
                [
                    ShadowScore(row, result.score, result.label)
                    for row, result in results
                    if isinstance(result, ScoredRow)
                ]
            )
        except Exception:  # noqa: BLE001 - logged here: the batches behind this one must be scored and leave, too
            _LOG.exception("rows could not be scored in shadow", rows=len(rows), variant=rows[0].variant.name)
        finally:
            self._rows_under_way -= len(rows)
            self._bytes_under_way -= sum(row.assigned.size_bytes for row in rows)

    async def _ask(self, rows: Sequence[ShadowRow]) -> list[RowResult]:
        version = rows[0].assigned.model.versions[rows[0].variant.version]
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        deadline_s = self._settings.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                results = await self._queues.ask(version, [row.assigned for row in rows])
        except (TimeoutError, Overloaded):
            results = [_LATE] * len(rows)
        seconds = loop.time() - asked_at
        unanswered = sum(isinstance(result, UnansweredRow) for result in results)
        if unanswered < len(rows):
            self._note_latency(version.model, version.version, seconds, len(rows) - unanswered)
        if unanswered:  # a breaker turns them away at once, which must not make a version that hangs look fast
            self._note_latency(version.model, version.version, max(seconds, deadline_s), unanswered)
        return results


def _shadow_rows(row: ScoredRow, prediction_id: PredictionId) -> list[ShadowRow]:
    """A row for each variant that shall score it: all others for the champion's, the champion for a challenger's."""
    experiment, own = row.assigned.experiment, row.assigned.variant
    if experiment is None or own is None:
        return []
    return [
        ShadowRow(row.assigned, prediction_id, experiment, variant)
        for variant in experiment.variants
        if variant.name != own.name and experiment.champion in (variant.name, own.name)
    ]
