"""The join of one partition after the other, in this process: rows per second of one core, and bytes per prediction.

A record costs what it costs the worker: its value is decoded, joined and flushed into the worker's own tables on disk
(RocksDB), and the snapshots of its experiment are encoded. What Faust and Kafka's client add is not in it. The
processor time of all threads of this process counts, so that other processes do not; the control decodes the same
values and does nothing else.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from services.feedback_service.changes import Write
from services.feedback_service.join import Join, Limits, PartitionJoin, SourceOffset
from services.feedback_service.tables import LocalTables
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.topics import FEEDBACK, PREDICTIONS

FRAME_ROWS = 100
PARTITIONS = 4
FRAMES = 2_000
FLUSH_S, PUBLISH_S = 1.0, 0.5
"""How often the worker flushes and publishes, by its own defaults; here in processor time, as on a core of its own."""

SPREAD_FRAMES = 10
"""Reports come in an order that mixes the rows of so many frames: labels do not come batch by batch."""

WINDOW_S = 3_600.0
_INPUTS = ("distance", "hour", "month", "delay_mean_1h", "delay_mean_24h", "departures_1h", "age", "seats")


@dataclass(frozen=True, slots=True)
class Record:
    """A record's value with its partition, offset and frame id."""

    partition: int
    offset: int
    frame_id: str
    value: bytes


@dataclass
class Measured:
    """A joined topic: its rows, and processor seconds."""

    rows: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    written: int = 0

    @property
    def rows_per_s(self) -> float:
        """Rows per second of processor time."""
        return self.rows / self.cpu_s


@dataclass
class JoinBench:
    """A worker's partitions without its topics.

    Args:
        folder: where the tables are.
    """

    folder: Path
    _tables: LocalTables = field(init=False)
    _join: Join = field(init=False)

    def __post_init__(self) -> None:
        self._tables = LocalTables(self.folder)
        self._join = Join(self._tables.partition, Limits())
        self._join.assign(range(PARTITIONS))

    def apply(self, records: Sequence[Record], apply: Callable[[PartitionJoin, Record], None]) -> Measured:
        """Apply records, with flushes and publications as often as the worker makes them."""
        measured = Measured()
        began, used = time.perf_counter(), time.process_time()
        flushed = published = used
        for record in records:
            apply(self._join.partitions[record.partition], record)
            now = time.process_time()
            if now - published >= PUBLISH_S:
                self._publish()
                published = now
            if now - flushed >= FLUSH_S:
                measured.written += self._flush(record.offset)
                flushed = now
        measured.written += self._flush(len(records))
        measured.cpu_s, measured.wall_s = time.process_time() - used, time.perf_counter() - began
        measured.rows = len(records) * FRAME_ROWS
        return measured

    def table_bytes(self) -> int:
        """Bytes of all entries that the tables hold, keys and values, before RocksDB compresses them."""
        tables = [self._tables.partition(number) for number in range(PARTITIONS)]
        return sum(len(key) + len(value) for table in tables for key, value in table.scan(b""))

    def close(self) -> None:
        """Close the tables."""
        self._tables.close_all()

    def _flush(self, offset: int) -> int:
        written = 0
        for number, partition in self._join.partitions.items():
            writes: list[Write] = partition.flush()
            self._tables.partition(number).write(writes, offset)
            partition.flushed()
            written += sum(len(key) + len(value or b"") for key, value in writes)
        return written

    def _publish(self) -> None:
        for partition in self._join.partitions.values():
            for update in partition.aggregates.updates(1):
                msgspec.msgpack.encode((update.headers, update.fields))


def apply_predictions(partition: PartitionJoin, record: Record) -> None:
    """Decode and record a frame of predictions."""
    frame = PREDICTIONS.decode(record.value)
    partition.record_predictions(record.frame_id, frame, SourceOffset(record.offset, time.time()))


def apply_feedback(partition: PartitionJoin, record: Record) -> None:
    """Decode and record a frame of reports."""
    partition.record_feedback(FEEDBACK.decode(record.value), SourceOffset(record.offset, time.time()))


def measure_join(frames: int) -> dict[str, Any]:
    """Predictions, then reports on all of them: rows per second, and what an open prediction adds to the tables."""
    predictions = list(prediction_records(frames))
    feedback = list(feedback_records(predictions))
    with TemporaryDirectory(prefix="contender-join-") as folder:
        bench = JoinBench(Path(folder))
        before = bench.table_bytes()
        controls = [_control(lambda: [PREDICTIONS.decode(record.value) for record in predictions])]
        joined = bench.apply(predictions, apply_predictions)
        open_bytes = bench.table_bytes() - before
        controls.append(_control(lambda: [FEEDBACK.decode(record.value) for record in feedback]))
        labelled = bench.apply(feedback, apply_feedback)
        labelled_bytes = bench.table_bytes() - before
        bench.close()
    rows = joined.rows
    return {
        "predictions_per_s": joined.rows_per_s,
        "feedback_per_s": labelled.rows_per_s,
        "bytes_per_open_prediction": open_bytes / rows,
        "bytes_per_labelled_prediction": labelled_bytes / rows,
        "changelog_bytes_per_prediction": joined.written / rows,
        "changelog_bytes_per_report": labelled.written / rows,
        "record_bytes_per_prediction": sum(len(record.value) for record in predictions) / rows,
        "predictions_per_wall_s": rows / joined.wall_s,
        "feedback_per_wall_s": rows / labelled.wall_s,
        "predictions_vs_decode": joined.cpu_s / controls[0],
        "feedback_vs_decode": labelled.cpu_s / controls[1],
        "predictions_decoded_per_s": rows / controls[0],
        "feedback_decoded_per_s": rows / controls[1],
    }


def prediction_records(frames: int) -> Iterator[Record]:
    """Frames as a router writes them: half of the rows for each variant of one experiment."""
    chance = random.Random(7)  # noqa: S311 - data, no secret
    for number in range(frames):
        now = time.time()
        blocks = [_block(chance, variant, now) for variant in ("champion", "challenger")]
        value = PREDICTIONS.encode(PredictionFrame(blocks))
        yield Record(number % PARTITIONS, number // PARTITIONS, new_frame_id(now), value)


def feedback_records(predictions: Sequence[Record]) -> Iterator[Record]:
    """One report on each row, in frames of FRAME_ROWS whose rows come from SPREAD_FRAMES frames of one partition."""
    chance = random.Random(8)  # noqa: S311 - data, no secret
    for partition in range(PARTITIONS):
        frames = [record.frame_id for record in predictions if record.partition == partition]
        offset = 0
        for first in range(0, len(frames), SPREAD_FRAMES):
            near = frames[first : first + SPREAD_FRAMES]
            events = [
                FeedbackGiven(frame_id, row, int(chance.random() < 0.3), time.time() + 1.0)  # noqa: PLR2004
                for frame_id in near
                for row in range(FRAME_ROWS)
            ]
            chance.shuffle(events)
            for start in range(0, len(events), FRAME_ROWS):
                value = FEEDBACK.encode(FeedbackFrame(events[start : start + FRAME_ROWS]))
                yield Record(partition, offset, new_frame_id(time.time()), value)
                offset += 1


def _block(chance: random.Random, variant: str, now: float) -> PredictionBlock:
    rows = FRAME_ROWS // 2
    scores = [chance.random() for _ in range(rows)]
    return PredictionBlock(
        model="m",
        version=f"v-{variant}",
        task="binary",
        classes=[0, 1],
        experiment="join",
        revision=1,
        epoch=1,
        window_s=WINDOW_S,
        clock="wall",
        variant=variant,
        served_variant=variant,
        assignment_probability=0.5,
        unit=[f"customer-{chance.randrange(100_000)}" for _ in range(rows)],
        time=[now] * rows,
        score=scores,
        label=[int(score > 0.5) for score in scores],  # noqa: PLR2004
        inputs={name: [round(chance.gauss(40.0, 9.0), 3) for _ in range(rows)] for name in _INPUTS},
        degraded=[False] * rows,
        latency_ms=[1.5] * rows,
    )


def _control(decode: Callable[[], object]) -> float:
    """Processor seconds of decoding alone."""
    used = time.process_time()
    decode()
    return time.process_time() - used
