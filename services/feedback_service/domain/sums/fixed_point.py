"""Sums of floats that are exact, so that they can be taken back, and their order leaves no trace.

Every finite float is a whole multiple of 2^-1074, the smallest one. Python's integers hold such multiples without
rounding, so adding a row and subtracting it again gives the same sum as before, which floats do not.
"""

_SHIFT = 1074
_UNIT = 1 << _SHIFT
_LARGEST_WHOLE = 1 << 53


def to_fixed_point(value: float) -> int:
    """The value in units of 2^-1074.

    Raises:
        OverflowError: the value is infinite.
        ValueError: the value is not a number.
    """
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_SHIFT + 1 - denominator.bit_length())


def from_fixed_point(units: int) -> float:
    """The float nearest to that many units of 2^-1074; a whole number is an int, which is stored in fewer bytes."""
    whole = units >> _SHIFT
    return whole if whole << _SHIFT == units else units / _UNIT


def pack(units: int) -> int | bytes:
    """Pack units of 2^-1074 into few bytes: a whole number stays an int.

    Others become the number of zero bits at their end (2 bytes), then the rest.
    """
    whole = units >> _SHIFT
    if whole << _SHIFT == units and abs(whole) < _LARGEST_WHOLE:
        return whole
    zeros = max(0, (units & -units).bit_length() - 1)
    rest = units >> zeros
    return zeros.to_bytes(2) + rest.to_bytes(rest.bit_length() // 8 + 1, signed=True)


def unpack(packed: int | bytes) -> int:
    """The units that were packed."""
    if isinstance(packed, int):
        return packed << _SHIFT
    return int.from_bytes(packed[2:], signed=True) << int.from_bytes(packed[:2])
