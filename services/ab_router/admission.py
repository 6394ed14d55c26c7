"""How many rows may be under way: a call for which there is no room is refused before any of its rows is assigned."""

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
        self._of_model: dict[str, int] = {}
        self._rows = 0
        self._bytes = 0

    @contextmanager
    def admit(self, model: str, rows: Sequence[PredictionRow]) -> Iterator[list[int]]:
        """Count rows as under way for the length of the block, which gets the bytes of each.

        Raises:
            Overloaded: there is no room for them.
        """
        limits, added = self._settings, len(rows)
        sizes = [size_bytes(row) for row in rows]
        added_bytes = sum(sizes)
        of_model = self._of_model.get(model, 0) + added
        if (
            of_model > limits.model_queue_limit
            or self._rows + added > limits.queue_limit
            or self._bytes + added_bytes > limits.queue_limit_bytes
        ):
            raise Overloaded("more calls wait than can be answered in time")
        self._of_model[model] = of_model
        self._rows += added
        self._bytes += added_bytes
        try:
            yield sizes
        finally:
            self._rows -= added
            self._bytes -= added_bytes
            if left := self._of_model[model] - added:
                self._of_model[model] = left
            else:
                del self._of_model[model]
