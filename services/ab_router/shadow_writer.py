"""Writes scores in shadow: many calls' scores in a frame for each partition, after those of their predictions."""

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.values import Scalar, Score
from services.ab_router.rows import AssignedRow
from shared.clock import Clock
from shared.errors import JournalFull, RecordTooLarge
from shared.events import PredictionFrame, ShadowBlock
from shared.ids import PredictionId, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.microbatch import MicroBatcher
from shared.topics import PREDICTIONS, cloud_event_headers, split

SHADOWS = Counter(
    "contender_shadow_rows_total",
    "Rows that another variant was to score in shadow, by what became of them: written, rejected, unanswered, dropped",
    ["model", "variant", "result"],
)
_JOURNAL_SHARE = 0.5
"""How much of the journal may be in use before shadow scores are dropped: the rest is for answers."""


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """A row that was answered, its prediction, and the other variant of its experiment that shall score it."""

    assigned: AssignedRow
    prediction_id: PredictionId
    experiment: ExperimentRevision
    variant: VariantAllocation


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """What the other variant would have answered."""

    row: ShadowRow
    score: Score
    label: Scalar


class ShadowWriter:
    """Writes scores to the partitions of their predictions; a journal that is half full drops them.

    Args:
        journal: where to.
        clock: the time in frame ids.
        queue_limit: most scores that wait; the caller keeps to it.
    """

    def __init__(self, journal: Journal, clock: Clock, queue_limit: int) -> None:
        self._journal = journal
        self._clock = clock
        self._batcher = MicroBatcher[ShadowScore, None](self._send, senders=1, queue_limit=queue_limit)

    async def write(self, scores: Sequence[ShadowScore]) -> None:
        """Return when the scores are on disk, or dropped."""
        await self._batcher.submit_all(scores)

    async def _send(self, scores: list[ShadowScore]) -> list[None]:
        shards: dict[int, list[ShadowScore]] = {}
        for score in scores:
            shards.setdefault(score.row.prediction_id.shard, []).append(score)
        is_written = False
        if self._journal.unsent_bytes <= _JOURNAL_SHARE * self._journal.limit_bytes:
            is_written = await self._append([record for shard in shards.items() for record in self._records(*shard)])
        count_shadows([score.row for score in scores], "written" if is_written else "dropped")
        return [None] * len(scores)

    async def _append(self, records: Sequence[JournalRecord]) -> bool:
        try:
            self._journal.append_all(records)
            await self._journal.flush()
        except (JournalFull, RecordTooLarge):
            return False
        return True

    def _records(self, shard: int, scores: Sequence[ShadowScore]) -> Iterator[JournalRecord]:
        for part in split(scores, _encoded):
            frame_id = new_frame_id(self._clock.now())
            headers = cloud_event_headers(PREDICTIONS, frame_id)
            yield JournalRecord(PREDICTIONS.name, shard, frame_id.encode(), headers, part.encoded)


def count_shadows(rows: Sequence[ShadowRow], result: str) -> None:
    """Count what became of rows."""
    kinds = Tally((row.assigned.model.name, row.variant.name) for row in rows)
    for (model, variant), number in kinds.items():
        SHADOWS.labels(model, variant, result).inc(number)


def _encoded(scores: Sequence[ShadowScore]) -> bytes:
    """The frame of some scores, with a block for each frame of predictions and variant."""
    groups: dict[tuple[str, str, int, str], list[ShadowScore]] = {}
    for score in scores:
        row, experiment = score.row, score.row.experiment
        key = (row.prediction_id.frame_id, experiment.name, row.assigned.assignment.epoch, row.variant.name)
        groups.setdefault(key, []).append(score)
    return PREDICTIONS.encode(PredictionFrame([], shadows=[_block(group) for group in groups.values()]))


def _block(scores: Sequence[ShadowScore]) -> ShadowBlock:
    first = scores[0].row
    return ShadowBlock(
        frame_id=first.prediction_id.frame_id,
        experiment=first.experiment.name,
        epoch=first.assigned.assignment.epoch,
        champion=first.experiment.champion,
        variant=first.variant.name,
        version=first.variant.version,
        row=[score.row.prediction_id.row for score in scores],
        score=[score.score for score in scores],
        label=[score.label for score in scores],
    )
