"""The changes of a partition that are not published yet, and the updates that publish them."""

from collections.abc import Callable, Iterable

from services.feedback_service.domain.cells import Cell
from services.feedback_service.domain.groups import Experiment, Group
from services.feedback_service.domain.keys import cohort_key, day_key, total_key
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    DaySnapshot,
    ExperimentUpdate,
    GroupHeader,
)

Location = tuple[bytes, int | None]
"""A group's id and the number of an open cohort, or None for the matured rows."""

GetCell = Callable[[bytes], Cell]


class PendingUpdates:
    """The unpublished changes of one partition's experiments. At first everything is unpublished.

    Args:
        partition: the number of the partition.
        experiments: all experiments of the partition.
    """

    def __init__(self, partition: int, experiments: Iterable[str]) -> None:
        self._partition = partition
        self._changed: dict[str, set[Location]] = {}
        self._days: dict[str, set[tuple[bytes, int]]] = {}
        self._complete: set[str] = set()
        self.change_all(experiments)

    def change_all(self, experiments: Iterable[str]) -> None:
        """Publish these experiments anew, whole."""
        for name in experiments:
            self._changed.setdefault(name, set())
            self._complete.add(name)

    def change(self, experiment: str, location: Location | None = None) -> None:
        """Note a change of an experiment, and of which cohort."""
        changed = self._changed.setdefault(experiment, set())
        if location is not None:
            changed.add(location)

    def change_day(self, experiment: str, group_id: bytes, day: int) -> None:
        """Note a change of a group's day."""
        self.change(experiment)
        self._days.setdefault(experiment, set()).add((group_id, day))

    def due(self, limit: int) -> list[str]:
        """Experiments with changes, the oldest change first."""
        return list(self._changed)[:limit]

    def published(self, experiment: str) -> None:
        """Note that an experiment is published."""
        self._changed.pop(experiment, None)
        self._days.pop(experiment, None)
        self._complete.discard(experiment)

    def update(self, experiment: Experiment, cell: GetCell) -> ExperimentUpdate:
        """The update that publishes an experiment's changes."""
        complete = experiment.name in self._complete
        changed = self._changed.get(experiment.name, set())
        changed_days = self._days.get(experiment.name, set())
        headers: list[GroupHeader] = []
        cohorts: dict[str, CohortSnapshot] = {}
        days: dict[str, DaySnapshot] = {}
        present: set[str] = set()
        for key in sorted(experiment.groups):
            group = experiment.groups[key]
            fields = {self._field((group.id, number)): number for number in _locations(group, cell)}
            for name, number in fields.items():
                if complete or (group.id, number) in changed:
                    cohorts[name] = _snapshot(group, number, cell)
            day_fields = {self._day_field(group.id, day): day for day in sorted(group.days or ())}
            for name, day in day_fields.items():
                if complete or (group.id, day) in changed_days:
                    days[name] = _day(group, day, cell)
            present.update(fields)
            headers.append(GroupHeader(group.header(experiment), list(fields), list(day_fields)))
        gone = sorted({self._field(location) for location in changed} - present)
        return ExperimentUpdate(self._partition, experiment.name, headers, cohorts, gone, complete, days)

    def _day_field(self, group_id: bytes, day: int) -> str:
        return f"{self._partition}/{group_id.hex()}/{day}"

    def _field(self, location: Location) -> str:
        group_id, number = location
        return f"{self._partition}:{group_id.hex()}:{'matured' if number is None else number}"


def _locations(group: Group, cell: GetCell) -> list[int | None]:
    matured: list[int | None] = [None] if cell(total_key(group.id)).folded_until is not None else []
    return [*matured, *sorted(group.open)]


def _snapshot(group: Group, number: int | None, cell: GetCell) -> CohortSnapshot:
    if number is None:
        total = cell(total_key(group.id))
        return total.snapshot(group.matures_at((total.folded_until or 0) - 1), is_matured=True)
    cells = [cell(cohort_key(group.id, number, day)) for day in sorted(group.open[number])]
    if len(cells) > 1:
        cohort = Cell()
        for day in cells:
            cohort.absorb(day)
        return cohort.snapshot(group.matures_at(number))
    return cells[0].snapshot(group.matures_at(number))


def _day(group: Group, day: int, cell: GetCell) -> DaySnapshot:
    return cell(day_key(group.id, day)).day(day, assume_negative=group.key.missing == "negative")
