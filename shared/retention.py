"""How much the topics keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LARGEST_SEGMENT_BYTES = 128 * 1024**2
SMALLEST_SEGMENT_BYTES = 16 * 1024**2
"""A segment takes the largest record with its batch."""

_SEGMENTS = 8
"""Retention works by whole segments: with so many of them the limit is exceeded by an eighth at most."""

COMPACTED: Mapping[str, str] = MappingProxyType(
    {
        # Compaction alone: with a retention time the oldest predictions of a long experiment would fall out.
        "cleanup.policy": "compact",
        # A worker that was away for less than this reads every deletion.
        "delete.retention.ms": "86400000",
        # The newest segment is never compacted, and of the others a quarter may be outdated.
        "min.cleanable.dirty.ratio": "0.2",
        "segment.bytes": str(SMALLEST_SEGMENT_BYTES),
    }
)
"""The configuration of topics that keep the newest record of each key."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What topics of events keep: everything for so many seconds, and at most so many bytes of each topic.

    The bytes are those of all partitions together; 0 is no limit.
    """

    seconds: float
    bytes_by_topic: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """What all these topics keep at most."""
        return sum(self.bytes_by_topic.values())

    def configuration(self, topic: str, partitions: int) -> dict[str, str]:
        """The topic's configuration in Kafka's names and units: bytes by partition, time in milliseconds."""
        limit = self.bytes_by_topic.get(topic, 0) // partitions
        segment = min(max(limit // _SEGMENTS, SMALLEST_SEGMENT_BYTES), LARGEST_SEGMENT_BYTES)
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(round(self.seconds * 1000)),
            "retention.bytes": str(limit or -1),
            "segment.bytes": str(segment if limit else LARGEST_SEGMENT_BYTES),
        }
