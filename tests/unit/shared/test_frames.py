"""Rows become frames of bounded size, in order and always alike; and the limits of records fit into one another."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from embedded.kafka import BROKER_SETTINGS
from shared.publisher import REQUEST_LIMIT_BYTES
from shared.topics import FRAME_BYTES, LARGEST_RECORD_BYTES, split


def test_what_the_journal_takes_the_producer_takes_and_the_broker():
    assert FRAME_BYTES < LARGEST_RECORD_BYTES < REQUEST_LIMIT_BYTES <= BROKER_SETTINGS["message.max.bytes"]


@given(st.lists(st.text("x", max_size=60), max_size=60), st.integers(10, 100))
def test_every_row_is_in_one_frame_and_only_a_single_row_may_be_too_large(rows: list[str], limit: int):
    parts = split(rows, msgspec.json.encode, limit)
    held = [msgspec.json.decode(part.encoded) for part in parts]
    assert [row for frame in held for row in frame] == rows
    starts = [0]
    for frame in held:
        starts.append(starts[-1] + len(frame))
    assert [part.start for part in parts] == starts[:-1]
    assert all(len(part.encoded) <= limit or len(frame) == 1 for part, frame in zip(parts, held, strict=True))


def test_rows_that_fit_are_encoded_once():
    calls: list[int] = []

    def encode(rows: list[int]) -> bytes:
        calls.append(len(rows))
        return msgspec.json.encode(rows)

    ((start, encoded),) = split([1, 2, 3], encode)
    assert (start, encoded, calls) == (0, b"[1,2,3]", [3])
