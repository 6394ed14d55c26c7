"""How metrics that do not decide allow for their number."""

from collections.abc import Mapping


def holm(p: Mapping[str, float], tests: int) -> dict[str, float]:
    """p-values adjusted by Holm's step-down, by the same names.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979. The
    least is multiplied by the number of tests, the next by one less, and none is less than one before it.

    Args:
        p: by test.
        tests: how many there are; those that `p` lacks count as 1.
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (tests - rank) * p[name]))
        adjusted[name] = largest
    return adjusted
