"""`contender parked`: records that no worker could read."""

import asyncio
import json
from typing import Annotated

import msgspec
import typer
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from rich.table import Table

from contender.commands.stack import console, errors
from contender.embedded.settings import StackSettings
from shared.topics import PARKED_NAME

DEADLINE_S = 30
READ_MS = 500
PREVIEW_BYTES = 60


class ParkedRecord(msgspec.Struct, frozen=True):
    """A record that was set aside: where it lay, why it could not be read, and how it begins."""

    topic: str
    partition: int
    offset: int
    reason: str
    begins: str


def parked(
    *,
    topic: Annotated[str | None, typer.Option(help="Only records of this topic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the records that no worker could read, with the reason."""
    bootstrap = StackSettings().child_environment()["CONTENDER_KAFKA"]
    try:
        found = asyncio.run(read_parked(bootstrap))
    except (KafkaError, TimeoutError) as error:
        errors.print(f"Kafka on {bootstrap} does not answer ({type(error).__name__}): is `contender up` running?")
        raise typer.Exit(1) from error
    records = [record for record in found if topic in (None, record.topic)]
    if as_json:
        for record in records:
            typer.echo(json.dumps(msgspec.to_builtins(record)))
        return
    if not records:
        console.print("Nothing is parked.")
        return
    table = Table("topic", "partition", "offset", "reason", "begins")
    for record in records:
        table.add_row(record.topic, str(record.partition), str(record.offset), record.reason, record.begins)
    console.print(table)


async def read_parked(bootstrap: str) -> list[ParkedRecord]:
    """Every parked record once, in the order of its source.

    Raises:
        aiokafka.errors.KafkaError: Kafka can't be reached.
        TimeoutError: the topic could not be read to its end in time.
    """
    # Without a group it is given every partition of the topic, once it knows of it.
    consumer = AIOKafkaConsumer(
        PARKED_NAME, bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await _read_all(consumer)
    finally:
        await consumer.stop()


async def _read_all(consumer: AIOKafkaConsumer) -> list[ParkedRecord]:
    found: dict[tuple[str, int, int], ParkedRecord] = {}
    ends = await consumer.end_offsets(consumer.assignment())
    behind = [partition for partition, end in ends.items() if end > 0]
    while behind:
        for records in (await consumer.getmany(*behind, timeout_ms=READ_MS)).values():
            for record in map(_parked, records):
                # One that was read again after a crash is parked again, with the same coordinates.
                found[record.topic, record.partition, record.offset] = record
        behind = [partition for partition in behind if await consumer.position(partition) < ends[partition]]
    return [found[coordinates] for coordinates in sorted(found)]


def _parked(record: ConsumerRecord) -> ParkedRecord:
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    return ParkedRecord(
        headers.get("topic", ""),
        int(headers.get("partition", -1)),
        int(headers.get("offset", -1)),
        headers.get("reason", ""),
        (record.value or b"")[:PREVIEW_BYTES].decode(errors="replace"),
    )
