"""Formulas: what they mean, what they refuse and where, and that no text does harm."""

import math
import operator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contender.contracts.formula import DEPTH, Formula, FormulaError
from contender.contracts.limits import FORMULA_CHARACTERS

NAMES = ["outcome", "score", "label", "plan"]
ROW = {"outcome": "late", "score": 0.4, "label": "on time", "plan": 3, "paid": True, "empty": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("if(outcome == 'late', 20, 0) - if(score > 0.3, 2, 0)", 18.0),
        ('outcome == "late"', 1.0),
        ("2 + 3 * 4 - 10 / 4", 11.5),
        ("8 - 4 - 2", 2.0),
        ("(8 - (4 - 2)) / 3 / 2", 1.0),
        ("-plan * --2", -6.0),
        ("min(plan, 2, score) + max(1, plan) + abs(-2)", 5.4),
        ("true or empty", 1.0),
        ("not paid and empty", 0.0),
        ("not score < .4 and not label == outcome", 1.0),
        ("paid == 1", 1.0),
        ("paid + paid", 2.0),
        ("plan == '3'", 0.0),
        ("empty == null", 1.0),
        ("if(empty == null, 0, empty)", 0.0),
        ("if(plan, 1e2, 1 / 0)", 100.0),
        ("unheard:of.name == null", 1.0),
    ],
)
def test_a_formula_gives_a_number(text, value):
    assert Formula.parse(text).value(ROW) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        (
            "if(scor > 0.3, 1, 0)",
            3,
            "has no name 'scor' at position 3; it may use outcome, score, label, plan",
        ),
        ("", 0, "has an end at position 0, where a value is expected"),
        ("1 +", 3, "has an end at position 3, where a value is expected"),
        ("score score", 6, "has 'score' at position 6, where an operator or its end is expected"),
        ("0 < score < 1", 10, "has '<' at position 10, where `and` between two comparisons is expected"),
        ("2 ** 3", 3, "has '*' at position 3, where a value is expected"),
        ("score = 1", 6, "has '=' at position 6, which no formula has"),
        ("label == 'late", 9, "has a text without its second quote at position 9, which no formula has"),
        ("if(score, 1)", 0, "has if of 2 values at position 0; it takes 3"),
        ("1 + min(score)", 4, "has min of 1 values at position 4; it takes at least 2"),
        ("1e999", 0, "has a number that is too large at position 0"),
        ("__import__('os')", 0, "has no name '__import__' at position 0; it may use outcome, score, label, plan"),
        ("score.real", 0, "has no name 'score.real' at position 0; it may use outcome, score, label, plan"),
        ("score[0]", 5, "has '[' at position 5, which no formula has"),
        ("lambda: 1", 6, "has ':' at position 6, which no formula has"),
        ("(" * 500, DEPTH + 1, f"is nested more than {DEPTH} deep at position {DEPTH + 1}"),
        ("-" * 900 + "1", DEPTH + 1, f"is nested more than {DEPTH} deep at position {DEPTH + 1}"),
        ("not " * 200 + "true", 4 * DEPTH + 4, f"is nested more than {DEPTH} deep at position {4 * DEPTH + 4}"),
        ("1" * (FORMULA_CHARACTERS + 1), FORMULA_CHARACTERS, f"has more than {FORMULA_CHARACTERS} characters"),
    ],
)
def test_what_is_no_formula_is_refused_with_its_position(text, position, message):
    with pytest.raises(FormulaError) as caught:
        Formula.parse(text, NAMES)
    assert (caught.value.position, str(caught.value)) == (position, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + outcome", "needs a number at position 4 and has the text 'late'"),
        ("empty * 2", "needs a number at position 0 and has null"),
        ("score > empty", "needs a number at position 8 and has null"),
        ("'a' < 'b'", "needs a number at position 0 and has the text 'a'"),
        ("outcome", "needs a number at position 0 and has the text 'late'"),
        ("1 / (plan - 3)", "divides by zero at position 5"),
        ("1e300 * 1e300", "needs a number at position 0 and has no finite number"),
        ("if(outcome, 1, 0)", "needs a number at position 3 and has the text 'late'"),
    ],
)
def test_a_value_that_cant_be_computed_is_an_error(text, message):
    with pytest.raises(FormulaError) as caught:
        Formula.parse(text).value(ROW)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400])
def test_an_input_beyond_all_numbers_is_an_error(value):
    with pytest.raises(FormulaError):
        Formula.parse("plan").value({"plan": value})


def test_a_long_chain_is_no_deep_one():
    chain = "+".join("1" * (FORMULA_CHARACTERS // 2))
    assert Formula.parse(chain).value({}) == FORMULA_CHARACTERS // 2


@pytest.mark.parametrize(
    ("text", "is_condition"),
    [
        ("score < 0.3", True),
        ("not score", True),
        ("(true)", True),
        ("if(label == 1, score < 0.3, false)", True),
        ("if(label == 1, score < 0.3, 0)", False),
        ("min(true, false)", False),
        ("score", False),
    ],
)
def test_a_condition_is_always_true_or_false(text, is_condition):
    assert Formula.parse(text).is_condition is is_condition


@pytest.mark.parametrize(
    ("text", "threshold", "moved"),
    [
        ("if(score > 0.3, 2, 0)", 0.3, "if(score > 0.25, 2, 0)"),
        ("(.3 >= (score)) * .3 + (score > 0.30)", 0.3, "(0.25 >= (score)) * .3 + (score > 0.25)"),
        ("score < -1", -1.0, "score < 0.25"),
        ("score > 0.3 and score < 0.4", None, None),
        ("score == 0.3", None, None),
        ("plan > 0.3", None, None),
        ("score * 2 > 0.3", None, None),
        ("score > plan", None, None),
    ],
)
def test_the_threshold_is_the_one_number_that_score_is_compared_with(text, threshold, moved):
    formula = Formula.parse(text)
    assert formula.threshold == threshold
    if moved is None:
        with pytest.raises(FormulaError, match="no threshold"):
            formula.with_threshold(0.25)
    else:
        assert formula.with_threshold(0.25) == Formula.parse(moved)
        assert formula.with_threshold(-1e-9).with_threshold(formula.threshold).value({"score": -2}) == formula.value(
            {"score": -2}
        )


def test_a_formula_says_which_names_it_uses():
    assert Formula.parse("if(plan == 'late', score, true)", NAMES).names == {"plan", "score"}


@given(st.text(max_size=80) | st.text("()+-*/<>=! 01.e'\"ifnotadr,score", max_size=200))
@example("9" * 500)
@example("if(" * 100)
def test_no_text_raises_anything_but_a_formula_error(text):
    position = 0
    try:
        Formula.parse(text).value({"score": 0.5})
    except FormulaError as error:
        position = error.position
    assert 0 <= position <= len(text)


NUMBERS = st.floats(0.0, 1e6).map(lambda number: (repr(number), number))


def _operation(operands):
    (left, x), (sign, operate), (right, y) = operands
    return f"({left} {sign} {right})", operate(x, y)


def _choice(operands):
    (left, x), (right, y) = operands
    return f"if({left} <= {right}, max({left}, {right}), -{left})", max(x, y) if x <= y else -x


SIGNS = st.sampled_from([("+", operator.add), ("-", operator.sub), ("*", operator.mul)])


@given(
    st.recursive(
        NUMBERS,
        lambda inner: st.tuples(inner, SIGNS, inner).map(_operation) | st.tuples(inner, inner).map(_choice),
        max_leaves=6,
    )
)
def test_a_printed_formula_has_the_value_that_it_was_printed_from(printed):
    text, value = printed
    if len(text) <= FORMULA_CHARACTERS and math.isfinite(value):
        assert Formula.parse(text).value({}) == value
