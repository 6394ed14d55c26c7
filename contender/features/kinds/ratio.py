"""One feature of a view divided by another."""

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np

from contender.contracts.values import Scalar
from contender.features.errors import DefinitionError, caller
from contender.features.kinds.kind import Aggregation, Features, with_name
from contender.features.tiles import Floats


class Ratio(Aggregation):
    """One feature of a view divided by another; null where either is null or the divisor is 0."""

    kind = "ratio"
    is_whole = False

    @classmethod
    def over(
        cls, numerator: Features, denominator: Features, *, name: str, description: str = "", default: Scalar = None
    ) -> Features:
        """One feature of the view divided by another, window by window; null where either is null or divides by 0."""
        location = caller()
        sides: Any = (numerator, denominator)  # people type what comes to mind
        for side in sides:
            if isinstance(side, str) or not all(isinstance(feature, Aggregation) for feature in side):
                message = f"ratio {name!r}: {side!r} is not a feature; give one as it is defined, such as count('1h')"
                raise DefinitionError(message, location)
        if len(numerator) != len(denominator):
            raise DefinitionError(f"ratio {name!r}: the two sides have different numbers of windows", location)
        for feature in (*numerator, *denominator):
            if feature.is_list or feature.of:
                raise DefinitionError(f"ratio {name!r}: {feature.kind} is not a number to divide", location)
        pairs = zip(numerator, denominator, strict=True)
        features = [cls(None, pair[0].window, name, description, None, pair, default, location) for pair in pairs]
        several = len(features) > 1
        return tuple(with_name(feature, f"{name}_{feature.window}" if several else name) for feature in features)

    @property
    def words(self) -> str:
        """The aggregation in words."""
        return " / ".join(f"({part.filtered_words})" for part in self.of)

    def combine(self, parts: Sequence[Floats]) -> Floats:
        """The quotient of both sides."""
        numerator, denominator = parts
        with np.errstate(all="ignore"):
            return np.where(denominator == 0, nan, numerator / denominator)


ratio = Ratio.over
