"""`contender parked`: records that no worker could read."""

import asyncio
import json
import logging
from collections.abc import Iterable

import msgspec
import typer
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from rich.table import Table
from rich.text import Text

from contender.commands.terminal import console, fail, visible
from contender.contracts.topics import PARKED
from embedded.commands import read_settings
from shared.topic_reading import open_consumer, read_between

DEADLINE_S = 30
PREVIEW_BYTES = 60
LONGEST_NUMBER = 20
LONGEST_BYTES = 2_000
"""Bytes shown of a header: reasons have up to 500 characters, but anybody may write to the topic."""


class ParkedRecord(msgspec.Struct, frozen=True):
    """A record that was set aside: where it lay, why it could not be read, and how it begins."""

    topic: str
    partition: int
    offset: int
    reason: str
    begins: str


def parked(*, topic: str | None, as_json: bool) -> None:
    """Print the parked records, of one topic or of all."""
    bootstrap = read_settings().kafka_address
    try:
        records = asyncio.run(read_parked(bootstrap))
    except (KafkaError, TimeoutError) as error:
        sentence = f"Kafka on {bootstrap} does not answer ({type(error).__name__}): is `contender up` running?"
        raise fail(sentence) from error
    records = [record for record in records if topic in (None, record.topic)]
    if as_json:
        for record in records:
            typer.echo(json.dumps(msgspec.to_builtins(record)))
    elif records:
        console.print(table_of(records))
    else:
        console.print("Nothing is parked.")


def table_of(records: Iterable[ParkedRecord]) -> Table:
    """A line per record. Whoever sent it chose its text, so control characters and markup are shown as text."""
    table = Table("topic", "partition", "offset", "reason", "begins")
    for record in records:
        cells = (record.topic, str(record.partition), str(record.offset), record.reason, record.begins)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


async def read_parked(bootstrap: str) -> list[ParkedRecord]:
    """Every parked record once, by topic, partition and offset of its source.

    Raises:
        aiokafka.errors.KafkaError: Kafka can't be reached.
        TimeoutError: the topic could not be read to its end in time.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its errors are raised here as well
    by_source: dict[tuple[str, int, int], ParkedRecord] = {}
    async with asyncio.timeout(DEADLINE_S), open_consumer(bootstrap, PARKED) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        async for records in read_between(consumer, dict.fromkeys(ends, 0), ends):
            for record in map(parked_record, records):
                # A record that was read again after a crash is parked again, with the same coordinates.
                by_source[record.topic, record.partition, record.offset] = record
    return [by_source[coordinates] for coordinates in sorted(by_source)]


def parked_record(record: ConsumerRecord) -> ParkedRecord:
    """Read a record of the topic; a partition or an offset that is not a number becomes -1."""
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
