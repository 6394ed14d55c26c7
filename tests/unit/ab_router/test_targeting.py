"""Which contexts meet a rule, whatever their types, and which rules may be declared."""

from math import inf, nan
from time import process_time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.experiments import TargetingRule
from contender.contracts.limits import PATTERN_CHARACTERS, RULE_VALUES, TEXT_CHARACTERS
from services.ab_router.domain.hashing import bucket
from services.ab_router.domain.targeting import all_met, rule_faults

BOMBS = ("(a+)+$", "(a|aa)+$", "(.*a){10}b", "(a?){100}a{100}", "(([a-z]+)*)*!", "(x+x+)+y", "(a|a)*b")
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), st.sampled_from(["", "1", "true"]))


def meets(rule: TargetingRule, **context: object) -> bool:
    assert rule_faults(rule) == []
    is_met = all_met([rule], "seed")
    assert is_met is not None
    return is_met(context)


def test_a_value_equals_only_one_of_its_own_type():
    for value in (1, True, "1", None, "true", 0, False, ""):
        same = [other for other in (1, True, "1", None, "true", 0, False, "") if other is value]
        for rule in (TargetingRule("k", equals=value), TargetingRule("k", one_of=[value, "another"])):
            matched = [other for other in (1, True, "1", None, "true", 0, False, "") if meets(rule, k=other)]
            assert [(type(each), each) for each in matched] == [(type(each), each) for each in same]


def test_a_number_is_the_same_with_and_without_a_point():
    assert meets(TargetingRule("k", equals=1), k=1.0)
    assert meets(TargetingRule("k", one_of=[2.0]), k=2)


@pytest.mark.parametrize(
    "rule",
    [
        TargetingRule("k", equals=None),
        TargetingRule("k", one_of=[None, 1, ""]),
        TargetingRule("k", low=-1.0),
        TargetingRule("k", high=1.0),
        TargetingRule("k", matches=".*"),
        TargetingRule("k", percent=100.0),
    ],
)
def test_neither_a_missing_key_nor_nan_meets_any_rule(rule):
    assert not meets(rule, other=1)
    assert not meets(rule, k=nan)


def test_the_bounds_of_a_range_are_in_it_and_texts_and_booleans_are_not():
    rule = TargetingRule("k", low=0.0, high=1.0)
    values = (0, 1, 0.5, 1.0, -0.001, 1.001, True, False, "0.5", None, 10**400, -(10**400))
    assert [value for value in values if meets(rule, k=value)] == [0, 1, 0.5, 1.0]
    assert meets(TargetingRule("k", low=5.0), k=10**400)
    assert not meets(TargetingRule("k", high=5.0), k=10**400)


def test_a_pattern_matches_the_whole_of_a_text():
    rule = TargetingRule("k", matches="(?i)nl|be")
    values = ("nl", "BE", "nle", "xnl", "", 1, True, None, "nl\n", "\ud800")
    assert [value for value in values if meets(rule, k=value)] == ["nl", "BE"]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pattern_that_would_backtrack_for_ever_takes_some_milliseconds(bomb):
    began = process_time()
    assert not meets(TargetingRule("k", matches=bomb), k="a" * (TEXT_CHARACTERS - 1) + "\u00e4")
    assert process_time() - began < 0.1


def test_a_percentage_is_drawn_by_the_second_hash_with_a_seed_of_its_own():
    rule = TargetingRule("tenant", percent=30.0)
    tenants = [f"tenant-{number}" for number in range(5_000)]
    chosen = {tenant for tenant in tenants if meets(rule, tenant=tenant)}
    assert chosen == {tenant for tenant in tenants if bucket("seed/percent/tenant", tenant) < 0.3}
    assert len(chosen) / 5_000 == pytest.approx(0.3, abs=0.02)
    wider = {tenant for tenant in tenants if meets(TargetingRule("tenant", percent=60.0), tenant=tenant)}
    assert chosen < wider
    other = all_met([rule], "another seed")
    both = {tenant for tenant in chosen if other({"tenant": tenant})}
    assert len(both) / len(chosen) == pytest.approx(0.3, abs=0.05)


def test_a_percentage_of_a_hundred_takes_all_values_but_null():
    rule = TargetingRule("k", percent=100.0)
    assert all(meets(rule, k=value) for value in ("", "a", 0, 1.5, True, False, 2**62))
    assert not meets(rule, k=None)
    assert meets(TargetingRule("k", percent=40.0), k=7) == meets(TargetingRule("k", percent=40.0), k=7.0)


def test_a_stored_pattern_that_this_release_can_not_compile_matches_nothing_and_harms_nobody():
    for pattern in ("(?=a)", "(a", "\ud800", r"(a)\1"):
        is_met = all_met([TargetingRule("k", matches=pattern)], "seed")
        assert not is_met({"k": "a"})


def test_all_rules_are_to_be_met():
    rules = [TargetingRule("country", one_of=["NL", "BE"]), TargetingRule("age", low=18.0)]
    is_met = all_met(rules, "seed")
    assert is_met({"country": "NL", "age": 18})
    assert not is_met({"country": "NL", "age": 17})
    assert not is_met({"country": "NL"})
    assert all_met([], "seed") is None


@given(declared=SCALARS, value=SCALARS)
def test_equals_and_one_of_agree_with_json(declared, value):
    def kind(scalar: object) -> type:
        return bool if isinstance(scalar, bool) else float if isinstance(scalar, int | float) else type(scalar)

    expected = kind(declared) is kind(value) and declared == value
    assert meets(TargetingRule("k", equals=declared), k=value) == expected
    assert meets(TargetingRule("k", one_of=[declared]), k=value) == expected


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        (TargetingRule("k"), [""]),
        (TargetingRule("k", equals=1, matches="a"), [""]),
        (TargetingRule("k", one_of=["a"], percent=5.0), [""]),
        (TargetingRule("k", low=1.0, matches="a"), [""]),
        (TargetingRule("", equals=1), ["key"]),
        (TargetingRule("k" * (TEXT_CHARACTERS + 1), equals=1), ["key"]),
        (TargetingRule("k", equals=nan), ["equals"]),
        (TargetingRule("k", equals="x" * (TEXT_CHARACTERS + 1)), ["equals"]),
        (TargetingRule("k", one_of=[]), ["one_of"]),
        (TargetingRule("k", one_of=["a"] * (RULE_VALUES + 1)), ["one_of"]),
        (TargetingRule("k", one_of=[1, inf]), ["one_of"]),
        (TargetingRule("k", low=2.0, high=1.0), ["low"]),
        (TargetingRule("k", low=nan), ["low"]),
        (TargetingRule("k", low=-inf, high=inf), ["low", "high"]),
        (TargetingRule("k", percent=0.0), ["percent"]),
        (TargetingRule("k", percent=0.001), ["percent"]),
        (TargetingRule("k", percent=100.1), ["percent"]),
        (TargetingRule("k", percent=nan), ["percent"]),
        (TargetingRule("k", matches="a" * (PATTERN_CHARACTERS + 1)), ["matches"]),
        (TargetingRule("k", matches="(a"), ["matches"]),
        (TargetingRule("k", matches=r"(a)\1"), ["matches"]),
        (TargetingRule("k", matches="(?=a)"), ["matches"]),
        (TargetingRule("k", matches="(a{1000}){1000}"), ["matches"]),
        (TargetingRule("k", matches="(.{1,30}){1,30}b"), ["matches"]),
        (TargetingRule("k", matches="\ud800"), ["matches"]),
    ],
)
def test_a_faulty_rule_names_its_field(rule, fields):
    faults = rule_faults(rule)
    assert [fault.field for fault in faults] == fields
    assert all(fault.message for fault in faults)


def test_a_rule_comes_from_json_as_it_was_declared():
    for rule in (TargetingRule("k", equals=None), TargetingRule("k", one_of=[1, True, "1", None])):
        again = msgspec.json.decode(msgspec.json.encode(rule), type=TargetingRule)
        for value in (1, True, "1", None, 2):
            assert meets(again, k=value) == meets(rule, k=value)
