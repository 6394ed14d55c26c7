"""Limits of names and of events' values, online and in training sets alike: beyond them the two could differ."""

import re

NAME = re.compile(r"[a-z](?:[a-z0-9]|_(?=[a-z0-9])){0,62}")
"""Names of views and features. Two underscores in a row separate view and feature in the name of a column, so a name
has no two in a row and none at its end."""

MOST_EXACT = 2**53
"""Whole numbers beyond this are not all float64s, and sums of them could not be exact."""

MOST_MAGNITUDE = 1e100
"""Squares of larger numbers could leave float64."""

MOST_CHARACTERS = 512
"""The longest text; an empty one is refused. Join keys are part of the store's keys."""
