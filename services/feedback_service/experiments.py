"""The experiments that the router has announced, kept in memory from their compacted topic."""

from contextlib import AsyncExitStack, suppress
from typing import Protocol, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from contender.contracts.experiments import ExperimentRevision
from shared.background import run_every
from shared.logs import logger
from shared.topics import EXPERIMENTS

_RETRY_S = 1.0
_REQUEST_MS = 10_000
_POLL_MS = 500


class Experiments(Protocol):
    """The newest revision of each experiment."""

    def get(self, name: str) -> ExperimentRevision | None:
        """The newest revision of an experiment; None before the first."""
        ...

    def all(self) -> list[ExperimentRevision]:
        """The newest revisions, by name."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether every revision that was announced before the start is known."""
        ...


class InMemoryExperiments:
    """Revisions in a dictionary."""

    is_complete = True

    def __init__(self) -> None:
        self._revisions: dict[str, ExperimentRevision] = {}

    def put(self, revision: ExperimentRevision) -> None:
        """Keep a revision, unless a newer one is known."""
        known = self._revisions.get(revision.name)
        if known is None or known.revision <= revision.revision:
            self._revisions[revision.name] = revision

    def get(self, name: str) -> ExperimentRevision | None:
        """The newest revision of an experiment; None before the first."""
        return self._revisions.get(name)

    def all(self) -> list[ExperimentRevision]:
        """The newest revisions, by name."""
        return [self._revisions[name] for name in sorted(self._revisions)]


class ExperimentsFromKafka(InMemoryExperiments):
    """Follows the topic `experiments` from its beginning, without a consumer group: every process sees all of it.

    Args:
        bootstrap: Kafka bootstrap servers.
    """

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        self.is_complete = False
        self._bootstrap = bootstrap
        self._running = AsyncExitStack()
        self._log = logger(__name__)

    async def __aenter__(self) -> Self:
        await self._running.enter_async_context(run_every(self._follow, _RETRY_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    async def _follow(self) -> None:
        """Read the topic from its beginning, until Kafka fails."""
        consumer = AIOKafkaConsumer(
            EXPERIMENTS.name,
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            request_timeout_ms=_REQUEST_MS,
        )
        try:
            await consumer.start()
            ends: dict[TopicPartition, int] = {}
            while True:
                ends = ends or await consumer.end_offsets(consumer.assignment())  # none before the topic is there
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        self.apply(record.value, record.offset)
                if ends and not self.is_complete:
                    self.is_complete = all([await consumer.position(at) >= end for at, end in ends.items()])
        except (KafkaError, OSError) as error:
            self._log.warning("experiments wait for Kafka", error=repr(error))
        finally:
            with suppress(KafkaError, OSError):
                await consumer.stop()

    def apply(self, value: bytes | None, offset: int) -> None:
        """Keep the revision in a record's value. A tombstone has none, and an unreadable value is logged."""
        if not value:
            return
        try:
            self.put(EXPERIMENTS.decode(value))
        except msgspec.DecodeError as error:
            self._log.warning("experiment can't be read", offset=offset, error=str(error))
