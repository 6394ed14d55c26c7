"""Whether an event fits its source: a known source, every column present and of its type, a possible time."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from contender.contracts.values import Scalar
from contender.features import Catalogue, ColumnType, Schema
from contender.features.limits import MOST_CHARACTERS, MOST_EXACT, MOST_MAGNITUDE
from shared.errors import shortened
from shared.events import EntityEvent

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class Fault(NamedTuple):
    """What is wrong with one field of an event."""

    field: str
    message: str


def fault(event: EntityEvent, catalogue: Catalogue, latest: float) -> Fault | None:
    """The first thing wrong with an event, its field named as in `values.dep_delay`; None where it fits.

    It fits its source as it is defined today, or as a kept version of a view still reads it: producers and definitions
    need not change in the same moment.

    Args:
        event: any event.
        catalogue: the definitions.
        latest: the latest time in seconds that is accepted: one far-future event would make all others late.
    """
    schemas = catalogue.schemas.get(event.source)
    if schemas is None:
        known = ", ".join(sorted(catalogue.schemas))
        return Fault("source", f"is {shortened(event.source)!r}, which is not defined; there are {known}")
    if not 0 <= event.time <= latest:
        return Fault("time", f"is {event.time}: expected seconds since 1970, not in the future")
    first = _misfit(event, schemas[0])
    if first is None or any(_misfit(event, schema) is None for schema in schemas[1:]):
        return None
    return first


def fits(values: Mapping[str, Scalar], reads: Sequence[tuple[str, ColumnType]]) -> bool:
    """Whether an event has the columns that a ring reads, in their types."""
    return all(column in values and not _mismatch(values[column], kind) for column, kind in reads)


def _misfit(event: EntityEvent, schema: Schema) -> Fault | None:
    if unknown := event.values.keys() - schema.keys():
        return Fault(f"values.{shortened(min(unknown))}", f"is not a column of source {event.source!r}")
    for column, kind in schema.items():
        if column not in event.values:
            return Fault(f"values.{column}", "is missing")
        if message := _mismatch(event.values[column], kind):
            return Fault(f"values.{column}", message)
    return None


def _mismatch(value: Scalar, kind: ColumnType) -> str:
    if isinstance(value, bool) or kind is bool:
        fits = isinstance(value, bool) and kind is bool
    elif kind is float:
        fits = isinstance(value, (int, float))
    else:
        fits = isinstance(value, kind)
    if not fits:
        return f"is {shortened(repr(value))}; expected {_NAMES[kind]}"
    if isinstance(value, str) and not 0 < len(value) <= MOST_CHARACTERS:
        return f"has {len(value)} characters; expected 1 to {MOST_CHARACTERS}"
    if isinstance(value, int) and abs(value) > MOST_EXACT:
        return "is beyond 2**53, up to which whole numbers are held exactly"
    if isinstance(value, float) and not (isfinite(value) and abs(value) <= MOST_MAGNITUDE):
        return f"is {value}; expected a finite number up to {MOST_MAGNITUDE:g}"
    return ""
