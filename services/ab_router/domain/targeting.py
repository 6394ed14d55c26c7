"""Targeting: conditions on a row's context, checked when they are declared and compiled once for all rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, isfinite

import msgspec
import re2

from contender.contracts import limits
from contender.contracts.experiments import TargetingRule
from contender.contracts.problems import FieldError
from contender.contracts.values import Scalar
from services.ab_router.domain.hashing import STEPS, SeededHash

Context = Mapping[str, Scalar]
Condition = Callable[[Context], bool]
_PERCENTAGES = (100 / STEPS, 100.0)
"""Steps of the hash, in percent: the finest share is one of them."""
_PATTERN_BYTES = 1024**2
"""Memory of one compiled pattern, its cache of states included."""
_PATTERN_STEPS = 1_000
"""Instructions of a compiled pattern. RE2 takes time in their number times the text's length: 3 ms at most here."""
_KINDS = "equals, one_of, low and high, matches, percent"


def rule_faults(rule: TargetingRule) -> list[FieldError]:
    """The faults of a declared rule, by its fields; that of the rule as a whole has an empty one."""
    faults = [*_kind_faults(rule), *_value_faults(rule), *_number_faults(rule)]
    if not 1 <= len(rule.key) <= limits.TEXT_CHARACTERS:
        faults.insert(0, ("key", f"must have 1 to {limits.TEXT_CHARACTERS} characters"))
    if rule.matches and (fault := _pattern_fault(rule.matches)):
        faults.append(("matches", fault))
    return [FieldError(field, message) for field, message in faults]


def all_met(rules: Sequence[TargetingRule], seed: str) -> Condition | None:
    """The condition that a context meets all of the rules; None where there are none.

    Args:
        rules: without faults.
        seed: the experiment's, so that two experiments take different percentages of the same values.
    """
    conditions = [_condition(rule, seed) for rule in rules]
    if not conditions:
        return None
    if len(conditions) == 1:
        return conditions[0]
    return lambda context: all(is_met(context) for is_met in conditions)


def _condition(rule: TargetingRule, seed: str) -> Condition:
    key = rule.key
    is_met = _value_condition(rule, seed)

    def is_met_by(context: Context) -> bool:
        return key in context and is_met(context[key])

    return is_met_by


def _value_condition(rule: TargetingRule, seed: str) -> Callable[[Scalar], bool]:
    if rule.matches:
        return _matching(rule.matches)
    if rule.percent is not None:
        return _drawn(SeededHash(f"{seed}/percent/{rule.key}"), rule.percent)
    if rule.low is not None or rule.high is not None:
        low = -inf if rule.low is None else rule.low
        high = inf if rule.high is None else rule.high
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    values = [rule.equals] if rule.equals is not msgspec.UNSET else _listed(rule)
    among = frozenset(_comparable(value) for value in values)
    return lambda value: value == value and _comparable(value) in among  # noqa: PLR0124 - NaN equals nothing


def _listed(rule: TargetingRule) -> Sequence[Scalar]:
    return () if rule.one_of is msgspec.UNSET else rule.one_of


def _comparable(value: Scalar) -> tuple[object, ...]:
    """A value with its kind: 1, true and "1" differ, and 1 and 1.0 are the same number of JSON."""
    if isinstance(value, bool):
        return ("boolean", value)
    return ("number" if isinstance(value, int | float) else "text", value)


def _matching(pattern: str) -> Callable[[Scalar], bool]:
    """Whether a text matches. A pattern that this release can't compile, from a store of another, matches nothing."""
    try:
        compiled = _compiled(pattern)
    except (re2.error, UnicodeEncodeError):
        return lambda _: False

    def is_matched(value: Scalar) -> bool:
        try:
            return isinstance(value, str) and compiled.fullmatch(value) is not None
        except UnicodeEncodeError:  # half of a surrogate pair, which no pattern can name
            return False

    return is_matched


def _drawn(hashed: SeededHash, percent: float) -> Callable[[Scalar], bool]:
    """Whether a value is among the percentage; a null has no value to draw by."""
    share = percent / 100
    return lambda value: value is not None and value == value and hashed.bucket(_text(value)) < share  # noqa: PLR0124


def _text(value: Scalar) -> str:
    """A text as it is, anything else as JSON has it; whole numbers without a point."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode()


def _kind_faults(rule: TargetingRule) -> Iterator[tuple[str, str]]:
    kinds = [
        rule.equals is not msgspec.UNSET,
        rule.one_of is not msgspec.UNSET,
        rule.low is not None or rule.high is not None,
        bool(rule.matches),
        rule.percent is not None,
    ]
    if sum(kinds) != 1:
        yield "", f"must have exactly one of {_KINDS}"


def _value_faults(rule: TargetingRule) -> Iterator[tuple[str, str]]:
    if rule.one_of is not msgspec.UNSET and not 1 <= len(rule.one_of) <= limits.RULE_VALUES:
        yield "one_of", f"must have 1 to {limits.RULE_VALUES} values"
    for name, values in (("equals", [rule.equals]), ("one_of", _listed(rule))):
        if any(isinstance(value, float) and not isfinite(value) for value in values):
            yield name, "must have finite numbers: others equal nothing"
        if any(isinstance(value, str) and len(value) > limits.TEXT_CHARACTERS for value in values):
            yield name, f"has a text of more than {limits.TEXT_CHARACTERS} characters, which no context has"


def _number_faults(rule: TargetingRule) -> Iterator[tuple[str, str]]:
    for name, bound in (("low", rule.low), ("high", rule.high)):
        if bound is not None and not isfinite(bound):
            yield name, "must be a finite number; leave it out where there is no bound"
    if rule.low is not None and rule.high is not None and rule.low > rule.high:
        yield "low", "must not be above high"
    low, high = _PERCENTAGES
    if rule.percent is not None and not low <= rule.percent <= high:
        yield "percent", f"must be from {low:g} to {high:g}"


def _pattern_fault(pattern: str) -> str:
    if len(pattern) > limits.PATTERN_CHARACTERS:
        return f"is longer than {limits.PATTERN_CHARACTERS} characters"
    try:
        steps = _compiled(pattern).programsize
    except UnicodeEncodeError:
        return "has half of a surrogate pair"
    except re2.error as error:
        return f"is not a regular expression as RE2 takes them: {_reason(error)}"
    return "is too large when compiled: use fewer or smaller repetitions" if steps > _PATTERN_STEPS else ""


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def _compiled(pattern: str) -> "re2._Regexp":
    """A pattern that takes linear time whatever the text: RE2 does not backtrack."""
    options = re2.Options()
    options.max_mem = _PATTERN_BYTES
    options.log_errors = False
    options.never_capture = True
    return re2.compile(pattern, options)
