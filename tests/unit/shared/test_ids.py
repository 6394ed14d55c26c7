"""Ids sort by time, can't be guessed, and name where a prediction lies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import FRAME_ID_LENGTH, PredictionId, new_frame_id


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_ids_sort_by_their_millisecond(first: float, second: float):
    earlier, later = sorted((first, second))
    if int(earlier * 1000) < int(later * 1000):
        assert new_frame_id(earlier) < new_frame_id(later)


def test_two_ids_of_one_moment_differ():
    assert len({new_frame_id(1.0) for _ in range(1000)}) == 1000
    assert len(new_frame_id(1.0)) == FRAME_ID_LENGTH


@given(st.floats(0, 4e9), st.integers(0, 4095), st.integers(0, 999_999))
def test_a_prediction_id_reads_back(now: float, shard: int, row: int):
    prediction = PredictionId(new_frame_id(now), shard, row)
    assert PredictionId.parse(str(prediction)) == prediction


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1-2-3",
        "0" * 26 + "-1",
        "0" * 26 + "-1-2-3",
        "0" * 26 + "--1-2",
        "U" * 26 + "-1-2",
        "0" * 26 + "-\N{ARABIC-INDIC DIGIT ONE}-2",
        "0" * 26 + "-1-\N{ARABIC-INDIC DIGIT TWO}",
    ],
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match="not a prediction id"):
        PredictionId.parse(text)
