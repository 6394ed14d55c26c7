"""Formulas: a small safe language in which an experiment declares one number, or one condition, for each row.

`if(outcome == 'late', 20, 0) - if(score > 0.3, 2, 0)` has all that there is, but for `null`, `min`, `max` and `abs`.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from sys import float_info
from typing import Self

from contender.contracts.limits import FORMULA_CHARACTERS
from contender.contracts.values import Scalar

SCORE = "score"
"""The name whose comparison with a number makes that number a threshold."""

DEPTH = 30
"""Parentheses, calls and signs within each other: a reader's limit, and it keeps recursion short."""

_NAMES_SHOWN = 20
_Value = Callable[[Mapping[str, Scalar]], Scalar]


class FormulaError(ValueError):
    """A text is no formula, or its value can't be computed. `position` counts the characters before the place."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class Formula:
    """One number for each row, computed from named values.

    It has numbers, texts ('late' or "late"), true, false, null, names, + - * /, comparisons, and, or, not,
    if(condition, then, else), min(a, b, ...), max(a, b, ...), abs(a) and parentheses. A name is made of letters,
    digits and _, with . or : between its parts. In arithmetic, and where they are compared, true and false are 1 and 0;
    a condition is a number that is not 0. Any two values may be equal or not, and 1 is not '1'.

    `names` are those it uses, and `is_condition` says that it is always true or false. `threshold` is the number that
    the name `score` is compared with by < <= > or >=; None where it is compared so with no number, or with several.
    """

    text: str
    names: frozenset[str]
    is_condition: bool
    threshold: float | None
    _thresholds: tuple[tuple[int, int], ...] = field(repr=False, compare=False)
    _value: _Value = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, names: Collection[str] | None = None) -> Self:
        """Read a formula that may use these names; None: any.

        Raises:
            FormulaError: it is too long, nested too deeply, has a name that is not among them, or is no formula.
        """
        if len(text) > FORMULA_CHARACTERS:
            raise FormulaError(f"has more than {FORMULA_CHARACTERS} characters", FORMULA_CHARACTERS)
        return cls._parsed(text, names)

    @classmethod
    def _parsed(cls, text: str, names: Collection[str] | None) -> Self:
        parser = _Parser(text, names)
        part = parser.formula()
        numbers = {number for number, _, _ in parser.thresholds}
        threshold = numbers.pop() if len(numbers) == 1 else None
        spans = tuple((start, end) for _, start, end in parser.thresholds)
        return cls(text, frozenset(parser.used), part.is_condition, threshold, spans, part.value)

    def value(self, values: Mapping[str, Scalar]) -> float:
        """The number for a row with these values by name; one that is absent is null. True is 1, false 0.

        Raises:
            FormulaError: it has a text or null where a number is needed, divides by zero, or gets too large.
        """
        return _number(self._value(values), 0)

    def with_threshold(self, threshold: float) -> Self:
        """The same formula with another threshold.

        Raises:
            FormulaError: it has none, or the number is not finite.
        """
        if self.threshold is None or not isfinite(threshold):
            raise FormulaError(
                "has no threshold: no single number that score is compared with, or the other is infinite", 0
            )
        text = self.text
        for start, end in reversed(self._thresholds):
            text = f"{text[:start]}{float(threshold)!r}{text[end:]}"
        return self._parsed(text, None)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a formula; `number` and `name` are set where it is nothing else."""

    value: _Value
    start: int
    end: int
    is_condition: bool = False
    number: float | None = None
    name: str = ""

    def number_of(self, values: Mapping[str, Scalar]) -> float:
        return _number(self.value(values), self.start) if self.number is None else self.number

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        return self.number_of(values) != 0.0


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    kind: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def words(self) -> str:
        return repr(self.text) if self.text else "an end"


class _Parser:
    """Recursive descent, one method for each rank of operators; a chain of one rank is a loop."""

    def __init__(self, text: str, names: Collection[str] | None) -> None:
        self._tokens = _tokens(text)
        self._names = names
        self._at = 0
        self._depth = 0
        self.used: set[str] = set()
        self.thresholds: list[tuple[float, int, int]] = []

    def formula(self) -> _Part:
        part = self._either()
        if self._next.text:
            raise self._unexpected("an operator or its end")
        return part

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _is_next(self, symbols: Collection[str]) -> bool:
        return self._next.kind == "symbol" and self._next.text in symbols

    def _expect(self, symbol: str) -> _Token:
        if not self._is_next([symbol]):
            raise self._unexpected(repr(symbol))
        return self._take()

    def _unexpected(self, expected: str) -> FormulaError:
        token = self._next
        return FormulaError(f"has {token.words} at position {token.start}, where {expected} is expected", token.start)

    def _nested(self, parse: Callable[[], _Part]) -> _Part:
        self._depth += 1
        if self._depth > DEPTH:
            position = self._next.start
            raise FormulaError(f"is nested more than {DEPTH} deep at position {position}", position)
        part = parse()
        self._depth -= 1
        return part

    def _either(self) -> _Part:
        return self._joined("or", any, self._both)

    def _both(self) -> _Part:
        return self._joined("and", all, self._negation)

    def _joined(self, word: str, join: Callable[..., bool], operand: Callable[[], _Part]) -> _Part:
        parts = [operand()]
        while self._is_next([word]):
            self._take()
            parts.append(operand())
        if len(parts) == 1:
            return parts[0]
        return _Part(
            lambda values: join(part.holds(values) for part in parts), parts[0].start, parts[-1].end, is_condition=True
        )

    def _negation(self) -> _Part:
        if not self._is_next(["not"]):
            return self._comparison()
        start = self._take().start
        part = self._nested(self._negation)
        return _Part(lambda values: not part.holds(values), start, part.end, is_condition=True)

    def _comparison(self) -> _Part:
        left = self._sum()
        if not self._is_next(_COMPARISONS):
            return left
        sign = self._take().text
        compare = _COMPARISONS[sign]
        right = self._sum()
        if self._is_next(_COMPARISONS):
            raise self._unexpected("`and` between two comparisons")
        if sign in _EQUALITIES:
            return _Part(
                lambda values: compare(left.value(values), right.value(values)),
                left.start,
                right.end,
                is_condition=True,
            )
        for score, number in ((left, right), (right, left)):
            if score.name == SCORE and number.number is not None:
                self.thresholds.append((number.number, number.start, number.end))
        return _Part(
            lambda values: compare(left.number_of(values), right.number_of(values)),
            left.start,
            right.end,
            is_condition=True,
        )

    def _sum(self) -> _Part:
        return self._chain(_SUMS, self._product)

    def _product(self) -> _Part:
        return self._chain(_PRODUCTS, self._signed)

    def _chain(self, operators: Mapping[str, Callable[[float, float], float]], operand: Callable[[], _Part]) -> _Part:
        first = operand()
        rest: list[tuple[Callable[[float, float], float], _Part]] = []
        while self._is_next(operators):
            rest.append((operators[self._take().text], operand()))
        if not rest:
            return first

        def value(values: Mapping[str, Scalar]) -> float:
            result = first.number_of(values)
            for operate, part in rest:
                number = part.number_of(values)
                if operate is operator.truediv and number == 0.0:
                    raise FormulaError(f"divides by zero at position {part.start}", part.start)
                result = operate(result, number)
            return result

        return _Part(value, first.start, rest[-1][1].end)

    def _signed(self) -> _Part:
        if not self._is_next(["-"]):
            return self._operand()
        start = self._take().start
        part = self._nested(self._signed)
        if part.number is not None:
            return _constant(-part.number, start, part.end)
        return _Part(lambda values: -part.number_of(values), start, part.end)

    def _operand(self) -> _Part:
        token = self._next
        if token.kind == "number":
            number = float(self._take().text)
            if not isfinite(number):
                raise FormulaError(f"has a number that is too large at position {token.start}", token.start)
            return _constant(number, token.start, token.end)
        if token.kind == "text":
            return _constant(self._take().text[1:-1], token.start, token.end)
        if token.kind == "name":
            return self._named(self._take())
        if self._is_next(["("]):
            self._take()
            part = self._nested(self._either)
            self._expect(")")
            return part
        raise self._unexpected("a value")

    def _named(self, token: _Token) -> _Part:
        name = token.text
        if name in _WORDS:
            return _constant(_WORDS[name], token.start, token.end)
        if name in _FUNCTIONS:
            return self._call(token)
        if self._names is not None and name not in self._names:
            known = [*self._names][:_NAMES_SHOWN] + ["others"] * (len(self._names) > _NAMES_SHOWN)
            raise FormulaError(
                f"has no name {name!r} at position {token.start}; it may use {', '.join(known)}", token.start
            )
        self.used.add(name)
        return _Part(lambda values: values.get(name), token.start, token.end, name=name)

    def _call(self, token: _Token) -> _Part:
        least, most, build = _FUNCTIONS[token.text]
        self._expect("(")
        parts = [self._nested(self._either)]
        while self._is_next([","]):
            self._take()
            parts.append(self._nested(self._either))
        end = self._expect(")").end
        if not least <= len(parts) <= most:
            wanted = f"{least}" if least == most else f"at least {least}"
            raise FormulaError(
                f"has {token.text} of {len(parts)} values at position {token.start}; it takes {wanted}", token.start
            )
        is_choice = build is _choice
        return _Part(build(parts), token.start, end, is_choice and all(part.is_condition for part in parts[1:]))


def _constant(value: Scalar, start: int, end: int) -> _Part:
    is_condition = isinstance(value, bool)
    number = value if isinstance(value, float) else None
    return _Part(lambda _: value, start, end, is_condition, number)


def _choice(parts: Sequence[_Part]) -> _Value:
    condition, then, otherwise = parts
    return lambda values: (then if condition.holds(values) else otherwise).value(values)


def _of_all(function: Callable[[Sequence[float]], float]) -> Callable[[Sequence[_Part]], _Value]:
    return lambda parts: lambda values: function([part.number_of(values) for part in parts])


def _number(value: Scalar, position: int) -> float:
    if type(value) is float and -float_info.max <= value <= float_info.max:  # as most are: it saves time
        return value
    if isinstance(value, int | float) and abs(value) <= float_info.max:
        return float(value)
    words = "null" if value is None else f"the text {value[:50]!r}" if isinstance(value, str) else "no finite number"
    raise FormulaError(f"needs a number at position {position} and has {words}", position)


def _tokens(text: str) -> list[_Token]:
    """The tokens of a text, and an empty one at its end."""
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            fault = "a text without its second quote" if text[position] in "'\"" else repr(text[position])
            raise FormulaError(f"has {fault} at position {position}, which no formula has", position)
        kind = str(match.lastgroup)
        if kind != "space":
            tokens.append(_Token(match.group(), position, "symbol" if match.group() in _OPERATORS else kind))
        position = match.end()
    return [*tokens, _Token("", len(text), "symbol")]


_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?!\w))
    | (?P<text>'[^']*'|"[^"]*")
    | (?P<name>[^\W\d]\w*(?:[.:]\w+)*)
    | (?P<symbol>[=!<>]=|[-+*/<>(),])""",
    re.VERBOSE,
)
_OPERATORS = ("and", "or", "not")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_EQUALITIES: dict[str, Callable[[Scalar, Scalar], bool]] = {"==": operator.eq, "!=": operator.ne}
_COMPARISONS: dict[str, Callable[..., bool]] = {
    **_EQUALITIES,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SUMS: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub}
_PRODUCTS: dict[str, Callable[[float, float], float]] = {"*": operator.mul, "/": operator.truediv}
_FUNCTIONS: dict[str, tuple[int, int, Callable[[Sequence[_Part]], _Value]]] = {
    "if": (3, 3, _choice),
    "min": (2, FORMULA_CHARACTERS, _of_all(min)),
    "max": (2, FORMULA_CHARACTERS, _of_all(max)),
    "abs": (1, 1, _of_all(lambda numbers: abs(numbers[0]))),
}
