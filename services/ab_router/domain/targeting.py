"""Which conditions on the context an experiment may declare."""

import math
import re
from collections.abc import Iterator

import msgspec

from contender.contracts import limits
from contender.contracts.experiments import TargetingRule
from contender.contracts.values import Scalar
from shared.errors import FieldError

_KEY_CHARACTERS = 100
_ALL_PERCENT = 100.0
_KINDS = "equals, one_of, low and high, matches, percent"


def rule_faults(rule: TargetingRule) -> Iterator[FieldError]:
    """The faults of a rule; their fields are those of the rule."""
    if not 0 < len(rule.key) <= _KEY_CHARACTERS:
        yield FieldError("key", f"must be a key of the context, of 1 to {_KEY_CHARACTERS} characters")
    kinds = [
        rule.equals is not msgspec.UNSET,
        rule.one_of is not msgspec.UNSET,
        rule.low is not None or rule.high is not None,
        bool(rule.matches),
        rule.percent is not None,
    ]
    if sum(kinds) != 1:
        yield FieldError("", f"has {sum(kinds)} kinds of condition; expected exactly one of {_KINDS}")
        return
    if rule.equals is not msgspec.UNSET and not _is_value(rule.equals):
        yield FieldError("equals", f"must be finite, and at most {limits.TEXT_CHARACTERS:,} characters")
    if rule.one_of is not msgspec.UNSET:
        yield from _value_faults(rule.one_of)
    for name, bound in (("low", rule.low), ("high", rule.high)):
        if bound is not None and not math.isfinite(bound):
            yield FieldError(name, "must be a finite number; leave it out where there is no bound")
    if rule.low is not None and rule.high is not None and rule.low > rule.high:
        yield FieldError("low", "must not be above high")
    if fault := _pattern_fault(rule.matches):
        yield FieldError("matches", fault)
    if rule.percent is not None and not 0 < rule.percent <= _ALL_PERCENT:
        yield FieldError("percent", f"must be above 0 and at most {_ALL_PERCENT:g}")


def _value_faults(values: list[Scalar]) -> Iterator[FieldError]:
    if not 0 < len(values) <= limits.RULE_VALUES:
        yield FieldError("one_of", f"has {len(values):,} values; expected 1 to {limits.RULE_VALUES:,}")
    elif not all(map(_is_value, values)):
        yield FieldError("one_of", f"must have finite values of at most {limits.TEXT_CHARACTERS:,} characters")


def _is_value(value: Scalar) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or len(value) <= limits.TEXT_CHARACTERS


def _pattern_fault(pattern: str) -> str:
    if len(pattern) > limits.PATTERN_CHARACTERS:
        return f"is longer than {limits.PATTERN_CHARACTERS} characters"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a regular expression: {error}"
    return ""
