"""Two feedback workers, killed again and again while events pour in, count exactly what the sender sent."""

import asyncio
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis.asyncio import Redis

from contender.contracts.feedback_service import Counts
from contender.contracts.values import FeedbackKind, Outcome
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.process import answers_ok
from services.feedback_service.domain.results import results_of
from services.feedback_service.domain.snapshots import GroupSnapshot, PartitionSnapshot
from services.feedback_service.store import RedisSnapshots
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame, ShadowBlock
from shared.ids import new_frame_id
from shared.topic_admin import ensure_topics
from shared.topics import FEEDBACK, PREDICTIONS, cloud_event_headers

PARTITIONS = 4
WINDOW_S = 1000.0
FRAME_EVENTS = 100
EVENTS_PER_SECOND = 6000
SENDING_S = 22.0
KILLS = 6
SETTLED_WITHIN_S = 240.0
VARIANTS = ("champion", "challenger")


@pytest.fixture(scope="module")
def quiet_kafka(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of its own: no other test's feedback is in its topics."""
    port, controller_port = free_ports(2)
    broker = KafkaBroker(tmp_path_factory.mktemp("quiet"), port, controller_port, kafka_jars, heap="512m")
    broker.start()
    try:
        broker.wait_ready(60)
        yield broker.bootstrap
    finally:
        broker.kill()


@dataclass
class Workers:
    """Worker processes that can be killed and started again, each with its own port and log."""

    environment: dict[str, str]
    folder: Path
    ports: list[int]
    processes: dict[int, subprocess.Popen] = field(default_factory=dict)

    def start(self, number: int) -> None:
        port = self.ports[number]
        environment = {**os.environ, **self.environment, "CONTENDER_FEEDBACK_SERVICE_PORT": str(port)}
        with (self.folder / f"worker-{number}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(
                [sys.executable, "-m", "services.feedback_service", "worker"], env=environment, stderr=log
            )

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait(60)

    async def stop(self) -> list[int]:
        """Ask all of them to end, once they live: one that still starts takes no signal."""
        for number, process in self.processes.items():
            while not answers_ok("127.0.0.1", self.ports[number] + 10, "/livez"):
                assert process.poll() is None, "a worker ended by itself"
                await asyncio.sleep(0.1)
            process.terminate()
        return [process.wait(60) for process in self.processes.values()]


@dataclass
class Row:
    """What the sender knows of one prediction."""

    variant: str
    time: float
    score: float
    unit: str
    reports: list[tuple[float, int | str]] = field(default_factory=list)
    signals: list[tuple[str, float, bool | str]] = field(default_factory=list)


@dataclass
class Sender:
    """Makes frames and feedback, and keeps its own books in the plainest way."""

    chance: random.Random
    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    stray: Counter = field(default_factory=Counter)
    testers: int = 0
    scored: int = 0
    distance: float = 0.0
    sent_events: int = 0
    clock: float = 1_000_000.0
    """Event time of a replay; frame ids are made when the test runs, as a router's are."""

    def predictions(self) -> tuple[str, int, PredictionFrame]:
        frame_id, shard = new_frame_id(time.time()), self.chance.randrange(PARTITIONS)
        self.shards[frame_id] = shard
        blocks = []
        for first, variant in enumerate(VARIANTS):
            half = FRAME_EVENTS // 2
            self.clock += 10.0
            predicted = [
                Row(variant, self.clock + self.chance.random(), self.chance.random(), f"u{self.chance.randrange(5000)}")
                for _ in range(half)
            ]
            self.rows.update({(frame_id, first * half + number): row for number, row in enumerate(predicted)})
            blocks.append(
                PredictionBlock(
                    model="m",
                    version=variant,
                    task="binary",
                    classes=["no", "yes"],
                    experiment="e",
                    window_s=WINDOW_S,
                    variant=variant,
                    served_variant="champion",
                    assignment_probability=0.5,
                    unit=[row.unit for row in predicted],
                    time=[row.time for row in predicted],
                    score=[row.score for row in predicted],
                    degraded=[row.score > 0.9 for row in predicted],
                )
            )
        testers = self.chance.randrange(3)
        self.testers += testers
        if testers:
            tester = {"unit": ["t"] * testers, "time": [self.clock] * testers, "score": [0.5] * testers}
            forced = {"experiment": None, "excluded_from": "e", "exclusion": "forced"}
            blocks.append(msgspec.structs.replace(blocks[0], **tester, **forced, degraded=[]))
        return frame_id, shard, PredictionFrame(blocks)

    def feedback(self, frame_id: str) -> FeedbackFrame:
        """Feedback for one frame: fresh, corrected, late, refused, repeated, beyond the frame, for nothing at all.

        Most answers are shown, and people decide some.
        """
        events = [self._event(frame_id, row) for row in range(FRAME_EVENTS - 10)]
        for row in range(0, FRAME_EVENTS, 3):
            events.append(self._signal(frame_id, row, "shown", self.chance.choice([True, True, True, False])))
            events.append(self._signal(frame_id, row, "decided", self.chance.choice(["no", "yes", "perhaps"])))
        for _ in range(5):
            repeated = self.chance.choice(events[:50])
            self._note(repeated)
            events.append(repeated)
        for _ in range(3):
            events.append(FeedbackGiven(frame_id, FRAME_EVENTS + 7 * len(events), "yes", self.clock))
            self.stray["refused"] += 1
        for _ in range(2):
            events.append(FeedbackGiven(new_frame_id(time.time()), 0, "yes", self.clock))
            self.stray["unmatched"] += 1
        return FeedbackFrame(events)

    def shadows(self, frame_id: str) -> PredictionFrame:
        """What the challenger answers in shadow to some of the champion's rows."""
        rows = sorted(self.chance.sample(range(FRAME_EVENTS // 2), 20))
        scores = [self.chance.random() for _ in rows]
        self.scored += len(rows)
        known = [self.rows[frame_id, row].score for row in rows]
        self.distance += sum(abs(score - answered) for score, answered in zip(scores, known, strict=True))
        names = {"experiment": "e", "champion": "champion", "variant": "challenger", "version": "challenger"}
        return PredictionFrame([], shadows=[ShadowBlock(frame_id=frame_id, epoch=0, row=rows, score=scores, **names)])

    def correction(self) -> tuple[str, FeedbackFrame]:
        frame_id = self.chance.choice(list(self.shards))
        return frame_id, FeedbackFrame([self._event(frame_id, self.chance.randrange(FRAME_EVENTS)) for _ in range(20)])

    def _event(self, frame_id: str, row: int) -> FeedbackGiven:
        at = self.rows[frame_id, row].time + self.chance.choice([1.0, 2.0, self.chance.random() * WINDOW_S * 1.2])
        event = FeedbackGiven(frame_id, row, self.chance.choice(["no", "yes", "yes", "no", "perhaps"]), at)
        self._note(event)
        return event

    def _signal(self, frame_id: str, row: int, kind: FeedbackKind, value: Outcome) -> FeedbackGiven:
        known = self.rows[frame_id, row]
        at = known.time + self.chance.random() * WINDOW_S * 1.2
        known.signals.append((kind, at, value))
        return FeedbackGiven(frame_id, row, value, at, kind=kind)

    def _note(self, event: FeedbackGiven) -> None:
        self.rows[event.frame_id, event.row].reports.append((event.given_at, event.outcome))

    def expected(self) -> tuple[dict[str, Counter], dict[str, float]]:
        """Counts and log loss totals by variant."""
        counts: dict[str, Counter] = defaultdict(Counter)
        losses: dict[str, list[float]] = defaultdict(list)
        for row in self.rows.values():
            tally = counts[row.variant]
            tally["predictions"] += 1
            tally["degraded"] += row.score > 0.9
            tally["fallbacks"] += row.variant == "challenger"
            last: dict[tuple[float, int | str], int] = {report: number for number, report in enumerate(row.reports)}
            tally["duplicates"] += len(row.reports) - len(last)
            valid = [(at, number, outcome) for (at, outcome), number in last.items() if outcome != "perhaps"]
            tally["refused"] += len(last) - len(valid)
            for kind, at, value in row.signals:
                if at > row.time + WINDOW_S:
                    tally["late"] += 1
                    continue
                tally[kind] += kind == "decided" or value is True
                tally["overridden"] += kind == "decided" and value != ("yes" if row.score > 0.5 else "no")
            timely = [report for report in valid if report[0] <= row.time + WINDOW_S]
            tally["late"] += len(valid) - len(timely)
            if timely:
                tally["labelled"] += 1
                tally["corrections"] += len(timely) - 1
                right = row.score if max(timely)[2] == "yes" else 1.0 - row.score
                losses[row.variant].append(-math.log(right))
        return counts, {variant: math.fsum(values) for variant, values in losses.items()}


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send_everything(producer: AIOKafkaProducer, sender: Sender) -> float:
    """Send at the set rate and return how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    held: list[tuple[str, int, PredictionFrame]] = []
    while (elapsed := loop.time() - began) < SENDING_S:
        if sender.sent_events >= elapsed * EVENTS_PER_SECOND:
            await asyncio.sleep(0.01)
            continue
        frame_id, shard, frame = sender.predictions()
        early = sender.chance.random() < 0.1
        if early:
            held.append((frame_id, shard, frame))
        else:
            await send_predictions(producer, sender, frame_id, shard, frame)
            if sender.chance.random() < 0.3:
                await send_predictions(producer, sender, new_frame_id(time.time()), shard, sender.shadows(frame_id))
        await send_feedback(producer, sender, shard, sender.feedback(frame_id))
        if sender.chance.random() < 0.3:
            corrected, feedback = sender.correction()
            await send_feedback(producer, sender, sender.shards[corrected], feedback)
        if held and sender.chance.random() < 0.2:
            await send_predictions(producer, sender, *held.pop(0))
    for late in held:
        await send_predictions(producer, sender, *late)
    await producer.flush()
    return loop.time() - began


async def send_predictions(producer, sender: Sender, frame_id: str, shard: int, frame: PredictionFrame) -> None:
    copies = 2 if sender.chance.random() < 0.1 else 1
    for _ in range(copies):
        headers = cloud_event_headers(PREDICTIONS, frame_id)
        await producer.send(PREDICTIONS.name, PREDICTIONS.encode(frame), partition=shard, headers=headers)
        sender.sent_events += FRAME_EVENTS


async def send_feedback(producer, sender: Sender, shard: int, frame: FeedbackFrame) -> None:
    headers = cloud_event_headers(FEEDBACK, new_frame_id(time.time()))
    await producer.send(FEEDBACK.name, FEEDBACK.encode(frame), partition=shard, headers=headers)
    sender.sent_events += len(frame.events)


async def kill_and_restart(workers: Workers, chance: random.Random) -> int:
    kills = 0
    for moment in sorted(chance.uniform(2.0, SENDING_S) for _ in range(KILLS)):
        began = getattr(workers, "began", None) or asyncio.get_running_loop().time()
        workers.began = began
        await asyncio.sleep(max(0.0, began + moment - asyncio.get_running_loop().time()))
        number = chance.randrange(2)
        workers.kill(number)
        workers.start(number)
        kills += 1
    return kills


def totals(snapshots: list[PartitionSnapshot]) -> Counts:
    return sum((snapshot.counts for snapshot in snapshots), Counts())


async def settled(store: RedisSnapshots, sender: Sender) -> list[PartitionSnapshot]:
    """The snapshots, once they account for everything that was sent and are folded as far as can be."""
    reports = sum(len(row.reports) + len(row.signals) for row in sender.rows.values()) + sender.stray.total()
    snapshots: list[PartitionSnapshot] = []
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while True:
                snapshots = await store.read("e")
                sums = totals(snapshots)
                rows = len(sender.rows) + sender.testers
                if (sums.predictions, sums.reports, pairs(snapshots)) == (rows, reports, sender.scored) and folded(
                    snapshots
                ):
                    return snapshots
                await asyncio.sleep(0.2)
    except TimeoutError:
        offsets = [snapshot.offsets for snapshot in snapshots]
        sent = f"{len(sender.rows)} predictions and {reports} reports"
        pytest.fail(f"sent {sent}, found {totals(snapshots)} as of {offsets}")


def pairs(snapshots: list[PartitionSnapshot]) -> int:
    """The rows with two scores."""
    groups = [group for snapshot in snapshots for group in snapshot.groups if group.paired]
    return sum(cohort.counts.predictions for group in groups for cohort in group.cohorts)


def folded(snapshots: list[PartitionSnapshot]) -> bool:
    """Whether no cohort is left that has matured, besides those that are folded into one."""
    groups = [group for snapshot in snapshots for group in snapshot.groups]
    return all(cohort.is_matured or cohort.matures_at > group.watermark for group in groups for cohort in group.cohorts)


def added_up(snapshots: list[PartitionSnapshot]) -> list[tuple[GroupSnapshot, Counts, Counter[int], Counter[int]]]:
    """The groups with their cohorts added up: a worker that owns more partitions has folded more of them."""
    sums = []
    for group in (group for snapshot in snapshots for group in snapshot.groups):
        rows = [Counter(counts) for cohort in group.cohorts for counts in (cohort.rows, cohort.labelled.rows)]
        header = msgspec.structs.replace(group, watermark=0.0, cohorts=[], days=[])
        counts = sum((cohort.counts for cohort in group.cohorts), Counts())
        sums.append((header, counts, sum(rows[::2], Counter()), sum(rows[1::2], Counter())))
    return sums


async def cleanup_policies(kafka: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.endswith("-changelog")]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        answers = await admin.describe_configs(resources)
        entries = [entry for answer in answers for resource in answer.resources for entry in resource[4]]
    finally:
        await admin.close()
    return {entry[1] for entry in entries if entry[0] == "cleanup.policy"}


@pytest.mark.timeout(500)
async def test_every_count_and_sum_is_the_senders_own_through_kills(quiet_kafka: str, valkey: str, tmp_path: Path):
    redis_url = valkey.removesuffix("/0") + "/5"
    environment = {
        "CONTENDER_KAFKA": quiet_kafka,
        "CONTENDER_REDIS": redis_url,
        "CONTENDER_DATA": str(tmp_path / "data"),
        "CONTENDER_PARTITIONS": str(PARTITIONS),
    }
    ports = [port - 10 for port in free_ports(2)]
    workers = Workers(environment, tmp_path, ports)
    chance = random.Random(20260)
    sender = Sender(random.Random(7))
    await ensure_topics(quiet_kafka, partitions=PARTITIONS, replication=1)
    redis = Redis.from_url(redis_url)
    store = RedisSnapshots(redis, partitions=PARTITIONS)
    for number in range(2):
        workers.start(number)
    try:
        async with producing(quiet_kafka) as producer:
            _, kills = await asyncio.gather(send_everything(producer, sender), kill_and_restart(workers, chance))
        compare(await settled(store, sender), sender)
        assert kills >= 5
        assert await cleanup_policies(quiet_kafka) == {"compact"}
        assert await workers.stop() == [0, 0]
        # A worker that has nothing but the changelog on its disk, and one that has all of it, come to the same.
        snapshots = await settled(store, sender)
        for lost in (True, False):
            if lost:
                shutil.rmtree(tmp_path / "data")
            await redis.flushdb()
            workers.start(0)
            again = await settled(store, sender)
            assert added_up(again) == added_up(snapshots)
            compare(again, sender)
            workers.kill(0)
        # Counts of another name are made anew from the topics, beside the old ones.
        workers.environment["CONTENDER_FEEDBACK_STATE"] = "2"
        workers.start(0)
        rebuilt = await settled(RedisSnapshots(redis, partitions=PARTITIONS, state="2"), sender)
        assert added_up(rebuilt) == added_up(snapshots)
        assert {snapshot.status.since for snapshot in rebuilt} == {None}
    finally:
        for number in workers.processes:
            workers.kill(number)
        await redis.aclose()


def compare(snapshots: list[PartitionSnapshot], sender: Sender) -> None:
    counts, losses = sender.expected()
    sums = totals(snapshots)
    assert (sums.unmatched, sums.no_experiment) == (sender.stray["unmatched"], 0)
    assert sums.refused == sender.stray["refused"] + sum(tally["refused"] for tally in counts.values())
    look = results_of("e", None, snapshots, sender.clock)
    assert look is not None
    agreement = look.results.agreement["challenger"]
    assert agreement.scored == sender.scored
    assert agreement.score_difference.mean * sender.scored == pytest.approx(sender.distance, rel=1e-9)
    assert look.results.excluded == {"forced": sender.testers}
    for variant in look.results.variants:
        expected = counts[variant.name]
        named = {name: getattr(variant, name) for name in expected if name != "predictions"}
        assert {"predictions": variant.n, **named} == dict(expected)
        live = variant.live["log_loss"]
        assert live.n == expected["labelled"]
        assert live.mean * live.n == pytest.approx(losses[variant.name], rel=1e-12)
