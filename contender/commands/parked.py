"""`contender parked`: records that no worker could read."""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from rich.table import Table
from rich.text import Text

from contender.commands.stack import console, errors, read_settings
from contender.commands.terminal import visible
from contender.contracts.topics import PARKED

DEADLINE_S = 30
READ_MS = 500
PREVIEW_BYTES = 60
LONGEST_NUMBER = 20
LONGEST_BYTES = 2_000
"""Of a header that is shown: reasons have up to 500 characters, but anybody may write to the topic."""


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
    bootstrap = read_settings().child_environment()["CONTENDER_KAFKA"]
    try:
        found = asyncio.run(read_parked(bootstrap))
    except (KafkaError, TimeoutError) as error:
        what = f"Kafka on {bootstrap} does not answer ({type(error).__name__}): is `contender up` running?"
        errors.print(what, soft_wrap=True)
        raise typer.Exit(1) from error
    records = [record for record in found if topic in (None, record.topic)]
    if as_json:
        for record in records:
            typer.echo(json.dumps(msgspec.to_builtins(record)))
        return
    if not records:
        console.print("Nothing is parked.")
        return
    console.print(table_of(records))


def table_of(records: Iterable[ParkedRecord]) -> Table:
    """A line per record. Whoever sent one chose its text, so it is shown as such."""
    table = Table("topic", "partition", "offset", "reason", "begins")
    for record in records:
        place = (record.topic, str(record.partition), str(record.offset))
        table.add_row(*(Text(visible(text)) for text in (*place, record.reason, record.begins)))
    return table


async def read_parked(bootstrap: str) -> list[ParkedRecord]:
    """Every parked record once, in the order of its source.

    Raises:
        aiokafka.errors.KafkaError: Kafka can't be reached.
        TimeoutError: the topic could not be read to its end in time.
    """
    # Without a group it is given every partition of the topic, once it knows of it.
    consumer = AIOKafkaConsumer(
        PARKED, bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it reports is raised here as well
    try:
        async with asyncio.timeout(DEADLINE_S):
            await consumer.start()
            return await _read_all(consumer)
    finally:
        await consumer.stop()


async def _read_all(consumer: AIOKafkaConsumer) -> list[ParkedRecord]:
    found: dict[tuple[str, int, int], ParkedRecord] = {}
    ends = await consumer.end_offsets(consumer.assignment())
    behind = [partition for partition, end in ends.items() if end > 0]
    while behind:
        for records in (await consumer.getmany(*behind, timeout_ms=READ_MS)).values():
            for record in map(parked_record, records):
                # One that was read again after a crash is parked again, with the same coordinates.
                found[record.topic, record.partition, record.offset] = record
        behind = [partition for partition in behind if await consumer.position(partition) < ends[partition]]
    return [found[coordinates] for coordinates in sorted(found)]


def parked_record(record: ConsumerRecord) -> ParkedRecord:
    """What a record of the topic says; a number that is none is -1."""
    headers = {name: (value or b"")[:LONGEST_BYTES].decode(errors="replace") for name, value in record.headers}
    return ParkedRecord(
        headers.get("topic", ""),
        _number(headers.get("partition", "")),
        _number(headers.get("offset", "")),
        headers.get("reason", ""),
        (record.value or b"")[:PREVIEW_BYTES].decode(errors="replace"),
    )


def _number(text: str) -> int:
    try:
        return int(text) if len(text) <= LONGEST_NUMBER else -1
    except ValueError:
        return -1
