"""Drops from a compiled lock what belongs to one machine: the project's own folder and local options."""

import re
import sys
from pathlib import Path

OWN_ENTRY = re.compile(r"(?:^# .*\n)*^contender-ml @ .*\n(?:^    #.*\n)*", re.MULTILINE)
LOCAL_OPTION = re.compile(r"^--.*\n+", re.MULTILINE)


def strip(lock: str) -> str:
    """The lock without the project's own entry, which pip cannot hash, and without index options."""
    return LOCAL_OPTION.sub("", OWN_ENTRY.sub("", lock))


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(strip(source.read_text()))
