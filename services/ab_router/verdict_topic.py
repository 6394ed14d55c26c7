"""The topic `verdicts` as the router's worker reads it.

An offset is acknowledged once its event has had its effect. What an event asks for is in the stored revision once it is
done, so an event that is read again changes nothing.
"""

import asyncio
from functools import partial
from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import TP, StreamT

from services.ab_router.verdict_actions import VerdictActions
from shared.background import until_available
from shared.errors import ServiceError
from shared.streams import Park, SourceRecord, crash_on_error, create_parker, decoded, start_at
from shared.topics import VERDICTS

READ_AGAIN = 1_000
"""Events before the committed offset that a start reads again.

Faust acknowledges records of an earlier assignment that it skips, so a commit may be ahead of the effects by what was
fetched. There are some verdicts a day.
"""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 1.0
"""A breached guardrail must not wait long once the database is back."""


def follow_verdicts(app: faust.App, opened: "asyncio.Future[VerdictActions]") -> None:
    """Let a Faust application act on the topic's events, once it is known how."""
    committed: dict[TP, int] = {}

    async def on_rebalanced(*_: object, **__: object) -> None:
        committed.update(await _start(app.consumer))

    async def act_on_verdicts(stream: StreamT[bytes]) -> None:
        async with crash_on_error(app):
            actions, park = await opened, _parker(app, committed)
            async for event, source in decoded(cast("Stream[bytes]", stream).noack(), VERDICTS, park):
                try:
                    act = partial(actions.act, event)
                    await until_available(act, _FIRST_RETRY_S, slowest_s=_LAST_RETRY_S, name="act on verdicts")
                except ServiceError as error:
                    await park(source, VERDICTS.encode(event), error.detail)
                source.ack()

    app.on_rebalance_complete.connect(on_rebalanced, weak=False)
    topic = app.topic(VERDICTS.name, key_serializer="raw", value_serializer="raw")
    app.agent(topic, name=VERDICTS.name)(act_on_verdicts)


def owned_partitions(app: faust.App) -> set[int]:
    """The partitions of the topic that the group has assigned to this process."""
    return {at.partition for at in app.consumer.assignment() if at.topic == VERDICTS.name}


async def _start(consumer: Any) -> dict[TP, int]:
    """Start each partition some events before its committed offset, and return those offsets."""
    assigned = [at for at in consumer.assignment() if at.topic == VERDICTS.name]
    if not assigned:
        return {}
    earliest = await consumer.earliest_offsets(*assigned)
    known = await consumer.seek_to_committed()
    committed = {at: known.get(at) or 0 for at in assigned}
    await start_at(consumer, {at: max(earliest[at], offset - READ_AGAIN) for at, offset in committed.items()}, known)
    return committed


def _parker(app: faust.App, committed: dict[TP, int]) -> Park:
    """A `Park` that leaves out the records which a process before this one has read."""
    park_record = create_parker(app)

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        if source.offset >= committed.get(TP(source.topic, source.partition), 0):
            await park_record(source, value, reason)

    return park
