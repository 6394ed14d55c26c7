"""The join: whatever the interleaving, the repetitions and the crashes, the same topics give the same numbers."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import inf

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contender.contracts.feedback_service import Counts
from contender.contracts.values import FEEDBACK_KINDS, LABEL_KINDS, OUTCOME
from services.feedback_service.changes import InMemoryTable
from services.feedback_service.domain.cells import Cell, CellEntry
from services.feedback_service.domain.entries import CHUNK_ROWS, BlockEntry, decode_frame, frame_entry, row_groups
from services.feedback_service.domain.keys import DAYS, GROUP_BYTES, TOTALS, frame_key, with_expiry
from services.feedback_service.domain.publishing import PendingUpdates
from services.feedback_service.domain.reports import HISTORY_LIMIT, VERSIONS_LIMIT
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.snapshots import PartitionSnapshot, SumsSnapshot, snapshot_groups
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.score_histogram import BINS
from services.feedback_service.domain.sums.units import BUCKETS
from services.feedback_service.join import Join, Limits, PartitionJoin, SourceOffset
from shared.events import (
    FeedbackFrame,
    FeedbackGiven,
    PredictionBlock,
    PredictionFrame,
    ShadowBlock,
    UnansweredBlock,
)
from shared.topics import LARGEST_RECORD_BYTES

WINDOW_S = 100.0
SHARES = {"conversion": "conversion", "complaint": "complaint_rate", "shown": "shown_rate"}
Record = tuple[str, SourceOffset, str, PredictionFrame | FeedbackFrame]


def block(variant="champion", rows=2, at=0.0, **changes) -> PredictionBlock:
    fields = {
        "model": "m",
        "version": f"v-{variant}",
        "task": "binary",
        "classes": [0, 1],
        "experiment": "e",
        "window_s": WINDOW_S,
        "variant": variant,
        "served_variant": variant,
        "unit": [f"u{at}-{number}" for number in range(rows)],
        "time": [at + number for number in range(rows)],
        "score": [0.1 + 0.7 * number / rows for number in range(rows)],
    }
    return PredictionBlock(**{**fields, **changes})


def joined(limits: Limits | None = None, predictions_end: float = 0) -> Join:
    tables = [InMemoryTable(), InMemoryTable()]
    join = Join(tables.__getitem__, limits)
    join.assign([0, 1])
    for partition in join.partitions.values():
        partition.predictions_end = predictions_end
    return join


def catch_up(join: Join, asked_at: float = inf) -> None:
    """Kafka is asked where the topics end, and everything has been read."""
    requests = {number: joined.aggregates.request_ends(asked_at) for number, joined in join.partitions.items()}
    for number, request in requests.items():
        aggregates = join.partitions[number].aggregates
        aggregates.note_ends(request, aggregates.marks.predictions + 1, aggregates.marks.feedback + 1)


def flush(join: Join, partition=0, **limits) -> list:
    """Make everything durable, and return what was written."""
    writes = join.partitions[partition].flush(**limits)
    join.partitions[partition].table.local.write(writes)
    join.partitions[partition].flushed()
    return writes


def apply(join: Join | PartitionJoin, record: Record, partition: int = 0) -> None:
    topic, at, frame_id, frame = record
    join = join.partitions[partition] if isinstance(join, Join) else join
    if topic == "predictions":
        join.record_predictions(frame_id, frame, at)
    else:
        join.record_feedback(frame, at)


def numbers(join: Join, partition=0) -> PartitionSnapshot:
    """The partition as readers see it once everything is published; nothing counts as published by it."""
    aggregates = join.partitions[partition].aggregates
    pending = PendingUpdates(partition, aggregates.experiments)
    groups = []
    for name in sorted(aggregates.experiments):
        update = pending.update(aggregates.experiments[name], aggregates._cell)
        groups += snapshot_groups(update.headers, update.changed, update.days)
    return PartitionSnapshot(aggregates.status(0.0), groups)


def unanswered(variant="champion", rows=2, at=0.0, **changes) -> UnansweredBlock:
    given = {
        "model": "m",
        "task": "binary",
        "experiment": "e",
        "epoch": 0,
        "window_s": WINDOW_S,
        "variant": variant,
        "unit": [f"u{at}-{number}" for number in range(rows)],
        "time": [at + number for number in range(rows)],
        "reason": ["failed"] * rows,
    }
    return UnansweredBlock(**{**given, **changes})


def predictions(frame_id: str, *blocks: PredictionBlock, unanswered=(), offset=0, **sent) -> Record:
    return "predictions", SourceOffset(offset, **sent), frame_id, PredictionFrame(list(blocks), list(unanswered))


def shadow(frame_id="f", variant="challenger", rows=(0, 1), **changes) -> ShadowBlock:
    given = {
        "frame_id": frame_id,
        "experiment": "e",
        "epoch": 0,
        "champion": "champion",
        "variant": variant,
        "version": f"v-{variant}",
        "row": list(rows),
        "score": [0.95 - 0.01 * row for row in rows],
    }
    return ShadowBlock(**{**given, **changes})


def shadows(*blocks: ShadowBlock, offset=1, **sent) -> Record:
    return "predictions", SourceOffset(offset, **sent), "shadows", PredictionFrame([], shadows=list(blocks))


def feedback(*events: tuple, offset=0, **sent) -> Record:
    return "feedback", SourceOffset(offset, **sent), "", FeedbackFrame([FeedbackGiven(*event) for event in events])


@dataclass
class Worker:
    """A worker that reads both topics in any interleaving, flushes and crashes in the middle of a flush."""

    topics: dict[str, list[Record]]
    chance: random.Random
    table: InMemoryTable = field(default_factory=InMemoryTable)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.join = Join(lambda _: self.table)
        self.join.assign([0])
        aggregates = self.join.partitions[0].aggregates
        marks, intent = aggregates.marks, aggregates.intent
        self.next = {"predictions": marks.predictions + 1, "feedback": marks.feedback + 1}
        self.known = {"predictions": intent.predictions + 1, "feedback": intent.feedback + 1}
        """The offsets of the next records when they were last read, by a worker that crashed too."""

    def step(self) -> bool:
        """Read the next record of either topic; false when there is none."""
        unread = [topic for topic, records in self.topics.items() if self.next[topic] < len(records)]
        if not unread:
            return False
        topic = self.chance.choice(unread)
        apply(self.join, self.topics[topic][self.next[topic]])
        self.next[topic] += 1
        return True

    def ask_ends(self, asked_at: float) -> None:
        """Kafka is asked where the topics end: more records may be there than this worker has read."""
        aggregates = self.join.partitions[0].aggregates
        ends = {
            topic: self.chance.randint(max(self.next[topic], self.known[topic]), len(records))
            for topic, records in self.topics.items()
        }
        aggregates.note_ends(aggregates.request_ends(asked_at), **ends)

    def finish(self) -> PartitionSnapshot:
        """Flush after everything was read, and read the table again."""
        catch_up(self.join)
        self.flush()
        self.start()
        return numbers(self.join)

    def flush(self, durable: float = 1.0) -> None:
        """Write the beginning of a flush, by default all of it."""
        writes = self.join.partitions[0].flush()
        kept = round(len(writes) * durable)
        self.table.write(writes[:kept])
        if kept == len(writes):
            self.join.partitions[0].flushed()

    def run(self) -> PartitionSnapshot:
        """Read everything, with flushes and crashes on the way."""
        while self.step():
            if self.chance.random() < 0.3:
                self.ask_ends(self.chance.choice([inf, 86_700.0, 86_900.0]))
            if self.chance.random() < 0.3:
                self.flush()
            if self.chance.random() < 0.2:
                self.flush(self.chance.random())
                self.start()
        return self.finish()


def at_rest(snapshot: PartitionSnapshot) -> PartitionSnapshot:
    """The snapshot without what says when cohorts were folded."""
    groups = [replace(group, watermark=0.0) for group in snapshot.groups]
    return PartitionSnapshot(replace(snapshot.status, caught_up_at=None), groups)


@st.composite
def histories(draw) -> tuple[list[Record], random.Random]:
    design = {
        "clock": draw(st.sampled_from(["wall", "event"])),
        "time_zone": draw(st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"])),
    }
    missing, served = st.sampled_from(["excluded", "negative"]), st.sampled_from(["champion", "challenger"])
    excluded = [
        block("champion", 2, experiment=None, excluded_from="e", exclusion=reason)
        for reason in draw(st.lists(st.sampled_from(["forced", "assignment unreadable"]), max_size=3))
    ]
    frames = [
        predictions(
            f"f{number}",
            block(
                "champion",
                rows := draw(st.integers(1, 3)),
                at=draw(st.floats(86_000, 86_900)),
                missing=draw(missing),
                latency_ms=draw(st.sampled_from([[], [12.5 + number] * rows])),
                label=draw(st.sampled_from([[], [1] * rows])),  # the less likely class, or none recorded
                **design,
            ),
            block(
                "challenger",
                70,
                at=86_390.0 + 100 * number,
                served_variant=draw(served),
                latency_ms=[0.001 * row for row in range(70)],
                degraded=[row % 9 == 0 for row in range(70)],
                **design,
            ),
            *excluded,
            unanswered=[unanswered("challenger", draw(st.integers(1, 3)), at=86_395.0, **design)],
            offset=number,
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    event = st.tuples(
        st.sampled_from(["f0", "f1", "f2", "never"]),
        st.integers(0, 80) | st.integers(0, 4),
        st.sampled_from([0, 1, True, "1", "neither"]),
        st.sampled_from([0.0, 86_450.0, 86_480.0, 86_560.0, 87_100.0, 90_000.0]),
        st.just(""),
        st.sampled_from([OUTCOME, *FEEDBACK_KINDS]),
    )
    reports = [
        feedback(*draw(st.lists(event, min_size=1, max_size=6)), offset=number)
        for number in range(draw(st.integers(0, HISTORY_LIMIT // 6)))  # fewer than a row keeps
    ]
    scored = st.builds(
        shadow,
        st.sampled_from(["f0", "f1", "f2", "never"]),
        st.sampled_from(["champion", "challenger"]),
        st.lists(st.integers(0, 75), min_size=1, max_size=9),
        epoch=st.sampled_from([0, 0, 0, 1]),
    )
    for _ in range(draw(st.integers(0, 4))):  # some before their frame
        frames.insert(draw(st.integers(1, len(frames))), shadows(*draw(st.lists(scored, min_size=1, max_size=4))))
    return [*frames, *reports], random.Random(draw(st.integers(0, 2**32)))


def topics_of(records: list[Record]) -> dict[str, list[Record]]:
    """The records of both topics, at their offsets."""
    topics: dict[str, list[Record]] = {"predictions": [], "feedback": []}
    for topic, _, frame_id, frame in records:
        topics[topic].append((topic, SourceOffset(len(topics[topic])), frame_id, frame))
    return topics


@settings(deadline=None)
@given(histories())
def test_any_interleaving_with_any_crashes_gives_the_same_aggregates(history):
    records, chance = history
    topics = topics_of(records)
    straight = Worker(topics, random.Random(0))
    while straight.step():
        pass
    catch_up(straight.join)
    straight.flush()
    expected = at_rest(numbers(straight.join))
    assert at_rest(Worker(topics, chance).run()) == expected
    assert at_rest(straight.finish()) == expected


@settings(deadline=None)
@given(histories())
def test_every_report_is_accounted_for_exactly_once(history):
    records, chance = history
    sent = sum(len(frame.events) for topic, _, _, frame in records if topic == "feedback")
    assert Worker(topics_of(records), chance).run().counts.reports == sent


@settings(deadline=None)
@given(histories())
def test_days_add_up_to_the_totals_of_their_group(history):
    records, chance = history
    worker = Worker(topics_of(records), chance)
    worker.run()
    totals, days = (matured(worker.table, prefix) for prefix in (TOTALS, DAYS))
    assert totals.keys() == days.keys()
    for group, (total,) in totals.items():
        added = Cell()
        for day in days[group]:
            added.absorb(day)
        assert replace(entry_of(added), folded_until=total.folded_until) == entry_of(total)


def entry_of(cell: Cell) -> CellEntry:
    """The cell as it is stored, whatever it was read from."""
    return msgspec.msgpack.decode(cell.encode(1_000, 1_000), type=CellEntry)


@settings(deadline=None)
@given(histories())
def test_published_days_and_late_rows_are_those_of_the_plainest_count(history):
    records, chance = history
    published: Counter[tuple[str, str]] = Counter()
    for group in Worker(topics_of(records), chance).run().groups:
        if group.paired:
            continue
        assert {day.day for day in group.days} <= {0, 1}
        for cohort in group.cohorts:
            published["late", group.variant] += sum(cohort.late.values())
            published["unanswered", group.variant] += sum(cohort.unanswered.values())
            published["matured", group.variant] += cohort.counts.predictions if cohort.is_matured else 0
        published["matured", group.variant] -= sum(day.rows for day in group.days)
    assert +published == plain_count(records)


def compared(frame: PredictionFrame) -> list[PredictionBlock]:
    """The blocks of rows that count; those that don't come last."""
    return [block for block in frame.blocks if block.experiment]


@settings(deadline=None)
@given(histories())
def test_rows_that_do_not_count_are_counted_by_reason(history):
    records, chance = history
    expected: Counter[str] = Counter()
    for topic, _, _, frame in records:
        for made in frame.blocks if topic == "predictions" else ():
            expected[made.exclusion] += len(made)
    del expected[""]
    snapshot = Worker(topics_of(records), chance).run()
    assert {tuple(sorted(group.excluded.items())) for group in snapshot.groups} == {tuple(sorted(expected.items()))}
    results = results_of("e", None, [snapshot], 0.0).results
    assert results.excluded == expected


def plain_count(records: list[Record]) -> Counter[tuple[str, str]]:
    """Unanswered rows, and those with a label after their window alone, by variant."""
    counts: Counter[tuple[str, str]] = Counter()
    rows: dict[tuple[str, int], tuple[str, float]] = {}
    reports: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _, _, frame_id, frame in records:
        if isinstance(frame, FeedbackFrame):
            for event in frame.events:
                if event.kind == OUTCOME and event.outcome != "neither":
                    reports[event.frame_id, event.row].append(event.given_at)
            continue
        made = [(block.variant, time) for block in compared(frame) for time in block.time]
        rows.update({(frame_id, number): row for number, row in enumerate(made)})
        for block in frame.unanswered:
            counts["unanswered", block.variant] += len(block)
    for key, (variant, time) in rows.items():
        valid = [at for at in reports[key] if at >= time - 2.0]
        counts["late", variant] += bool(valid) and min(valid) > time + WINDOW_S
    return +counts


@settings(deadline=None)
@given(histories())
def test_reports_that_are_no_outcomes_are_those_of_the_plainest_count(history):
    records, chance = history
    published: Counter[tuple[str, str]] = Counter()
    for group in Worker(topics_of(records), chance).run().groups:
        for cohort in [] if group.paired else group.cohorts:
            for name, sums in cohort.ledgers.items():
                published[name, group.variant] += sum(sums.rows.values())
                for metric, totals in sums.totals.items():
                    if metric != "latency_p95":
                        published[metric, group.variant] += sum(v for key, v in totals.items() if key < BUCKETS)
                        continue
                    published[metric, group.variant] += sum(totals.values())
            published["signals", group.variant] += cohort.counts.signals
    expected = plain_signals(records)
    assert {key: value for key, value in published.items() if value} == pytest.approx(expected, rel=1e-6)


def plain_signals(records: list[Record]) -> dict[tuple[str, str], float]:
    """What ledgers hold by variant, from reports other than outcomes and from what is known with the answer."""
    counts: Counter[tuple[str, str]] = Counter()
    rows: dict[tuple[str, int], tuple[str, float, int]] = {}
    reports: dict[tuple[str, int, str], list[tuple[float, int, float | str]]] = defaultdict(list)
    for order, (_, _, frame_id, frame) in enumerate(records):
        if isinstance(frame, FeedbackFrame):
            for number, event in enumerate(frame.events):
                is_number = not isinstance(event.outcome, str | bool)
                is_meant = event.outcome in (0, 1) if event.kind in SHARES else is_number or event.kind in LABEL_KINDS
                if event.kind != OUTCOME and is_meant:
                    report = (event.given_at, 1000 * order + number, event.outcome)
                    reports[event.frame_id, event.row, event.kind].append(report)
            continue
        made = [
            (block.variant, time, label)
            for block in compared(frame)
            for time, label in zip(block.time, block.label or [score > 0.5 for score in block.score], strict=True)
        ]
        rows.update({(frame_id, number): row for number, row in enumerate(made)})
        for made_block in compared(frame):
            counts["served", made_block.variant] += len(made_block)
            counts["degraded_rate", made_block.variant] += sum(made_block.degraded)
            counts["fallback_rate", made_block.variant] += len(made_block) * (
                made_block.served_variant != made_block.variant
            )
            counts["latency", made_block.variant] += sum(made_block.latency_ms)
            counts["latency_p95", made_block.variant] += len(made_block.latency_ms)
    for (frame_id, row, kind), known in reports.items():
        if (frame_id, row) not in rows:
            continue
        variant, time, label = rows[frame_id, row]
        timely = [report for report in known if time - 2.0 <= report[0] <= time + WINDOW_S]
        late = [report for report in known if report[0] > time + WINDOW_S]
        value, later = (max(part)[2] if part else None for part in (timely, late))
        counts["signals", variant] += value is not None
        if kind in SHARES:
            counts[SHARES[kind], variant] += value or 0.0
            counts[f"late {kind}", variant] += bool(later) and not value
        elif kind in LABEL_KINDS:
            counts[kind, variant] += value is not None
            counts["override_rate", variant] += value is not None and str(int(label)) != str(value).replace("True", "1")
            counts[f"late {kind}", variant] += later is not None and value is None
        else:
            counts[kind, variant] += 0.0 if value is None else 1.0 + value  # a row, and its value
            counts[f"late {kind}", variant] += later is not None and value is None
    return {key: value for key, value in counts.items() if value}


@settings(deadline=None)
@given(histories())
def test_pairs_are_those_of_the_plainest_count(history):
    records, chance = history
    found = Counter()
    for group in Worker(topics_of(records), chance).run().groups:
        for cohort in group.cohorts if group.paired else []:
            found[group.variant, "rows"] += cohort.counts.predictions
            for sums in (cohort.labelled, cohort.assumed):
                found[group.variant, "labelled"] += sum(sums.rows.values())
                found[group.variant, "brier"] += sum(sums.totals.get("brier", {}).values())
            agreement = cohort.ledgers["agreement"]
            found[group.variant, "agreement"] += sum(agreement.rows.values())
            for name, totals in agreement.totals.items():
                found[group.variant, name] += sum(totals.values())
    expected = plain_pairs(records)
    assert {key: value for key, value in found.items() if value} == pytest.approx(
        {key: value for key, value in expected.items() if value}
    )


def plain_pairs(records: list[Record]) -> Counter[tuple[str, str]]:
    """Rows in pairs, those that count as labelled, and the sum of the differences in Brier score, by challenger."""
    frames: dict[str, list[tuple[PredictionBlock, int]]] = {}
    outcome = plain_outcomes(records)
    sums: Counter[tuple[str, str]] = Counter()
    seen = set()
    for _, _, frame_id, frame in records:
        if isinstance(frame, FeedbackFrame):
            continue
        if frame.blocks:
            frames[frame_id] = [(served, at) for served in compared(frame) for at in range(len(served))]
        for scored in frame.shadows:
            for row, score in zip(scored.row, scored.score, strict=True):
                if row >= len(frames.get(scored.frame_id, ())):
                    continue
                served, at = frames[scored.frame_id][row]
                key = (scored.frame_id, row)
                if served.variant in {scored.variant, *({"challenger"} - {served.served_variant})} or key in seen:
                    continue
                seen.add(key)
                sums["challenger", "rows"] += 1
                sums["challenger", "agreement"] += 1
                label = served.label[at] if served.label else served.score[at] > 0.5
                sums["challenger", "equal labels"] += label == (score > 0.5)
                sums["challenger", "score difference"] += abs(score - served.score[at])
                came = outcome(key, served.time[at], served.missing)
                if came is not None:
                    sign = 1 if served.variant == "champion" else -1
                    sums["challenger", "labelled"] += 1
                    sums["challenger", "brier"] += sign * ((score - came) ** 2 - (served.score[at] - came) ** 2)
    return sums


def plain_outcomes(records: list[Record]):
    """The outcome of a row by its key, time and what a missing label means."""
    reports: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for _, _, _, frame in records:
        for event in frame.events if isinstance(frame, FeedbackFrame) else []:
            known = reports[event.frame_id, event.row]
            if event.outcome != "neither" and event.kind == OUTCOME:
                spelled = (event.given_at, event.outcome)
                known[:] = [report for report in known if repr(report) != repr(spelled)] + [spelled]

    def outcome(key: tuple[str, int], time: float, missing: str) -> int | None:
        timely = [report for report in reports[key] if time - 2.0 <= report[0] <= time + WINDOW_S]
        newest = max(report[0] for report in timely) if timely else None
        labels = [int(value) for at, value in timely if at == newest]
        return labels[-1] if labels else 0 if missing == "negative" else None

    return outcome


def matured(table: InMemoryTable, prefix: bytes) -> dict[bytes, list[Cell]]:
    """The cells of matured rows by group."""
    cells = defaultdict(list)
    for key, value in table.scan(prefix):
        cells[key[len(prefix) : len(prefix) + GROUP_BYTES]].append(Cell.decode(value))
    return cells


@st.composite
def insistence(draw) -> tuple[list[tuple], list[Record], random.Random]:
    """Many reports for one row, in frames of any size, with their frame of predictions somewhere among them."""
    kind = st.sampled_from([OUTCOME, OUTCOME, "rating"])
    event = st.tuples(
        st.just("f"), st.just(0), st.sampled_from([0, 1, "x"]), st.integers(0, 150).map(float), st.just(""), kind
    )
    events = draw(st.lists(event, min_size=HISTORY_LIMIT - 2, max_size=4 * HISTORY_LIMIT))
    reports: list[Record] = []
    rest = list(events)
    while rest:
        size = draw(st.integers(1, 30))
        reports.append(feedback(*rest[:size], offset=len(reports)))
        rest = rest[size:]
    reports.insert(draw(st.integers(0, len(reports))), predictions("f", block(rows=1)))
    return events, reports, random.Random(draw(st.integers(0, 2**32)))


@settings(deadline=None)
@given(insistence())
def test_what_goes_beyond_the_reports_kept_of_a_row_is_counted_once_whatever_happens(drawn):
    events, records, chance = drawn
    topics = topics_of(records)
    for number in range(0, len(topics["feedback"]), VERSIONS_LIMIT - 1):
        part = {**topics, "feedback": topics["feedback"][: number + VERSIONS_LIMIT - 1]}
        straight = Worker(part, chance)
        while straight.step():
            straight.flush()
        assert Worker(part, chance).run().counts.reports == sum(len(f.events) for _, _, _, f in part["feedback"])
    assert numbers(straight.join).counts == counts_of_one_row(events)


def counts_of_one_row(events: list[tuple]) -> Counts:
    """What becomes of the reports for a row predicted at 0, in the plainest way."""
    total = Counts(predictions=1)
    for kind in (OUTCOME, "rating"):
        kept: list[tuple] = []
        duplicates = refused = 0
        for _, _, outcome, at, _, of in events:
            if of != kind:
                continue
            if (kind, outcome) == ("rating", "x"):
                refused += 1  # no number
                continue
            if (at, outcome) in kept:
                kept.remove((at, outcome))
                duplicates += 1
            kept.append((at, outcome))
            if len(kept) > HISTORY_LIMIT:
                refused += 1
                del kept[HISTORY_LIMIT // 2]
        valid = [at for at, outcome in kept if outcome != "x"]
        timely = [at for at in valid if at <= WINDOW_S]
        total += Counts(
            labelled=bool(timely) and kind == OUTCOME,
            signals=bool(timely) and kind != OUTCOME,
            corrections=max(0, len(timely) - 1),
            late=len(valid) - len(timely),
            refused=refused + len(kept) - len(valid),
            duplicates=duplicates,
        )
    return total


def test_reports_beyond_those_kept_are_counted_where_the_row_belongs():
    many = feedback(*(("f", row, 1, float(at)) for row in (0, 9) for at in range(HISTORY_LIMIT + 5)))
    sent = 2 * HISTORY_LIMIT + 10
    assert counts_after(many).unmatched == sent
    assert counts_after(many, predictions("f", block())).refused == HISTORY_LIMIT + 5 + 5
    assert counts_after(many, predictions("f", block(rows=10, experiment=None))).no_experiment == sent


def test_a_report_that_is_sent_over_and_over_leaves_room_for_a_correction():
    insisting = feedback(*[("f", 0, 0, 5.0)] * 1000)
    join = joined()
    for record in (predictions("f", block(rows=1)), insisting, feedback(("f", 0, 1, 6.0), offset=1)):
        apply(join, record)
    (cohort,) = numbers(join).groups[0].cohorts
    assert positives(cohort.labelled) == 1
    assert (cohort.counts.duplicates, cohort.counts.corrections) == (999, 1)


def test_a_flood_for_one_row_shuts_out_no_label_before_or_after_it():
    flood = [("f", 0, f"forged {number}", 50.0 + number / 1000) for number in range(1000)]
    for events in ([("f", 0, 1, 5.0), *flood], [*flood, ("f", 0, 1, 5.0)]):
        for records in ((predictions("f", block(rows=1)), feedback(*events)),) * 2:
            for order in (records, records[::-1]):
                counts = counts_after(*order)
                assert (counts.labelled, counts.refused, counts.reports) == (1, 1000, 1001)


def test_a_flood_of_ratings_shuts_out_no_outcome():
    flood = [("f", 0, number, 50.0, "", "rating") for number in range(1000)]
    for events in ([("f", 0, 1, 5.0), *flood], [*flood, ("f", 0, 1, 5.0)]):
        counts = counts_after(predictions("f", block(rows=1)), feedback(*events))
        assert (counts.labelled, counts.signals, counts.refused) == (1, 1, 1000 - HISTORY_LIMIT)
        assert (counts.corrections, counts.reports) == (HISTORY_LIMIT - 1, 1001)


def test_equal_values_of_two_kinds_are_no_duplicates():
    counts = counts_after(
        predictions("f", block(rows=1)), feedback(("f", 0, 1, 5.0), *[("f", 0, 1, 5.0, "", "rating")] * 2)
    )
    assert (counts.labelled, counts.signals, counts.duplicates, counts.corrections) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("rating", "4"),
        ("rating", True),
        ("rating", inf),
        ("rating", float("nan")),
        ("reward", 1.1e9),
        ("conversion", "true"),
        ("complaint", 2),
        ("shown", "yes"),
        ("shown", 0.5),
    ],
)
def test_a_report_that_does_not_suit_its_kind_is_refused(kind, value):
    counts = counts_after(predictions("f", block()), feedback(("f", 0, value, 5.0, "", kind)))
    assert (counts.signals, counts.refused, counts.reports) == (0, 1, 1)


def ledgers_after(*records: Record) -> dict[str, SumsSnapshot]:
    join = joined()
    for record in records:
        apply(join, record)
    (cohort,) = numbers(join).groups[0].cohorts
    return cohort.ledgers


def test_a_conversion_adds_one_at_its_bucket_until_it_is_taken_back():
    frame = predictions("f", block(rows=1))
    (bucket,) = ledgers_after(frame)["served"].rows
    seen = []
    for reports in ([True], [True, False], [True, False, True]):
        events = [("f", 0, value, 5.0 + number, "", "conversion") for number, value in enumerate(reports)]
        served = ledgers_after(frame, feedback(*events))["served"]
        assert served.rows == {bucket: 1}
        seen.append(served.totals["conversion"])
    assert seen == [{bucket: 1}, {}, {bucket: 1}]


def test_a_conversion_after_the_window_is_late_unless_there_was_one_within_it():
    frame = predictions("f", block(rows=1))
    within, after = (("f", 0, True, at, "", "conversion") for at in (5.0, 500.0))
    assert sum(ledgers_after(frame, feedback(after))["late conversion"].rows.values()) == 1
    assert "late conversion" not in ledgers_after(frame, feedback(within, after))
    assert "late conversion" not in ledgers_after(frame, feedback(after, ("f", 0, False, 501.0, "", "conversion")))
    taken_back = ("f", 0, False, 6.0, "", "conversion")
    assert "late conversion" in ledgers_after(frame, feedback(within, taken_back, after))


def test_a_day_without_a_conversion_is_a_day_with_a_rate_of_zero():
    join = joined()
    apply(join, predictions("old", block(rows=3, at=0.0, latency_ms=[1.0, 2.0, 6.0])))
    apply(join, predictions("new", block(rows=2, at=10_000.0), offset=1))
    catch_up(join)
    flush(join)
    (day,) = numbers(join).groups[0].days
    assert (day.totals["conversion"], day.totals["latency"]) == ({0: 3.0, 1: 0.0}, {0: 3.0, 1: 9.0})
    assert sum(day.totals["latency_p95"].values()) == 3
    apply(join, feedback(("old", 0, True, 5.0, "", "conversion")))
    (day,) = numbers(join).groups[0].days
    assert day.totals["conversion"] == {0: 3.0, 1: 1.0}


@pytest.mark.parametrize(
    ("answered", "decided", "overrides"),
    [
        ({"classes": ["no", "yes"], "label": ["yes"], "score": [0.2]}, ["yes", "no", "ask", True, 0], [0, 1, 1, 1, 1]),
        ({"classes": ["no", "yes"], "score": [0.2]}, ["yes", "no"], [1, 0]),
        ({"classes": [False, True], "score": [0.7]}, [True, "true", 1, 0], [0, 0, 0, 1]),
        ({"classes": ["a" * 900, "b"], "label": ["a" * 900], "score": [0.2]}, ["a" * 900, "a" * 901], [0, 1]),
        ({"task": "multiclass", "classes": [1, 2, 3], "score": [[0.1, 0.7, 0.2]]}, [2, "2", 3, 9], [0, 0, 1, 1]),
        ({"task": "regression", "classes": [], "score": [3.7]}, [3.7, 3.6999998, "3.7", 3.71], [0, 0, 0, 1]),
    ],
)
def test_a_decision_is_an_override_where_it_is_not_the_label_that_was_answered(answered, decided, overrides):
    seen = []
    for value in decided:
        reports = feedback(("f", 0, value, 5.0, "", "decided"))
        sums = ledgers_after(predictions("f", block(rows=1, **answered)), reports)["decided"]
        assert sum(sums.rows.values()) == 1
        seen.append(sum(sums.totals["override_rate"].values()))
    assert seen == overrides


@pytest.mark.parametrize("outside", [{}, {"excluded_from": "e", "exclusion": "forced"}])
def test_a_report_on_a_row_of_no_experiment_is_counted_whose_frame_is_read_again_after_it(outside):
    frame = predictions("f", block(experiment=None, **outside))
    join = joined()
    apply(join, frame)
    writes = join.partitions[0].flush()
    written = 1 + [key for key, _ in writes].index(frame_key("f"))
    join.partitions[0].table.local.write(writes[:written])  # a crash before the counts
    join.assign([0])
    for record in (feedback(("f", 0, 1, 5.0)), frame):
        apply(join, record)
    counts = numbers(join).counts
    assert (counts.no_experiment, counts.unmatched, counts.reports, counts.labelled) == (1, 0, 1, 0)


def test_an_experiment_of_rows_that_do_not_count_alone_is_kept():
    join = joined()
    tester = block(experiment=None, excluded_from="e", exclusion="forced", request_id=["r", ""])
    apply(join, predictions("f", tester))
    flush(join)
    join.assign([0])
    apply(join, predictions("f", tester))  # read again, and once more in another frame
    apply(join, predictions("g", tester, block(), offset=1))
    (group,) = numbers(join).groups
    assert (group.excluded, group.cohorts[0].counts.predictions) == ({"forced": 4}, 2)
    with pytest.raises(ValueError, match="its names"):
        apply(join, predictions("h", block(experiment=None, excluded_from="e" * 201), offset=2))


def test_a_request_id_takes_no_room_in_what_is_kept():
    plain, named = (frame_entry(predictions("f", block(**ids))[3], 0, 0.0) for ids in ({}, {"request_id": ["a", "b"]}))
    assert plain == named


def test_a_later_decision_takes_the_place_of_an_earlier_one():
    frame = predictions("f", block(rows=1, label=[1]))
    decisions = [("f", 0, value, at, "", "decided") for value, at in ((0, 5.0), (1, 6.0), (0, 500.0))]
    ledgers = ledgers_after(frame, feedback(*decisions))
    assert (sum(ledgers["decided"].rows.values()), sum(ledgers["decided"].totals["override_rate"].values())) == (1, 0)
    counts = counts_after(frame, feedback(*decisions))
    assert (counts.signals, counts.corrections, counts.late, counts.labelled) == (1, 1, 1, 0)


def test_the_newest_rating_within_the_window_counts():
    given = [(4.0, 20.0), (2.0, 30.0), (5.0, 500.0), (1.0, 10.0)]
    ledgers = ledgers_after(
        predictions("f", block(rows=2)), feedback(*(("f", 0, value, at, "", "rating") for value, at in given))
    )
    assert (sum(ledgers["rating"].rows.values()), list(ledgers["rating"].totals["rating"].values())) == (1, [2.0])
    assert "late rating" not in ledgers


def test_rows_without_a_recorded_latency_leave_the_mean_alone():
    ledgers = ledgers_after(predictions("f", block(rows=3, latency_ms=[10.0, float("nan"), 30.0])))
    served = ledgers["served"]
    assert sum(served.rows.values()) == 3
    sums = ClusteredSums.read(served.rows, served.totals["latency"])
    assert (sums.n, sums.mean) == (2, 20.0)
    assert list(ClusteredSums.day_totals(served.rows, served.totals["latency"]).values()) == [2.0, 40.0]
    assert sum(served.totals["latency_p95"].values()) == 2


def test_blocks_of_the_release_before_add_nothing_to_all_answered_rows():
    join = joined()
    apply(join, predictions("f", block(rows=1)))
    flush(join)
    local, key = join.partitions[0].table.local, frame_key("f")
    entry = msgspec.to_builtins(decode_frame(local.get(key)), builtin_types=(bytes,))
    older = [[*fields[:23], 2, *fields[24:25]] for fields in entry[2]]  # with the rules of the release before
    local.write([(key, with_expiry(0.0, msgspec.msgpack.encode([*entry[:2], older])))])
    for offset, kind in enumerate(["conversion", "rating"]):
        apply(join, feedback(("f", 0, 1, 6.0, "", kind), offset=offset))
    (cohort,) = numbers(join).groups[0].cohorts
    assert cohort.ledgers["served"].totals["conversion"] == {}
    assert (cohort.counts.signals, sum(cohort.ledgers["rating"].rows.values())) == (2, 1)


def test_a_flood_of_calls_is_refused_until_the_next_flush_only():
    join = joined()
    apply(join, predictions("f", block(rows=1)))
    for offset in range(100):
        apply(join, feedback(("f", 0, "forged", float(offset)), offset=offset))
    assert numbers(join).counts.refused == 100
    flush(join)
    apply(join, feedback(("f", 0, 1, 9.0), offset=100))
    assert (numbers(join).counts.labelled, numbers(join).counts.refused) == (1, 100)


@pytest.mark.parametrize("text", [chr(0x1F600) * 24, chr(0x1F600) * 96])
def test_a_chunk_of_labels_fits_in_a_record_whatever_is_reported(text):
    join = joined()
    apply(join, predictions("f", block(rows=CHUNK_ROWS)))
    for offset in range(VERSIONS_LIMIT):
        values = {
            kind: [text + f"{i:04}" for i in range(HISTORY_LIMIT + 2)]
            if kind in LABEL_KINDS
            else [1]
            if kind in SHARES
            else [0.1 * i for i in range(HISTORY_LIMIT + 2)]
            for kind in FEEDBACK_KINDS
        }
        events = [
            ("f", row, value, 0.1 + number, "", kind)
            for row in range(CHUNK_ROWS)
            for kind, reported in values.items()
            for number, value in enumerate(HISTORY_LIMIT * reported if kind in SHARES else reported)
        ]
        apply(join, feedback(*events, offset=offset))
    largest = max(len(value or b"") for _, value in join.partitions[0].flush())
    assert largest < LARGEST_RECORD_BYTES


def test_a_class_with_a_long_label_is_reported_by_it():
    long, longer = "a" * 900, "a" * 901
    counts = counts_after(
        predictions("f", block(classes=[long, longer])), feedback(("f", 0, longer, 5.0), ("f", 1, "a" * 902, 5.0))
    )
    assert (counts.labelled, counts.refused) == (1, 1)


def counts_after(*records: Record):
    join = joined()
    for record in records:
        apply(join, record)
    return numbers(join).counts


def test_rows_are_grouped_by_cohort_and_day_in_order():
    times = [86_399.0, -1.0, 0.0, 86_401.0, 59.0, 86_340.0, 86_400.0]
    (entry,) = frame_entry(PredictionFrame([block(rows=7, time=times)]), 0, 0.0).blocks
    groups = [(-1, -1, [1]), (0, 0, [2, 4]), (1439, 0, [0, 5]), (1440, 1, [3, 6])]
    assert row_groups(entry, 60.0) == groups
    assert row_groups(entry, 7_000.0, [6, 5, 3]) == [(12, 0, [5]), (12, 1, [6, 3])]
    assert row_groups(entry, 60.0, [4]) == [(0, 0, [4])]


class CountedArray(np.ndarray):
    """An array that counts the values which numpy's functions read of it and of all that comes from it."""

    reads = 0

    def __array_ufunc__(self, function, method, *inputs, **options):
        plain = [value.view(np.ndarray) if isinstance(value, CountedArray) else value for value in inputs]
        CountedArray.reads += sum(np.size(value) for value in plain)
        result = getattr(function, method)(*plain, **options)
        return result.view(CountedArray) if isinstance(result, np.ndarray) else result


class CountedEntry(BlockEntry):
    @property
    def times(self) -> CountedArray:
        return super().times.view(CountedArray)


def test_the_work_of_grouping_rows_is_in_proportion_to_them_however_many_cohorts_they_have():
    rows = 2_000
    times = [60.0 * row for row in range(rows)]
    (entry,) = frame_entry(PredictionFrame([block(rows=rows, time=times)]), 0, 0.0).blocks
    CountedArray.reads = 0
    assert len(row_groups(CountedEntry(**msgspec.structs.asdict(entry)), 60.0)) == rows
    assert rows < CountedArray.reads < 50 * rows


def test_the_newest_outcome_within_the_window_is_the_label():
    join = joined()
    apply(join, predictions("f", block(rows=1)))
    apply(join, feedback(("f", 0, 0, 20.0), ("f", 0, 1, 30.0), ("f", 0, 0, 101.0), ("f", 0, 0, 10.0)))
    (cohort,) = numbers(join).groups[0].cohorts
    assert positives(cohort.labelled) == 1
    assert (cohort.counts.labelled, cohort.counts.corrections, cohort.counts.late) == (1, 2, 1)


def test_an_outcome_at_the_very_end_of_the_window_is_in_time():
    assert counts_after(predictions("f", block(rows=1)), feedback(("f", 0, 1, WINDOW_S))).labelled == 1


def test_feedback_waits_for_its_prediction():
    early = feedback(("f", 1, 1, 5.0))
    assert counts_after(early).unmatched == 1
    counts = counts_after(early, predictions("f", block()))
    assert (counts.unmatched, counts.labelled) == (0, 1)


def test_a_row_beyond_its_frame_and_an_impossible_outcome_are_refused():
    counts = counts_after(predictions("f", block()), feedback(("f", 2, 1, 5.0), ("f", 999, 1, 5.0), ("f", 0, "x", 5.0)))
    assert (counts.refused, counts.labelled) == (3, 0)


def test_the_same_feedback_in_another_frame_is_a_duplicate():
    counts = counts_after(predictions("f", block()), feedback(("f", 0, 1, 5.0)), feedback(("f", 0, 1, 5.0), offset=1))
    assert (counts.labelled, counts.duplicates, counts.corrections) == (1, 1, 0)


def test_a_second_frame_of_an_id_is_dropped():
    counts = counts_after(predictions("f", block()), predictions("f", block(rows=9), offset=7))
    assert counts.predictions == 2


def test_rows_of_no_experiment_are_counted_but_not_compared():
    counts = counts_after(predictions("f", block(experiment=None)), feedback(("f", 0, 1, 5.0)))
    assert (counts.predictions, counts.no_experiment, counts.labelled) == (2, 1, 0)


def test_another_partition_with_the_same_frame_id_is_another_frame():
    join = joined()
    apply(join, predictions("f", block()))
    apply(join, predictions("f", block(rows=5)), partition=1)
    assert [numbers(join, partition).counts.predictions for partition in (0, 1)] == [2, 5]


def test_a_missing_label_that_means_negative_is_judged_so_until_a_label_comes():
    join = joined()
    apply(join, predictions("f", block(rows=2, missing="negative")))
    apply(join, feedback(("f", 0, 1, 5.0)))
    (cohort,) = numbers(join).groups[0].cohorts
    assert (sum(cohort.assumed.rows.values()), negatives(cohort.assumed)) == (1, 1)
    assert positives(cohort.labelled) == 1


def test_cohorts_fold_once_they_have_matured_and_still_take_corrections():
    join = joined()
    apply(join, predictions("old", block(rows=1, at=0.0)))
    apply(join, predictions("new", block(rows=2, at=10_000.0), offset=1))
    catch_up(join)
    flush(join)
    first, second = numbers(join).groups[0].cohorts
    assert (first.is_matured, first.counts.predictions) == (True, 1)
    assert (second.is_matured, second.counts.predictions) == (False, 2)
    apply(join, feedback(("old", 0, 1, 5.0)))
    first, second = numbers(join).groups[0].cohorts
    assert (first.counts.labelled, second.counts.labelled) == (1, 0)
    assert first.matures_at <= 10_000.0 < second.matures_at


def test_an_experiment_matures_by_its_own_predictions_alone():
    join = joined()
    apply(join, predictions("old", block(rows=2, at=0.0)))
    apply(join, predictions("replayed", block(rows=2, at=10_000.0, experiment="other"), offset=1))
    catch_up(join)
    flush(join)
    by_name = {group.experiment: group for group in numbers(join).groups}
    assert (by_name["e"].watermark, by_name["other"].watermark) == (0.0, 10_000.0)
    results = results_of("e", None, [numbers(join)], now=20_000.0).results
    assert (results.watermark, results.variants[0].matured) == (0.0, 0)


def test_unanswered_rows_are_counted_for_the_variant_that_they_were_assigned():
    join = joined()
    frame = predictions("f", block(rows=1), unanswered=[unanswered("challenger", rows=3), unanswered(rows=0)])
    for record in (frame, feedback(("f", 1, 1, 5.0)), frame):
        apply(join, record)
    published = numbers(join)
    challenger, champion = published.groups
    assert (champion.variant, challenger.variant, challenger.versions) == ("champion", "challenger", [])
    (cohort,) = challenger.cohorts
    assert (cohort.counts.unanswered, sum(cohort.unanswered.values()), cohort.counts.predictions) == (3, 3, 0)
    assert champion.cohorts[0].unanswered == {}
    assert (published.counts.unanswered, published.counts.predictions, published.counts.refused) == (3, 1, 1)


def test_a_frame_of_unanswered_rows_alone_is_counted_once_through_a_crash():
    table = InMemoryTable()
    record = predictions("f", unanswered=[unanswered(rows=3)])
    for durable in (2, 99):  # at first the frame alone is durable
        join = Join(lambda _: table)
        join.assign([0])
        apply(join, record)
        table.write(join.partitions[0].flush()[:durable])
    assert numbers(join).counts.unanswered == 3
    assert numbers(join).groups[0].cohorts[0].counts.unanswered == 3


@pytest.mark.parametrize(
    "wrong", [{"time": [0.0]}, {"reason": []}, {"experiment": ""}, {"time_zone": "Nowhere"}, {"window_s": -1.0}]
)
def test_unanswered_rows_that_make_no_sense_are_refused_with_their_frame(wrong):
    join = joined()
    with pytest.raises(ValueError, match=r"unanswered\[0\]"):
        apply(join, predictions("f", block(), unanswered=[unanswered(**wrong)]))
    assert numbers(join).counts == Counts()


def test_a_row_is_late_until_a_label_within_its_window_comes():
    join = joined()
    apply(join, predictions("f", block(rows=2)))
    seen = []
    for offset, event in enumerate([("f", 0, "x", 500.0), ("f", 0, 1, 500.0), ("f", 0, 0, 600.0), ("f", 0, 1, 50.0)]):
        apply(join, feedback(event, offset=offset))
        (cohort,) = numbers(join).groups[0].cohorts
        seen.append((sum(cohort.late.values()), cohort.counts.late))
    assert seen == [(0, 0), (1, 1), (1, 2), (0, 2)]


def test_a_label_known_before_its_prediction_is_refused_beyond_the_declared_tolerance():
    early = feedback(("f", 0, 1, 95.0))
    for early_s, labelled in ((2.0, 0), (5.0, 1)):
        counts = counts_after(predictions("f", block(rows=1, at=100.0, early_s=early_s)), early)
        assert (counts.labelled, counts.refused) == (labelled, 1 - labelled)


def test_an_outcome_outside_the_declared_range_is_refused():
    regression = {"task": "regression", "classes": [], "score": [1.0, 2.0], "label_range": (-5.0, 10.0)}
    given = feedback(("f", 0, 10.5, 5.0), ("f", 0, "1e6", 5.0), ("f", 1, 10, 5.0), ("f", 1, -5.0, 6.0))
    counts = counts_after(predictions("f", block(**regression)), given)
    assert (counts.labelled, counts.corrections, counts.refused) == (1, 1, 2)


def test_outcomes_of_the_wrong_type_count_where_nothing_is_lost_and_are_refused_elsewhere():
    given = feedback(*(("f", row, outcome, 5.0) for row, outcome in enumerate(["1", 1.0, True, "true", "0.0", "yes"])))
    counts = counts_after(predictions("f", block(rows=6)), given)
    assert (counts.labelled, counts.refused) == (5, 1)


def test_rows_that_an_older_release_has_stored_are_judged_by_its_rules():
    join = joined()
    apply(join, predictions("f", block(rows=2)))
    partition = join.partitions[0]
    flush(join)
    key = frame_key("f")
    entry = msgspec.to_builtins(decode_frame(partition.table.get(key)), builtin_types=(bytes,))
    old = [*entry[:2], [fields[:18] for fields in entry[2]]]  # the fields of the release before
    partition.table.local.write([(key, with_expiry(0.0, msgspec.msgpack.encode(old)))])
    apply(join, feedback(("f", 0, "1", 5.0), ("f", 1, 1, 500.0)))
    apply(join, feedback(("f", 0, 1, 6.0), offset=1))
    (cohort,) = numbers(join).groups[0].cohorts
    assert (cohort.counts.labelled, cohort.counts.refused, cohort.counts.late, cohort.late) == (1, 1, 1, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": [0.0]},
        {"score": [0.5]},
        {"score": [0.5, 7.0]},
        {"score": [[0.5, 0.5], [0.5, 0.5]]},
        {"task": "multiclass", "classes": [0, 1, 2], "score": [[0.5, 0.5], [0.5, 0.5]]},
        {"classes": [0, 1, 2]},
        {"degraded": [True]},
        {"latency_ms": [1.0]},
        {"window_s": -1.0},
        {"epoch": 2**70},
        {"epoch": -1},
        {"classes": [0, 2**70]},
        {"assignment_probability": 1e308},
        {"early_s": -1.0},
        {"early_s": inf},
        {"label_range": (2.0, 1.0)},
        {"time_zone": "Europe/Nowhere"},
        {"time_zone": "../etc/passwd"},
        {"time_zone": ""},
    ],
)
def test_a_frame_that_can_not_be_judged_is_refused_and_leaves_nothing(wrong):
    join = joined()
    with pytest.raises(ValueError, match="blocks"):
        apply(join, predictions("f", block(**wrong)))
    assert numbers(join).counts.predictions == 0


@pytest.mark.parametrize("frame_id", ["", "f" * 101])
def test_a_frame_id_that_no_key_should_hold_is_refused(frame_id):
    join = joined()
    for record in (predictions(frame_id, block()), feedback(("f", 0, 1, 5.0), (frame_id, 0, 1, 5.0))):
        with pytest.raises(ValueError, match=r"ce_id|frame id"):
            apply(join, record)
    assert numbers(join).counts == Counts()


def test_a_frame_too_large_for_a_record_of_the_changelog_is_refused():
    rows, classes = 1100, 1000
    wide = block(
        rows=rows, task="multiclass", classes=list(range(classes)), score=[[1.0] + [0.0] * (classes - 1)] * rows
    )
    with pytest.raises(ValueError, match="fit in a record"):
        apply(joined(), predictions("f", wide))


def test_outcomes_beyond_64_bits_do_no_harm():
    regression = block(rows=2, task="regression", classes=[], score=[1.0, 2.0])
    counts = counts_after(predictions("f", regression), feedback(("f", 0, 2**70, 5.0), ("f", 1, 10**400, 5.0)))
    assert (counts.labelled, counts.refused) == (1, 1)


def positives(sums: SumsSnapshot) -> float:
    return sum(count for key, count in sums.totals.get("auc", {}).items() if key // BINS % 2)


def negatives(sums: SumsSnapshot) -> float:
    return sum(count for key, count in sums.totals.get("auc", {}).items() if not key // BINS % 2)


def test_multiclass_and_regression_have_their_own_sums():
    join = joined()
    three = block(rows=1, task="multiclass", classes=["a", "b", "c"], score=[[0.2, 0.5, 0.3]])
    value = block("challenger", rows=1, task="regression", classes=[], score=[4.0])
    apply(join, predictions("f", three, value))
    apply(join, feedback(("f", 0, "b", 5.0), ("f", 1, 6, 5.0)))
    totals = defaultdict(float)
    for group in numbers(join).groups:
        for name, by_bucket in group.cohorts[0].labelled.totals.items():
            totals[name] += sum(by_bucket.values())
    assert totals["accuracy"] == 1.0
    assert (totals["squared_error"], totals["absolute_error"]) == (4.0, 2.0)
