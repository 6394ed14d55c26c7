"""Rows as live ones may be: changed from those that a pipeline was fitted on."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contender.registration.rows import Rows

SEED = 0
_PERTURBED = 4_000
"""About how many changed rows are tried besides the caller's."""
_EACH = 40


def changed_rows(rows: Rows, guarded: Collection[int]) -> Iterator[tuple[str, Rows]]:
    """Rows as live ones may be: fractions where training had whole numbers, extremes, and values between.

    Args:
        rows: the caller's.
        guarded: indices of columns that take whole numbers alone.
    """
    chance = np.random.default_rng(SEED)
    numbers = [
        index
        for index, column in enumerate(rows.columns)
        if column.dtype == "float"
        and index not in guarded
        and not isinstance(rows.frame.dtypes.iloc[index], pd.CategoricalDtype)
    ]
    if not numbers:
        return
    each = max(2, min(_EACH, _PERTURBED // (4 * len(numbers)), len(rows)))
    values = {index: rows.frame.iloc[:, index].astype(object).map(_number).to_numpy(float) for index in numbers}
    numbers = [index for index in numbers if not np.isnan(values[index]).all()]
    if not numbers:
        return
    spans = {index: (np.nanmin(values[index]), np.nanmax(values[index])) for index in numbers}
    bases = []
    for index in numbers:
        low, high = spans[index]
        picked = chance.integers(0, len(rows), each)
        new = [values[index][picked] + 0.5, values[index][picked] + 0.25, np.full(2, low), np.full(2, high)]
        new.append(chance.uniform(low, high, each))
        replacements = np.concatenate(new)
        base = np.concatenate([picked, picked, picked[:2], picked[:2], picked])
        bases.append((base, {index: replacements}))
    picked = chance.integers(0, len(rows), min(len(rows), 5 * _EACH))
    bases.append((picked, {index: chance.uniform(*spans[index], len(picked)) for index in numbers}))
    yield "fractions, extremes and values between", rows.with_columns(_with(rows.frame, values, bases))


def _with(
    frame: pd.DataFrame,
    values: Mapping[int, NDArray[np.float64]],
    bases: Sequence[tuple[NDArray[Any], Mapping[int, NDArray[np.float64]]]],
) -> pd.DataFrame:
    """Rows of the frame by their positions, with other numbers in some columns, as floats; nulls stay."""
    positions = np.concatenate([base for base, _ in bases])
    changed = {index: values[index][positions] for index in bases[-1][1]}
    begin = 0
    for base, new in bases:
        for index, replacements in new.items():
            part = changed[index][begin : begin + len(base)]
            part[:] = np.where(np.isnan(part), np.nan, replacements)
        begin += len(base)
    others = frame.iloc[positions].reset_index(drop=True)
    columns = [pd.Series(changed[n]) if n in changed else others.iloc[:, n] for n in range(frame.shape[1])]
    return pd.concat(columns, axis=1).set_axis(frame.columns, axis=1)


def _number(value: Any) -> float:
    return np.nan if value is None or value is pd.NA else float(value)
