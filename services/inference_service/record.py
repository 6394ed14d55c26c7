"""What the trial of a version has found, kept beside its file: what it costs, and a row that it answers."""

import msgspec

from contender.contracts.values import Scalar
from services.inference_service.domain.cost import RULES

_QUICK_ROW_MS = 1.0
_QUICK_OPENING_MS = 2_000.0


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a version, and a row that it answers.

    Args:
        rules: number of the rules by which the graph was judged (see domain.cost).
        bounded: by them, memory and time of a run follow from the number of rows, and a large run kept to its limit.
        opening_ms: time of opening the model.
        row_ms: time of a row, the larger of a row alone and a row among many.
        reference: a value for each column of a row that has a score; empty where none is known.
    """

    rules: int = RULES
    bounded: bool = False
    opening_ms: float = 0.0
    row_ms: float = 0.0
    reference: dict[str, Scalar] = {}

    @property
    def quick(self) -> bool:
        """Whether the version may run in the threads of the web process."""
        return self.bounded and self.row_ms < _QUICK_ROW_MS and self.opening_ms < _QUICK_OPENING_MS
