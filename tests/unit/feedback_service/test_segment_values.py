"""Segments of rows: which values are told apart, and their sums, whatever the interleaving and the crashes."""

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contender.contracts import limits
from services.feedback_service.domain.entries import BlockEntry, decode_frame, encode_frame, frame_entry
from services.feedback_service.domain.segment_values import note_values, segment_column
from services.feedback_service.domain.snapshots import is_segment, ledger_of, segment_of
from shared.events import PredictionFrame
from tests.unit.feedback_service.test_join import (
    Record,
    Worker,
    at_rest,
    block,
    catch_up,
    feedback,
    numbers,
    predictions,
    topics_of,
)


def entry_of(**changes) -> BlockEntry:
    frame = frame_entry(PredictionFrame([block(**changes)]), 0, 0.0)
    return decode_frame(encode_frame(frame, 0.0)).blocks[0]


def test_values_are_kept_as_texts_as_json_spells_them():
    values = ["JFK", 3, 2.5, True, None, float("nan"), 2**70, "x" * 101, "JFK"]
    entry = entry_of(rows=9, segments=["origin", "absent"], context={"origin": values, "other": values})
    assert list(entry.segments) == ["origin"]
    texts, codes = entry.segments["origin"]
    assert texts[:4] == ["JFK", "3", "2.5", "true"]
    assert float(texts[4]) == 2.0**70
    assert texts[5].startswith("sha256:")
    assert list(codes) == [0, 1, 2, 3, 255, 255, 4, 5, 0]


def test_a_block_names_254_values():
    texts, codes = segment_column([str(number) for number in range(300)] + ["7"])
    assert len(texts) == 254
    assert list(codes[250:]) == [250, 251, 252, 253, *[254] * 46, 7]


def test_a_context_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"context\[.origin.\] has 1 entries for 2 rows"):
        entry_of(segments=["origin"], context={"origin": ["JFK"]})


@given(st.text(), st.none() | st.text())
def test_a_ledger_names_its_key_and_value(key, value):
    assert is_segment(ledger_of(key, value))
    assert segment_of(ledger_of(key, value)) == (key, value)


def test_keys_and_values_are_known_up_to_their_limits():
    known: dict[str, list[str]] = {}
    for key in range(limits.SEGMENTS + 1):
        note_values(known, {str(key): segment_column(list(range(60)))})
    assert list(known) == [str(key) for key in range(limits.SEGMENTS)]
    assert known["0"] == [str(value) for value in range(limits.SEGMENT_VALUES)]


@st.composite
def histories(draw) -> tuple[list[Record], random.Random]:
    """Frames that fill the list of values of one key, and leave that of another open, with reports on their rows."""
    frames = []
    for number in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, 60))
        context = {
            "origin": [first + row for row in range(30)],
            "carrier": draw(st.lists(st.sampled_from(["AA", "UA", None]), min_size=30, max_size=30)),
        }
        missing = draw(st.sampled_from(["excluded", "negative"]))
        frames.append(
            predictions(
                f"f{number}",
                block(rows=30, at=86_380.0 + number, segments=["origin", "carrier"], context=context, missing=missing),
                offset=number,
            )
        )
    event = st.tuples(
        st.sampled_from(["f0", "f1", "f2"]),
        st.integers(0, 29),
        st.sampled_from([0, 1, "neither"]),
        st.sampled_from([86_450.0, 86_460.0, 90_000.0]),
    )
    reports = [
        feedback(*draw(st.lists(event, min_size=1, max_size=6)), offset=number)
        for number in range(draw(st.integers(0, 5)))
    ]
    # Two rows later in time, which make the others mature.
    last = predictions("last", block(at=90_000.0), offset=len(frames))
    return [*frames, *reports, last], random.Random(draw(st.integers(0, 2**32)))


def plain_rows(records: list[Record]) -> Counter[tuple[str, str | None]]:
    """Rows that count by segment, counted plainly: the first values of a key in the order of the topic are known."""
    known: dict[str, list[str]] = {"origin": [], "carrier": []}
    rows: Counter[tuple[str, str | None]] = Counter()
    outcomes = plain_outcomes(records)
    blocks = [(frame_id, part) for _, _, frame_id, frame in records[:-1] for part in getattr(frame, "blocks", [])]
    for frame_id, part in blocks:
        for row, time in enumerate(part.time):
            timely = any(at <= time + part.window_s for at in outcomes.get((frame_id, row), []))
            for key, listed in known.items():
                value = str(part.context[key][row])
                if value not in ("None", *listed) and len(listed) < 50:
                    listed.append(value)
                if value != "None" and (timely or part.missing == "negative"):
                    rows[key, value if value in listed else None] += 1
    return rows


def plain_outcomes(records: list[Record]) -> dict[tuple[str, int], list[float]]:
    """When the valid outcomes of each row were known."""
    outcomes = defaultdict(list)
    for _, _, _, frame in records:
        for event in getattr(frame, "events", []):
            if event.outcome != "neither":
                outcomes[event.frame_id, event.row].append(event.given_at)
    return outcomes


@settings(deadline=None)
@given(histories())
def test_segments_are_the_same_whatever_the_interleaving_and_the_crashes(history):
    records, chance = history
    topics = topics_of(records)
    straight = Worker(topics, random.Random(0))
    while straight.step():
        pass
    catch_up(straight.join)
    straight.flush()
    expected = at_rest(numbers(straight.join))
    assert at_rest(Worker(topics, chance).run()) == expected
    rows: Counter[tuple[str, str | None]] = Counter()
    for group in expected.groups:
        for cohort in group.cohorts:
            assert cohort.is_matured or not any(map(is_segment, cohort.ledgers))
            for name, sums in ((name, sums) for name, sums in cohort.ledgers.items() if is_segment(name)):
                rows[segment_of(name)] += sum(sums.rows.values())
                assert set(sums.totals) == {"log_loss", "brier", "accuracy"}
                assert max(sums.rows) < 20
        assert all(not any(map(is_segment, day.totals)) for day in group.days)
    assert rows == plain_rows(records)
