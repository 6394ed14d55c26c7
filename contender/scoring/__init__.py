"""Scoring the rows of files: `contender score`."""

from contender.extras import needs_extra

with needs_extra("notebook", "scoring files"):
    from contender.scoring.columns import RowColumns, columns_of
    from contender.scoring.files import describe, score_file
    from contender.scoring.parts import Scored

__all__ = ["RowColumns", "Scored", "columns_of", "describe", "score_file"]
