"""Rows as frames of bounded size: one that grew beyond what suits Kafka becomes several."""

from collections.abc import Callable, Iterator, Sequence, Sized
from math import ceil
from typing import Generic, NamedTuple, TypeVar

RowT = TypeVar("RowT")
EncodedT = TypeVar("EncodedT", bound=Sized)
FRAME_BYTES = 1024**2
"""About how large a frame becomes: what Kafka takes by its own defaults, and a fraction of LARGEST_RECORD_BYTES."""


class Part(NamedTuple, Generic[EncodedT]):
    """A frame as it is encoded, and the number of its first row."""

    start: int
    encoded: EncodedT


def split(
    rows: Sequence[RowT], encode: Callable[[Sequence[RowT]], EncodedT], limit_bytes: int = FRAME_BYTES
) -> list[Part[EncodedT]]:
    """Rows, in order, in as many frames as it takes for each to have at most `limit_bytes`, or one row.

    The same rows are always split alike, and rows that fit in one frame are encoded once.

    Args:
        rows: what to encode.
        encode: makes a frame; its length is that of the record's value in bytes.
        limit_bytes: how long a frame of several rows may be.
    """
    return list(_parts(rows, encode, limit_bytes, 0)) if rows else []


def _parts(
    rows: Sequence[RowT], encode: Callable[[Sequence[RowT]], EncodedT], limit_bytes: int, start: int
) -> Iterator[Part[EncodedT]]:
    encoded = encode(rows)
    if len(encoded) <= limit_bytes or len(rows) == 1:
        yield Part(start, encoded)
        return
    step = max(1, len(rows) // ceil(len(encoded) / limit_bytes))
    for first in range(0, len(rows), step):
        yield from _parts(rows[first : first + step], encode, limit_bytes, start + first)
