"""Stream glue without Kafka: what a producer sends is an event or set aside, and a wait that hangs is noticed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest
from aiokafka.errors import (
    InvalidTopicError,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    PolicyViolationError,
)
from faust.exceptions import ProducerSendError
from structlog.testing import capture_logs

from shared.events import FeedbackFrame, FeedbackGiven
from shared.streams import (
    PARKED_BYTES,
    Membership,
    SetAside,
    SourceRecord,
    create_parker,
    decoded,
    source_of,
)
from shared.topics import FEEDBACK, PARKED_NAME, Topic

FRAME = FeedbackFrame([FeedbackGiven("f", 0, 1, 5.0)])


def event(value: bytes | None, headers: object = None, offset: int = 0) -> SimpleNamespace:
    message = SimpleNamespace(topic="feedback", partition=1, offset=offset, headers=headers, timestamp=1.5)
    return SimpleNamespace(value=value, message=message, ack=lambda: True)


@dataclass
class FakeStream:
    sent: list[SimpleNamespace]

    async def events(self) -> AsyncIterator[SimpleNamespace]:
        for message in self.sent:
            yield message


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x00" * 2_000_000,
        b'{"events":[{"frame_id":"\xff"}]}',
        b'{"x":' + b"[" * 100_000,
        b'{"events":' + b"[" * 100_000,
        b'{"events":[{"frame_id":"f","row":' + b"9" * 5_000 + b',"outcome":1,"given_at":1}]}',
        b'{"events":[{"frame_id":"f","row":0,"given_at":1,"outcome":1,"source":' + b"[]," * 2_000_000 + b"0}]}",
        b'{"events":[' + b"{}," * 2_000_000 + b"{}]}",
    ],
)
async def test_bytes_that_are_no_event_are_set_aside_and_the_stream_goes_on(value):
    parked: list[tuple[int, bytes]] = []

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        assert 0 < len(reason) <= 500
        parked.append((source.offset, value))

    stream = FakeStream([event(value, offset=3), event(FEEDBACK.encode(FRAME), offset=4)])
    frames = [(frame, source.offset) async for frame, source in decoded(stream, FEEDBACK, park)]
    assert parked == [(3, value or b"")]
    assert frames == [(FRAME, 4)]


class Level(msgspec.Struct):
    level: Literal["low", "high"]


async def parked_of(sent: list[SimpleNamespace], topic: Topic[Any]) -> tuple[list[tuple[int, str]], list[int]]:
    """Offsets and reasons of what is set aside, and offsets of what is read."""
    parked: list[tuple[int, str]] = []

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        parked.append((source.offset, reason))

    read = [source.offset async for _, source in decoded(FakeStream(sent), topic, park)]
    return parked, read


async def test_a_reason_quotes_no_more_of_a_value_than_a_line():
    topic = Topic("levels", Level, "contender.levels.v1", "nobody")
    sent = [event(b'{"level":"' + b"\xc3\xa9" * 4_000_000 + b'"}')]
    [(_, reason)], read = await parked_of(sent, topic)
    assert reason.startswith("Invalid enum value")
    assert reason.endswith("at `$.level`")
    assert len(reason) <= 500
    assert read == []


@pytest.mark.parametrize(
    ("headers", "came"),
    [
        ({"ce_type": b"contender.predictions.frame.v1"}, "contender.predictions.frame.v1"),
        ([("ce_id", b"f"), ("ce_type", b"contender.feedback.frame.v2")], "contender.feedback.frame.v2"),
        ([("ce_type", b"")], ""),
        ([("ce_type", b"\xff\xfe")], "\ufffd\ufffd"),
        ([("ce_type", b"a" * 1_000_000)], "a" * 100),
        ([("ce_type", b"contender.feedback.frame.v1 ")], "contender.feedback.frame.v1 "),
    ],
)
async def test_a_record_that_calls_itself_something_else_is_set_aside(headers, came):
    sent = [event(FEEDBACK.encode(FRAME), headers, offset=3), event(FEEDBACK.encode(FRAME), offset=4)]
    [(offset, reason)], read = await parked_of(sent, FEEDBACK)
    assert (offset, read) == (3, [4])
    assert f"ce_type is {came}, expected contender.feedback.frame.v1" in reason


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        {"ce_type": b"contender.feedback.frame.v1"},
        [("ce_type", None)],
        [("ce_type", None), ("ce_type", b"contender.feedback.frame.v1")],
        [("traceparent", b"\xff" * 1_000_000)],
    ],
)
async def test_a_record_of_the_topics_type_or_of_none_is_read(headers):
    assert await parked_of([event(FEEDBACK.encode(FRAME), headers, offset=3)], FEEDBACK) == ([], [3])


@pytest.mark.parametrize(
    ("headers", "frame_id"),
    [
        (None, ""),
        ({}, ""),
        ({"ce_id": b"f"}, "f"),
        ([("ce_type", None), ("ce_id", b"f")], "f"),
        ([("ce_id", None)], ""),
        ([("ce_id", b"f" * 100)], "f" * 100),
        ([("ce_id", b"f" * 1_000_000)], ""),
        ([("ce_id", b"\xff")], "\ufffd"),
    ],
)
def test_a_records_frame_id_is_what_its_headers_name_if_it_can_be_one(headers, frame_id):
    assert source_of(event(b"", headers)).frame_id == frame_id


@dataclass
class FakeApp:
    """Notes what is sent, or fails with `error`, and is in its group or not."""

    conf: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(datadir="nowhere"))
    error: Exception | None = None
    sent: list[dict] = field(default_factory=list)
    started: bool = True
    rebalancing_count: int = 0
    tables: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(actives_ready=False, recovery=SimpleNamespace(active_offsets={}))
    )

    def topic(self, name: str, **_: object) -> SimpleNamespace:
        async def send(**sent: object) -> asyncio.Future[None]:
            if isinstance(self.error, ProducerSendError):
                raise self.error from self.error.args[0]
            self.sent.append({"topic": name, **sent})
            kept = asyncio.get_running_loop().create_future()
            if self.error is None:
                kept.set_result(None)
            else:
                kept.set_exception(self.error)
            return kept

        return SimpleNamespace(send=send)


async def test_of_a_long_record_the_beginning_is_set_aside_with_its_true_length():
    app = FakeApp()
    value = b"ab" * PARKED_BYTES
    await create_parker(app)(SourceRecord("feedback", 1, 7, "f", lambda: True), value, "why")
    (sent,) = app.sent
    assert (sent["topic"], sent["value"]) == (PARKED_NAME, value[:PARKED_BYTES])
    assert (sent["headers"]["length"], sent["headers"]["reason"]) == (str(len(value)).encode(), b"why")


@pytest.mark.parametrize("reason", ["x" * 8_000_000, "\udcff" * 1_000, "\x00\n", "é" * 1_000])
async def test_a_reason_is_short_and_has_bytes(reason):
    app = FakeApp()
    await create_parker(app)(SourceRecord("feedback", 1, 7, "f", lambda: True), b"", reason)
    assert 0 < len(app.sent[0]["headers"]["reason"].decode()) <= 500


@pytest.mark.parametrize(
    "error",
    [
        MessageSizeTooLargeError("too large"),
        ProducerSendError(MessageSizeTooLargeError("too large")),
        PolicyViolationError(),
        InvalidTopicError("x" * 8_000_000),
    ],
    ids=lambda error: f"{type(error).__name__} {len(str(error))}",
)
async def test_a_record_that_can_not_even_be_parked_is_noted_with_its_coordinates(error, tmp_path):
    app = FakeApp(SimpleNamespace(datadir=tmp_path / "worker"), error)
    park = create_parker(app)
    with capture_logs() as lines:
        for offset in (7, 8):
            await park(SourceRecord("feedback", 1, offset, "f", lambda: True), b"x", "why")
    noted = (tmp_path / "worker" / "set-aside.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in noted]
    assert [(line["topic"], line["partition"], line["offset"], line["reason"]) for line in records] == [
        ("feedback", 1, offset, "why") for offset in (7, 8)
    ]
    assert all(len(line) < 1_500 for line in noted)
    assert [(line["log_level"], line["offset"]) for line in lines] == [("error", 7), ("error", 8)]


@pytest.mark.parametrize("error", [KafkaConnectionError(), ProducerSendError(KafkaConnectionError())])
async def test_while_kafka_is_away_a_record_is_not_passed_over(error, tmp_path):
    app = FakeApp(SimpleNamespace(datadir=tmp_path), error)
    with pytest.raises(type(error)):
        await create_parker(app)(SourceRecord("feedback", 1, 7, "f", lambda: True), b"x", "why")
    assert list(tmp_path.iterdir()) == []


def test_what_is_noted_of_records_has_a_limit_and_the_newest_is_kept(tmp_path):
    noted = SetAside(tmp_path / "set-aside.jsonl", limit_bytes=10_000)
    for offset in range(500):
        noted.keep(SourceRecord("feedback", 1, offset, "", lambda: True), "why", PolicyViolationError())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 11_000
    assert json.loads((tmp_path / "set-aside.jsonl").read_text().splitlines()[-1])["offset"] == 499


def test_a_full_disk_leaves_the_line_of_the_log(tmp_path):
    (tmp_path / "file").write_text("")
    noted = SetAside(tmp_path / "file" / "set-aside.jsonl")
    with capture_logs() as lines:
        noted.keep(SourceRecord("feedback", 1, 7, "", lambda: True), "why", PolicyViolationError())
    assert [line["log_level"] for line in lines] == ["error", "error"]
    assert lines[0]["offset"] == 7


def recover_one_more(app: FakeApp) -> None:
    offsets = app.tables.recovery.active_offsets
    offsets["changelog"] = (offsets.get("changelog") or 0) + 1


def rebalance_again(app: FakeApp) -> None:
    app.rebalancing_count += 1


@dataclass
class MovingApp(FakeApp):
    """Something happens before each of the first `moves` looks."""

    move: Callable[[FakeApp], None] = rebalance_again
    moves: int = 0
    looks: int = 0

    @property
    def monitor(self) -> SimpleNamespace:
        self.looks += 1
        if self.looks <= self.moves:
            self.move(self)
        return SimpleNamespace(messages_received_total=0)


@pytest.mark.parametrize("move", [recover_one_more, rebalance_again])
async def test_a_worker_that_gets_on_is_left_alone_however_long_it_takes(move):
    app = MovingApp(move=move, moves=30)
    await Membership(app).wait_until_stuck(0.004, look_s=0.001)
    assert app.looks > 30 + 3


@pytest.mark.parametrize("app", [MovingApp(), MovingApp(started=False)])
async def test_a_worker_that_waits_for_its_partitions_in_vain_is_stuck(app: MovingApp):
    await Membership(app).wait_until_stuck(0.004, look_s=0.001)
    assert app.looks == 1 + 4


async def test_a_worker_in_its_group_is_left_alone_and_complete_once_its_tables_are():
    app = FakeApp()
    assert not Membership(app).complete
    app.tables.actives_ready = True
    assert Membership(app).complete

    def leave(app: FakeApp) -> None:
        app.tables.actives_ready = app.looks < 30

    app = MovingApp(move=leave, moves=30)
    app.tables.actives_ready = True
    await Membership(app).wait_until_stuck(0.004, look_s=0.001)
    assert app.looks == 29 + 4
