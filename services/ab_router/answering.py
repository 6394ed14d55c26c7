"""Who answers a row: the version it is assigned, else its experiment's champion, else the fallback value."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from prometheus_client import Counter

from contender.contracts.inference_service import ModelVersion
from contender.contracts.tasks import task_named
from services.ab_router.queues import VersionQueues
from services.ab_router.rows import AssignedRow, RejectedRow, RowResult, ScoredRow, UnansweredRow
from shared.errors import Overloaded

_CHALLENGER_LATE = UnansweredRow("the challenger does not answer in time")
REFUSED = Counter("contender_refusals_total", "Rows that a version refused", ["model", "variant"])


class Answering:
    """Asks versions for rows.

    Args:
        queues: one for each version.
        challenger_queue_limit: most rows that wait for a challenger; beyond it its champion is asked at once.
        challenger_deadline_s: longest that rows wait for a challenger before its champion is asked.
    """

    def __init__(self, queues: VersionQueues, challenger_queue_limit: int, challenger_deadline_s: float) -> None:
        self._queues = queues
        self._challenger_queue_limit = challenger_queue_limit
        self._challenger_deadline_s = challenger_deadline_s

    async def answer(self, rows: Sequence[AssignedRow]) -> list[RowResult]:
        """One result per row, in order; rows of different versions wait side by side. The caller sets the deadline.

        Raises:
            Overloaded: more models are busy than are served at once.
        """
        groups: dict[tuple[str, str], list[int]] = {}
        for index, row in enumerate(rows):
            substitute = row.substitute
            groups.setdefault((row.version.version, substitute.version if substitute else ""), []).append(index)
        if len(groups) == 1:
            return await self._answer_by_version(rows)
        results: dict[int, RowResult] = {}

        async def answer_group(indices: list[int]) -> None:
            results.update(zip(indices, await self._answer_by_version([rows[at] for at in indices]), strict=True))

        tasks = [asyncio.create_task(answer_group(indices)) for indices in groups.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one fails, nobody waits for the others
                task.cancel()
        return [results[index] for index in range(len(rows))]

    async def _answer_by_version(self, rows: Sequence[AssignedRow]) -> list[RowResult]:
        """Results of rows that share a version and a substitute."""
        version, substitute = rows[0].version, rows[0].substitute
        if substitute is None:
            results = await self._queues.ask(version, rows)
        else:
            results = await self._ask_challenger(version, rows)
            failed = [index for index, result in enumerate(results) if not isinstance(result, ScoredRow)]
            if failed:
                _count_refusals(rows, results)
                substitutes = await self._queues.ask(substitute, [rows[index] for index in failed])
                for index, result in zip(failed, substitutes, strict=True):
                    results[index] = _after_challenger(results[index], result)
        _count_refusals(rows, results)
        return [
            _fallback(row) or result if isinstance(result, UnansweredRow) else result
            for row, result in zip(rows, results, strict=True)
        ]

    async def _ask_challenger(self, version: ModelVersion, rows: Sequence[AssignedRow]) -> list[RowResult]:
        try:
            async with asyncio.timeout(self._challenger_deadline_s):
                return await self._queues.ask(version, rows, self._challenger_queue_limit)
        except (TimeoutError, Overloaded):
            return [_CHALLENGER_LATE] * len(rows)


def _after_challenger(from_challenger: RowResult, from_champion: RowResult) -> RowResult:
    """The result of a row that its challenger did not score.

    A row that the champion rejects is refused, unless its challenger did not answer: it may score the row later.
    """
    if isinstance(from_champion, RejectedRow) and isinstance(from_challenger, UnansweredRow):
        return from_challenger
    return from_champion


def _fallback(row: AssignedRow) -> ScoredRow | None:
    """The fallback value of the row's experiment."""
    experiment = row.experiment
    if experiment is None or row.variant is None or experiment.fallback_value is None:
        return None
    version, score = row.version, experiment.fallback_value
    label = task_named(version.task).fallback_label(score, version.classes)
    latency_ms = round((perf_counter() - row.arrived) * 1e3, 3)
    return ScoredRow(row, version, None, score, label, {}, {}, degraded=True, latency_ms=latency_ms)


def _count_refusals(rows: Sequence[AssignedRow], results: Sequence[RowResult]) -> None:
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, RejectedRow):
            REFUSED.labels(row.model.name, row.variant_label).inc()
