"""What names and the values of events may be, online as in training sets: beyond it the two could not be the same."""

import re

NAME = re.compile(r"[a-z](?:[a-z0-9]|_(?=[a-z0-9])){0,62}")
"""Names of views and features. Two underscores in a row separate view and feature in the name of a column, so a name
has none, at its end neither."""

MOST_EXACT = 2**53
"""Whole numbers beyond this are not all float64s, and sums of them could not be exact."""

MOST_MAGNITUDE = 1e100
"""Squares of larger numbers could leave float64."""

MOST_CHARACTERS = 512
"""Of a text, which must have one at least: join keys stand in the keys of the store."""
