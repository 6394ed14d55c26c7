"""GrowthBook's hash (specVersion 0.8.0), so that an application may compute the same assignment."""

import struct
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

_OFFSET = 0x811C9DC5
_PRIME = 0x01000193
_MASK = 0xFFFFFFFF
STEPS = 10_000
"""Values that the second version of the hash has: no share is finer."""
_V1_STEPS = 1_000
Range = tuple[float, float]


def fnv1a32(text: str, start: int = _OFFSET) -> int:
    """FNV-1a, 32 bits, over UTF-16 code units as JavaScript's strings have them.

    Args:
        text: any text.
        start: the hash of a text that stands before it.
    """
    value = start
    for unit in _code_units(text):
        value = (value ^ unit) * _PRIME & _MASK
    return value


def _code_units(text: str) -> Sequence[int]:
    if text.isascii():
        return text.encode()
    units = text.encode("utf-16-le", "surrogatepass")
    return struct.unpack(f"<{len(units) // 2}H", units)


class SeededHash:
    """The second version of the hash with a seed that is hashed once for all units."""

    def __init__(self, seed: str) -> None:
        self._start = fnv1a32(seed)

    def bucket(self, unit: str) -> float:
        """The unit's bucket in [0, 1)."""
        return fnv1a32(str(fnv1a32(unit, self._start))) % STEPS / STEPS


def bucket(seed: str, unit: str, version: int = 2) -> float | None:
    """A unit's bucket in [0, 1); None for an unknown version of the hash."""
    if version == 2:  # noqa: PLR2004
        return SeededHash(seed).bucket(unit)
    if version == 1:
        return fnv1a32(unit + seed) % _V1_STEPS / _V1_STEPS
    return None


def ranges(count: int, coverage: float, weights: Sequence[float] | None) -> list[Range]:
    """Half-open ranges of the variants: [cumulative, cumulative + coverage * weight).

    Weights whose number differs from the count, or that don't add up to about 1, are replaced by equal ones.
    """
    covered = min(1.0, max(0.0, coverage))
    equal = [1 / count] * count if count else []
    shares = list(weights) if weights is not None and len(weights) == count else equal
    if not 0.99 <= sum(shares) <= 1.01:  # noqa: PLR2004 - GrowthBook's tolerance
        shares = equal
    # Added one after another, as GrowthBook does: Python's own sum compensates from 3.12 on.
    starts = list(accumulate(shares, initial=0.0))[:count]
    return [(start, start + covered * share) for start, share in zip(starts, shares, strict=True)]


def counted_shares(weights: Sequence[float], coverage: float) -> tuple[float, ...]:
    """The share of the hash's steps that lies in each variant's range."""
    return _counted_shares(tuple(weights), coverage)


@lru_cache(maxsize=256)
def _counted_shares(weights: tuple[float, ...], coverage: float) -> tuple[float, ...]:
    steps = [step / STEPS for step in range(STEPS)]
    bounds = ranges(len(weights), coverage, weights)
    return tuple((bisect_left(steps, high) - bisect_left(steps, low)) / STEPS for low, high in bounds)


def choose(unit_bucket: float, among: Sequence[Range]) -> int:
    """Index of the first range that holds the bucket; -1 when none does."""
    return next((index for index, (low, high) in enumerate(among) if low <= unit_bucket < high), -1)


def in_namespace(unit: str, namespace: tuple[str, float, float]) -> bool:
    """Whether a unit is within a namespace's range."""
    return is_in_namespace(fnv1a32(unit), namespace)


def is_in_namespace(unit_hash: int, namespace: tuple[str, float, float]) -> bool:
    """As `in_namespace`; `unit_hash` is the unit's `fnv1a32`, which serves all namespaces of a row."""
    name, low, high = namespace
    return low <= fnv1a32(f"__{name}", unit_hash) % _V1_STEPS / _V1_STEPS < high
