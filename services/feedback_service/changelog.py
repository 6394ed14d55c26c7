"""The changelog of the worker's table: Faust restores the local entries from it, and every flush is sent to it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import faust
from faust.stores.base import Store
from faust.types import TP, EventT

from services.feedback_service.changes import Write
from services.feedback_service.tables import LocalTables


class ChangelogStore(Store[bytes, bytes]):
    """Lets Faust's recovery restore the partitions. Faust's own table has no other use."""

    tables: LocalTables

    def persisted_offset(self, tp: TP) -> int | None:
        """The offset of the changelog that the disk has."""
        return self.tables.partition(tp.partition).changelog_offset

    def apply_changelog_batch(
        self, batch: Iterable[EventT[Any]], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Apply records of the changelog."""
        del to_key, to_value
        entries: dict[int, dict[bytes, bytes | None]] = {}
        ends: dict[int, tuple[int, float]] = {}
        for event in batch:
            message = event.message
            here = self.tables.partition(message.partition).changelog_offset
            if here is not None and message.offset <= here:
                continue  # Faust held the record back during a recovery, and the partition has it
            # Within a batch the last value of a key counts, and the expiry of a deleted one is looked up.
            entries.setdefault(message.partition, {})[message.key or b""] = message.value
            ends[message.partition] = (message.offset, message.timestamp)
        for partition, last in entries.items():
            self.tables.partition(partition).write(last.items(), *ends[partition])

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Close the partitions that other workers own now."""
        del assigned, newly_assigned, generation_id
        for tp in revoked:
            if tp.topic in self.table.changelog_topic.topics:
                self.tables.close(tp.partition)

    def reset_state(self) -> None:
        """Do nothing: the changelog has the state."""

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None:  # noqa: FBT001, FBT002 - Faust's signature
        """Refuse: the changelog is the backup."""
        raise NotImplementedError

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:  # noqa: FBT001, FBT002 - the same
        """Refuse: the changelog is the backup."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close all partitions."""
        self.tables.close_all()
        await super().stop()


class ChangelogTable(faust.Table[bytes, bytes]):
    """A Faust table whose entries are in LocalTables."""

    tables: LocalTables

    def _new_store(self) -> ChangelogStore:
        store = ChangelogStore(
            "local://",
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )
        store.tables = self.tables
        return store


def create_table(app: faust.App, name: str, partitions: int, tables: LocalTables) -> ChangelogTable:
    """The worker's table: its entries in `tables`, its changelog in Kafka."""
    table = ChangelogTable(app, name=name, key_type=bytes, value_type=bytes, partitions=partitions)
    table.tables = tables
    app.tables.add(table)
    return table


async def send(app: faust.App, topic: str, partition: int, writes: Sequence[Write]) -> int:
    """Send writes to the changelog in order, and return the offset of the last one once Kafka has all.

    Raises:
        aiokafka.errors.KafkaError: Kafka refused a record.
    """
    sent = [await app.producer.send(topic, key, value, partition, None, None) for key, value in writes]
    return max([(await record).offset for record in sent])
