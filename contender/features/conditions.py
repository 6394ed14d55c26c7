"""Filters of events: `(column("delay") > 15) & column("carrier").among("UA", "DL")`."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

from contender.contracts.values import Scalar
from contender.features.errors import DefinitionError, caller

Value: TypeAlias = Scalar | tuple[Scalar, ...]
"""What a column is compared with."""

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MOST_LISTED = 1000
_PARENTHESES = "conditions are joined with conditions: put each comparison in parentheses"


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds for an event or does not. `op` is a comparison, `in`, `and`, `or` or `not`; compare with &, | and ~."""

    op: str
    column: str = ""
    value: Value = None
    parts: tuple["Condition", ...] = ()

    def __and__(self, other: "Condition") -> "Condition":
        """Both."""
        return Condition("and", parts=(self, _condition(other)))

    def __or__(self, other: "Condition") -> "Condition":
        """Either."""
        return Condition("or", parts=(self, _condition(other)))

    def __invert__(self) -> "Condition":
        """Holds where this does not."""
        return Condition("not", parts=(self,))

    def __bool__(self) -> bool:
        """Refuses: `and`, `or` and chained comparisons would silently lose a part."""
        raise DefinitionError("join conditions with & and |, each in parentheses, not with `and` or `or`", caller())

    @property
    def columns(self) -> Iterator[tuple[str, Value]]:
        """Every column it looks at, with what it is compared with."""
        if self.column:
            yield self.column, self.value
        for part in self.parts:
            yield from part.columns

    def fitted(self, fit: Callable[[str, Value], Value]) -> "Condition":
        """The same condition with what each column is compared with put through `fit`."""
        if self.column:
            return replace(self, value=fit(self.column, self.value))
        return replace(self, parts=tuple(part.fitted(fit) for part in self.parts))

    @property
    def words(self) -> str:
        """The condition as people read it."""
        if self.op == "not":
            return f"not ({self.parts[0].words})"
        if self.parts:
            return f" {self.op} ".join(f"({part.words})" for part in self.parts)
        if isinstance(self.value, tuple):
            return f"{self.column} among {', '.join(map(repr, self.value))}"
        return f"{self.column} {self.op} {self.value!r}"

    def holds(self, values: Mapping[str, Any]) -> Any:
        """Whether it holds for the values by column: of one event, or series of many (polars expressions too)."""
        if self.op == "not":
            return ~self.parts[0].holds(values) if _vector(values) else not self.parts[0].holds(values)
        if self.op in ("and", "or"):
            left, right = (part.holds(values) for part in self.parts)
            if _vector(values):
                return left & right if self.op == "and" else left | right
            return (left and right) if self.op == "and" else (left or right)
        value = values[self.column]
        if self.op == "in":
            return value.is_in(list(self.value)) if _vector(values) else value in self.value  # type: ignore[arg-type, operator]
        return _COMPARE[self.op](value, self.value)


class Column:
    """A column of a source, to be compared."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, value: Scalar) -> Condition:  # type: ignore[override]
        return self._compared("==", value)

    def __ne__(self, value: Scalar) -> Condition:  # type: ignore[override]
        return self._compared("!=", value)

    def __lt__(self, value: Scalar) -> Condition:
        return self._compared("<", value)

    def __le__(self, value: Scalar) -> Condition:
        return self._compared("<=", value)

    def __gt__(self, value: Scalar) -> Condition:
        return self._compared(">", value)

    def __ge__(self, value: Scalar) -> Condition:
        return self._compared(">=", value)

    def __rand__(self, other: object) -> NoReturn:
        """Refuses: & and | bind closer than comparisons, so nothing has been compared yet."""
        raise DefinitionError(_PARENTHESES, caller())

    __ror__ = __rand__
    __hash__ = None  # type: ignore[assignment]

    def among(self, *values: Scalar) -> Condition:
        """The column is one of these."""
        if not 0 < len(values) <= _MOST_LISTED:
            raise DefinitionError(f"among() takes from 1 to {_MOST_LISTED} values", caller())
        for value in values:
            self._check(value)
        return Condition("in", self.name, tuple(values))

    def _compared(self, op: str, value: Scalar) -> Condition:
        self._check(value)
        return Condition(op, self.name, value)

    def _check(self, value: object) -> None:
        if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise DefinitionError(
                f"column {self.name!r} is compared with {value!r}; compare it with a number, text, True or False, or "
                "with several of them by among()",
                caller(),
            )


def column(name: str) -> Column:
    """A column of the source, to be compared: `column("delay") > 15`."""
    return Column(name)


def check_filter(where: object, location: str) -> None:
    """Refuse a filter that is not a condition.

    Raises:
        DefinitionError: it is neither a condition nor None.
    """
    if where is not None and not isinstance(where, Condition):
        raise DefinitionError(f"where={where!r} is not a filter; write where=column('delay') > 15", location)


def condition_document(condition: Condition | None) -> list[Any] | None:
    """The condition as JSON: `[">", "delay", 15]`, `["and", [...], [...]]`."""
    if condition is None:
        return None
    if condition.parts:
        return [condition.op, *(condition_document(part) for part in condition.parts)]
    value = list(condition.value) if isinstance(condition.value, tuple) else condition.value
    return [condition.op, condition.column, value]


def condition_of(document: Sequence[Any] | None) -> Condition | None:
    """The condition that a document stands for."""
    if document is None:
        return None
    op, *rest = document
    if op in ("and", "or", "not"):
        return Condition(op, parts=tuple(part for operand in rest if (part := condition_of(operand)) is not None))
    name, value = rest
    return Condition(op, name, tuple(value) if isinstance(value, list) else value)


def _condition(other: object) -> Condition:
    if not isinstance(other, Condition):
        raise DefinitionError(_PARENTHESES, caller())
    return other


def _vector(values: Mapping[str, Any]) -> bool:
    """Whether the values are series or expressions, which have their own operators."""
    return hasattr(next(iter(values.values()), None), "is_in")
