"""The hash of assignment, which applications may compute as well."""

from contender.assignment import (
    STEPS,
    Range,
    SeededHash,
    bucket,
    choose,
    counted_shares,
    fnv1a32,
    in_namespace,
    is_in_namespace,
    ranges,
)

__all__ = [
    "STEPS",
    "Range",
    "SeededHash",
    "bucket",
    "choose",
    "counted_shares",
    "fnv1a32",
    "in_namespace",
    "is_in_namespace",
    "ranges",
]
