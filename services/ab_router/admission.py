"""How many rows may be under way: a call for which there is no room is refused before any of its rows is assigned."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contender.contracts.ab_router import PredictionRow
from services.ab_router.requests import size_bytes
from services.ab_router.settings import RouterSettings
from shared.errors import Overloaded


class Admission:
    """Counts the rows under way, by model and in all, and their bytes.

    A refusal depends on the model alone. If it depended on the version that a row is assigned to, an arm that is slow
    would lose rows that the other arm keeps, and their comparison would be skewed.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._rows: Counter[str] = Counter()
        self._bytes = 0

    @contextmanager
    def admit(self, model: str, rows: Sequence[PredictionRow]) -> Iterator[list[int]]:
        """Count rows as under way for the length of the block, which gets the bytes of each.

        Raises:
            Overloaded: there is no room for them.
        """
        limits = self._settings
        sizes = [size_bytes(row) for row in rows]
        added = sum(sizes)
        if (
            self._rows[model] + len(rows) > limits.model_queue_limit
            or self._rows.total() + len(rows) > limits.queue_limit
            or self._bytes + added > limits.queue_limit_bytes
        ):
            raise Overloaded("more calls wait than can be answered in time")
        self._rows[model] += len(rows)
        self._bytes += added
        try:
            yield sizes
        finally:
            self._rows[model] -= len(rows)
            self._bytes -= added
            if not self._rows[model]:
                del self._rows[model]
