"""How large and how deep a manifest may be, told before it is decoded where that would cost much."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.inference_service import InputColumn
from services.inference_service.domain.bounds import (
    COLUMN_LIMIT,
    DEPTH_LIMIT,
    DESCRIPTION_LIMIT,
    FREE_LIMIT_BYTES,
    NAME_LIMIT,
    PART_LIMIT,
    check_free_part,
    check_json,
    check_texts,
    depth_of,
)
from shared.errors import InvalidField, TooLarge

LONG = "x" * (NAME_LIMIT + 1)
_VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\é,'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='{["\\'), inner, max_size=3),
    max_leaves=30,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(_VALUES, st.booleans())
def test_the_depth_is_that_of_the_lists_and_objects_whatever_the_texts_hold(value, ascii_only):
    content = json.dumps(value, ensure_ascii=ascii_only).encode()
    # A limit below what is there ends the counting one beyond it.
    assert depth_of(content, 0) == min(depth(value), 1)
    assert depth_of(b"[" * 60 + content + b"]" * 60, 50) == 51
    assert depth_of(b"[" * 60 + content + b"]" * 60, 59) == 60


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"[]" + b"}" * (levels - 1)


def test_json_nested_as_deep_as_the_limit_is_taken_and_one_level_more_is_not():
    check_json(nested(DEPTH_LIMIT), "manifest")
    with pytest.raises(InvalidField, match="deep"):
        check_json(nested(DEPTH_LIMIT + 1), "manifest")


@pytest.mark.parametrize("content", [b"[" * 10_000, b'{"a":' * 10_000, b'"' + b"[" * 50_000, b'{"a": "\\'])
def test_json_that_is_torn_is_judged_all_the_same(content):
    assert depth_of(content, DEPTH_LIMIT) in {0, DEPTH_LIMIT + 1}


@pytest.mark.parametrize("part", [b"[],", b"{},", b"1,", b'"",'])
def test_json_of_too_many_values_is_too_large(part):
    with pytest.raises(TooLarge, match="values"):
        check_json(b"[" + part * (PART_LIMIT + 1) + b"1]", "manifest")


def test_the_free_part_of_a_manifest_is_bounded_and_the_known_part_is_not_counted():
    large = "x" * FREE_LIMIT_BYTES
    check_free_part({"inputs": large, "notes": "short"}, ["inputs"])
    with pytest.raises(TooLarge, match="beside inputs"):
        check_free_part({"inputs": [], "notes": large}, ["inputs"])


@pytest.mark.parametrize(
    ("inputs", "classes", "description", "field"),
    [
        ([InputColumn("", "float")], [], "", "manifest.inputs."),
        ([InputColumn("  ", "float")], [], "", "manifest.inputs.  "),
        ([InputColumn(LONG, "float")], [], "", "manifest.inputs." + "x" * 99 + "…"),
        ([InputColumn("x", "float", tensor=LONG)], [], "", "manifest.inputs.x.tensor"),
        ([InputColumn("x", "string", null_text=LONG)], [], "", "manifest.inputs.x.null_text"),
        ([InputColumn("x", "float", source=f"view:{LONG}")], [], "", "manifest.inputs.x.source"),
        ([InputColumn("x", "float", source="view:")], [], "", "manifest.inputs.x.source"),
        ([InputColumn("x", "float", source=":feature")], [], "", "manifest.inputs.x.source"),
        ([InputColumn("x", "float", source="views")], [], "", "manifest.inputs.x.source"),
        ([InputColumn(f"c{number}", "float") for number in range(COLUMN_LIMIT + 1)], [], "", "manifest.inputs"),
        ([], [LONG], "", "manifest.classes"),
        ([], [], "x" * (DESCRIPTION_LIMIT + 1), "manifest.description"),
    ],
)
def test_names_and_texts_that_are_empty_or_too_long_are_refused_by_field(inputs, classes, description, field):
    with pytest.raises(InvalidField) as caught:
        check_texts(inputs, classes, description)
    assert [error.field for error in caught.value.errors] == [field]


def test_names_of_columns_sources_and_classes_as_people_write_them_are_taken():
    inputs = [InputColumn("Größe in cm", "float"), InputColumn("mean", "float", source="orders@2:mean_amount_1h")]
    check_texts(inputs, ["ja", 1, True, None], "What it is for.\n")
