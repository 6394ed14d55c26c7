"""The size of the data folder by part, and the limit of each part."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import format_size
from embedded.settings import StackSettings


@dataclass(frozen=True, slots=True)
class PartUsage:
    """A part of the data: its size, and its limit in words."""

    name: str
    size_bytes: int
    limit: str


def usage_by_part(settings: StackSettings) -> list[PartUsage]:
    """Kafka, Valkey, the services' journals, the workers' tables, logs, and the rest."""
    data = settings.data_folder
    journals = [path for path in data.glob("*/journal") if path.is_dir()]
    topics = format_size(settings.retention.total_bytes)
    logs = len(list(settings.logs.glob("*.log"))) * settings.log_limit_bytes
    parts = [
        PartUsage("kafka", _size([data / "kafka"]), f"{topics} of events, and the compacted topics"),
        PartUsage("valkey", _size([data / "valkey"]), "none: it grows with entities and their features"),
        PartUsage(
            "journals", _size(journals), f"{format_size(len(journals) * settings.journal_limit_bytes)} not yet in Kafka"
        ),
        PartUsage("tables", _size(data.glob("*/worker*")), "none: they grow with the predictions open for feedback"),
        PartUsage("logs", _size([settings.logs]), format_size(logs)),
    ]
    rest = _size([data]) - sum(part.size_bytes for part in parts)
    return [
        *parts,
        PartUsage("models, databases", max(0, rest), "none: all registered versions and declared experiments"),
    ]


def _size(folders: Iterable[Path]) -> int:
    """Bytes on disk of all files below, counted in blocks because Kafka's indexes are sparse."""
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            total += sum(_blocks(Path(parent, name)) for name in names)
    return total


def _blocks(path: Path) -> int:
    try:
        return path.stat(follow_symlinks=False).st_blocks * 512
    except OSError:  # removed meanwhile
        return 0
