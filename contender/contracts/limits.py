"""Limits that callers meet and that more than one place checks or shows.

Each limit of rows, texts and keys is the default of a setting; the others are fixed.
"""

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of models, experiments and variants."""
NAME_WORDS = "up to 100 letters, digits, dots, dashes and underscores, the first a letter or a digit"

ROWS = 1_000
"""Rows in one call for predictions."""
TEXT_CHARACTERS = 1_000
"""Characters of a unit, an input, a context value or a class."""
KEYS = 50
"""Keys of a row's entities, and of its context."""
FUTURE_S = 300.0
"""How far ahead of the router's clock a row's time may be: another clock's error."""

INTEGERS = 2**63
"""Whole numbers are below it in size."""
FLOAT32_MAX = (2 - 2**-23) * 2.0**127
"""The largest size of a number that models take."""

VARIANTS = (2, 10)
SHARES = (1e-6, 1.0)
"""A variant's weight, and an experiment's coverage."""
ALPHAS = (1e-9, 0.5)
TUNING_ROWS = (1, 10**9)
CYCLE_DAYS = (0, 366)
"""Days of a cycle; 0: none, for which an experiment gives a reason."""
MARGINS = (0.0, 1e12)
CATEGORIES = 200
"""Categories of a column that a version may name; a column with more is not told apart by its values."""
CATEGORY_CHARACTERS = 100
RULES = 20
"""Targeting rules of an experiment, and values of one of them a thousand at most."""
RULE_VALUES = 1_000
PATTERN_CHARACTERS = 200
FORCED_UNITS = 100
HOLDOUTS = (0.0, 0.5)
STEP_ROWS = (100, 10**9)
STEP_S = (1.0, 366 * 86_400.0)
BANDIT_FLOORS = (0.01, 0.5)
SEED_CHARACTERS = 100
REQUEST_ID_CHARACTERS = 200
DEADLINE_MS = 999_999_999
HORIZON_ROWS = (200, 10**9)
GUARDRAILS = 10
EARLY_S = (0.0, 86_400.0)
UNDECLARED_EARLY_S = 2.0
"""How long before its prediction an outcome may be known where nothing is declared.

It never changes: stored revisions, frames and entries that leave it out mean this.
"""
CLIPS = (1e-15, 0.1)
REASON_CHARACTERS = 500
EVIDENCE_CHARACTERS = 2_000
"""Characters of a verdict's sentence."""
SEGMENTS = 10
"""Keys of the context whose values an experiment's effect is shown for."""
SEGMENT_VALUES = 50
"""Values of such a key that are told apart; rarer ones count together."""
EXPLORATION_SHARES = (0.0, 0.5)
SHADOW_SHARES = (0.0, 1.0)
FORMULA_CHARACTERS = 1_000
ERROR_LIMITS = (1e-12, 1e12)
WALL_S = 300.0
"""How far the own time of a row may be off under the clock `wall`."""
WINDOWS_S = (1.0, 10 * 365.25 * 86_400)
"""From one second to ten years."""
