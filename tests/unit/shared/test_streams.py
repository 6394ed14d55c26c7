"""Stream glue without Kafka: what a producer sends is an event or set aside, and a wait that hangs is noticed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from shared.events import FeedbackFrame, FeedbackGiven
from shared.streams import PARKED_BYTES, Membership, SourceRecord, Steps, create_parker, decoded, source_of
from shared.topics import FEEDBACK, PARKED_NAME

FRAME = FeedbackFrame([FeedbackGiven("f", 0, 1, 5.0)])


def event(value: bytes | None, headers: object = None, offset: int = 0) -> SimpleNamespace:
    message = SimpleNamespace(topic="feedback", partition=1, offset=offset, headers=headers)
    return SimpleNamespace(value=value, message=message, ack=lambda: True)


@dataclass
class FakeStream:
    sent: list[SimpleNamespace]

    async def events(self) -> AsyncIterator[SimpleNamespace]:
        for one in self.sent:
            yield one


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
    ],
)
async def test_bytes_that_are_no_event_are_set_aside_and_the_stream_goes_on(value):
    parked: list[tuple[int, bytes]] = []

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        assert reason
        parked.append((source.offset, value))

    stream = FakeStream([event(value, offset=3), event(FEEDBACK.encode(FRAME), offset=4)])
    found = [(frame, source.offset) async for frame, source in decoded(stream, FEEDBACK, park)]
    assert parked == [(3, value or b"")]
    assert found == [(FRAME, 4)]


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
    """Notes what is sent, and is in its group or not."""

    sent: list[dict] = field(default_factory=list)
    started: bool = True
    rebalancing_count: int = 0
    tables: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(actives_ready=False, recovery=SimpleNamespace(active_offsets={}))
    )

    def topic(self, name: str, **_: object) -> SimpleNamespace:
        async def send(**sent: object) -> asyncio.Future[None]:
            self.sent.append({"topic": name, **sent})
            kept = asyncio.get_running_loop().create_future()
            kept.set_result(None)
            return kept

        return SimpleNamespace(send=send)


async def test_of_a_long_record_the_beginning_is_set_aside_with_its_true_length():
    app = FakeApp()
    value = b"ab" * PARKED_BYTES
    await create_parker(app)(SourceRecord("feedback", 1, 7, "f", lambda: True), value, "why")
    (sent,) = app.sent
    assert (sent["topic"], sent["value"]) == (PARKED_NAME, value[:PARKED_BYTES])
    assert (sent["headers"]["length"], sent["headers"]["reason"]) == (str(len(value)).encode(), b"why")


def offsets_grow(app: FakeApp, _: Steps) -> None:
    offsets = app.tables.recovery.active_offsets
    offsets["changelog"] = (offsets.get("changelog") or 0) + 1


def rebalance_again(app: FakeApp, _: Steps) -> None:
    app.rebalancing_count += 1


def rebuild_on(_: FakeApp, steps: Steps) -> None:
    steps.take()


def stand_still(_: FakeApp, __: Steps) -> None:
    pass


async def lost_within(app: FakeApp, act: Callable[[FakeApp, Steps], None], times: int) -> bool:
    """Whether the watch, which waits for four looks, gives up while something happens at every one."""
    steps = Steps()
    membership = Membership(app, steps)
    watch = asyncio.create_task(membership.lost(0.04, look_s=0.01))
    for _ in range(times):
        act(app, steps)
        await asyncio.wait({watch}, timeout=0.01)
    lost = watch.done()
    watch.cancel()
    return lost


@pytest.mark.parametrize("act", [offsets_grow, rebalance_again, rebuild_on])
async def test_a_worker_that_gets_on_is_left_alone_however_long_it_takes(act):
    assert not await lost_within(FakeApp(), act, 30)


async def test_a_worker_that_waits_for_its_partitions_in_vain_is_lost():
    assert await lost_within(FakeApp(), stand_still, 30)
    assert await lost_within(FakeApp(started=False), stand_still, 30)


async def test_a_worker_in_its_group_is_not_lost_and_complete_once_its_tables_are():
    app = FakeApp()
    assert not Membership(app).complete
    app.tables.actives_ready = True
    assert Membership(app).complete
    assert not await lost_within(app, stand_still, 30)
    app.tables.actives_ready = False
    assert await lost_within(app, stand_still, 30)
