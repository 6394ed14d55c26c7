"""The hash is GrowthBook's: its own cases, and its Python package as an oracle."""

import json
from pathlib import Path

import pytest
from growthbook.core import chooseVariation, gbhash, getBucketRanges, inNamespace
from hypothesis import given
from hypothesis import strategies as st

from contender.assignment import bucket, choose, fnv1a32, in_namespace, ranges

CASES = Path(__file__).parents[4] / "shared" / "data" / "growthbook_cases.json"
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too, as JavaScript has them
UNIT_TEXT = st.one_of(st.text(), ANY_TEXT, st.text(st.characters(min_codepoint=0x10000)), st.uuids().map(str))
SHARES = st.lists(st.integers(1, 1000), min_size=1, max_size=10).map(
    lambda parts: [part / sum(parts) for part in parts]
)
WEIGHTS = st.one_of(st.none(), SHARES, st.lists(st.floats(0, 1), max_size=10))
PLACES = st.integers(0, 9_999).map(lambda step: step / 10_000)


@pytest.fixture(scope="module")
def cases() -> dict[str, list]:
    if not CASES.exists():
        pytest.skip("GrowthBook's cases are not here: ../shared/data/growthbook_cases.json, beside the repository")
    return json.loads(CASES.read_text(encoding="utf-8"))


def test_buckets_are_those_of_growthbooks_cases(cases):
    buckets = [[seed, unit, version, bucket(seed, unit, version)] for seed, unit, version, _ in cases["hash"]]
    assert len(buckets) == 15
    assert buckets == cases["hash"]


def test_ranges_are_those_of_growthbooks_cases(cases):
    assert len(cases["getBucketRange"]) == 13
    for name, (count, coverage, weights), expected in cases["getBucketRange"]:
        computed = ranges(count, coverage, weights)
        assert computed == [pytest.approx(tuple(limits), abs=1e-12) for limits in expected], name


def test_choices_are_those_of_growthbooks_cases(cases):
    assert len(cases["chooseVariation"]) == 13
    for name, point, among, expected in cases["chooseVariation"]:
        assert choose(point, among) == expected, name


def test_namespaces_are_those_of_growthbooks_cases(cases):
    assert len(cases["inNamespace"]) == 16
    for name, unit, namespace, expected in cases["inNamespace"]:
        assert in_namespace(unit, tuple(namespace)) is expected, name


def test_the_hash_is_the_published_fnv_1a():
    published = {"": 0x811C9DC5, "a": 0xE40C292C, "foobar": 0xBF9CF968}
    assert {text: fnv1a32(text) for text in published} == published


def test_an_astral_character_counts_as_javascripts_two_code_units():
    assert fnv1a32("unit \U0001f6eb") == fnv1a32("unit \ud83d\udeeb")


@given(seed=UNIT_TEXT, unit=UNIT_TEXT, version=st.integers(0, 3))
def test_any_unit_has_the_bucket_that_growthbook_gives_it(seed, unit, version):
    assert bucket(seed, unit, version) == gbhash(seed, unit, version)


@given(count=st.integers(0, 10), coverage=st.floats(-1, 2), weights=WEIGHTS)
def test_any_weights_have_the_ranges_that_growthbook_gives_them(count, coverage, weights):
    assert ranges(count, coverage, weights) == getBucketRanges(count, coverage, weights)


@given(shares=SHARES, coverage=st.floats(0, 1), point=PLACES)
def test_any_place_falls_to_the_variant_that_growthbook_chooses(shares, coverage, point):
    theirs = chooseVariation(point, getBucketRanges(len(shares), coverage, shares))
    assert choose(point, ranges(len(shares), coverage, shares)) == theirs


@given(unit=UNIT_TEXT, name=UNIT_TEXT, low=st.floats(0, 1), high=st.floats(0, 1))
def test_any_unit_is_in_the_namespaces_that_growthbook_puts_it_in(unit, name, low, high):
    assert in_namespace(unit, (name, low, high)) == inNamespace(unit, (name, low, high))


@given(shares=SHARES, point=PLACES)
def test_full_coverage_leaves_no_place_between_the_ranges(shares, point):
    among = ranges(len(shares), 1.0, shares)
    assert choose(point, among) >= 0 or point >= among[-1][1]


def test_additions_are_made_one_after_another_as_growthbook_makes_them():
    # A compensated sum, as Python's own is from 3.12 on, would give 0.6 and move the unit at that place.
    assert ranges(4, 1.0, [0.1, 0.2, 0.3, 0.4])[3][0] == (0.1 + 0.2) + 0.3 != 0.6
