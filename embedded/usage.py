"""What the data folder takes by part, and the limit of each."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import size
from embedded.settings import StackSettings
from embedded.supervisor import FULL_BYTES


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the data: its size, and its limit in words."""

    name: str
    size_bytes: int
    limit: str


def parts_of(settings: StackSettings) -> list[Part]:
    """Kafka, Valkey, the services' journals, the workers' tables, logs, and what is left."""
    data = settings.data_folder
    journals = [path for path in data.glob("*/journal") if path.is_dir()]
    topics = size(settings.retention.total_bytes)
    logs = len(list(settings.logs.glob("*.log"))) * settings.log_limit_bytes
    parts = [
        Part("kafka", _size([data / "kafka"]), f"{topics} of events, and what compacted topics hold"),
        Part("valkey", _size([data / "valkey"]), "none: it holds the entities' features"),
        Part("journals", _size(journals), f"{size(len(journals) * settings.journal_limit_bytes)} not yet in Kafka"),
        Part("tables", _size(data.glob("*/worker*")), "none: they follow what is open for feedback"),
        Part("logs", _size([settings.logs]), size(logs)),
    ]
    rest = _size([data]) - sum(part.size_bytes for part in parts)
    return [*parts, Part("models, databases", max(0, rest), "none: what was registered and declared")]


def disk_remark(settings: StackSettings) -> str:
    """What an operator should know of the disk; empty while it has room."""
    free = shutil.disk_usage(settings.data_folder).free
    if free >= FULL_BYTES:
        return ""
    return (
        f"The disk of {settings.data_folder} is full ({size(free)} free): predictions and feedback are refused until "
        "there is room; everything goes on by itself then."
    )


def _size(folders: Iterable[Path]) -> int:
    """Bytes on disk of all files below, each as long as its blocks: Kafka's indexes are sparse."""
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
