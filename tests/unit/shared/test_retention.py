"""What the settings say that topics keep, as Kafka counts it."""

import pytest

from shared.retention import LARGEST_SEGMENT_BYTES, SMALLEST_SEGMENT_BYTES, Retention
from shared.settings import Settings
from shared.topics import ALL, LARGEST_RECORD_BYTES, PARKED_NAME


@pytest.mark.parametrize(
    ("limit", "partitions", "retention", "segment"),
    [
        (4 * 1024**3, 4, str(1024**3), LARGEST_SEGMENT_BYTES),
        (2 * 1024**3, 4, str(512 * 1024**2), 64 * 1024**2),
        (100 * 1024**2, 8, str(100 * 1024**2 // 8), SMALLEST_SEGMENT_BYTES),
        (0, 4, "-1", LARGEST_SEGMENT_BYTES),
    ],
)
def test_a_limit_of_a_topic_is_shared_by_its_partitions(limit, partitions, retention, segment):
    configuration = Retention(3600, {"events": limit}).configuration("events", partitions)
    assert configuration == {
        "cleanup.policy": "delete",
        "retention.ms": "3600000",
        "retention.bytes": retention,
        "segment.bytes": str(segment),
    }


def test_every_topic_of_events_has_a_limit_and_no_other_topic():
    settings = Settings()
    limited = {topic.name for topic in ALL if not topic.compacted} | {PARKED_NAME}
    assert set(settings.retention.bytes_by_topic) == limited
    assert all(settings.retention.bytes_by_topic.values())
    assert settings.retention.total_bytes < 12 * 1024**3  # a laptop has that


def test_the_largest_record_fits_into_the_smallest_segment():
    assert LARGEST_RECORD_BYTES + 64 * 1024 < SMALLEST_SEGMENT_BYTES
