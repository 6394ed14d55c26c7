"""The counts of a model in an hour: about two microseconds a row of 15 columns, and bounded, whatever callers send."""

from collections import Counter
from collections.abc import Mapping, Sequence

from contender.contracts.ab_router import PredictionRow
from contender.contracts.values import REQUEST, Scalar
from services.ab_router.catalog import Model
from services.ab_router.domain import traffic as keys
from services.ab_router.domain.traffic import CountKey, Counts
from services.ab_router.stored_traffic import Addition
from shared.errors import ServiceError

VALUES_LIMIT = 50
"""Values of a column in an hour that no version knows and that are told apart; further ones count together."""
NAMES_LIMIT = 100
"""Refused fields, and keys of entities, in an hour that are told apart."""
_SHAPES_LIMIT = 50
_PRESENT = "PRESENT"
_Shape = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


class Hour:
    """A model's counts in an hour. Names stay when counts are taken, so that their limits are those of the hour."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.counts: Counter[CountKey] = Counter()
        self.features: dict[str, Counter[str]] = {}
        self.outbox: list[Addition] = []
        self._rows = 0
        self._shapes: dict[_Shape, int] = {}
        self._columns: list[tuple[str, dict[Scalar, int]]] = []
        self._values: dict[str, Values] = {}
        self._names: dict[str, set[str]] = {keys.FAULT: set(), keys.ENTITY: set()}

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.outbox or self._rows or self.counts or self.features)

    def adopt(self, model: Model) -> None:
        """Tell apart the categories that the versions of a model know."""
        self.model = model
        for version in model.versions.values():
            sent = {column.name for column in version.inputs if column.source == REQUEST}
            for column in version.categories.keys() & sent:
                categories = version.categories[column]
                self._values.setdefault(column, Values()).add_known(categories)
        self._columns = [(name, values.counts) for name, values in self._values.items()]

    def note(self, rows: Sequence[PredictionRow], refusals: Sequence[object | None]) -> None:
        """Count rows: here each nanosecond counts."""
        shapes, columns = self._shapes, self._columns
        for row, refusal in zip(rows, refusals, strict=True):
            if refusal is not None:
                self._note_refusal(refusal)
                continue
            inputs = row.inputs
            nulls = tuple(name for name in inputs if inputs[name] is None) if None in inputs.values() else ()
            shape = (tuple(inputs), tuple(row.entities), nulls)
            shapes[shape] = shapes.get(shape, 0) + 1
            for name, counts in columns:
                value = inputs.get(name)
                if value in counts:
                    counts[value] += 1
                else:
                    self._values[name].note_unknown(value)
        self._rows += len(rows)
        if len(shapes) > _SHAPES_LIMIT:
            self._fold()

    def note_features(self, statuses: Mapping[str, Sequence[str]]) -> None:
        """Count the statuses of served features, by `view:feature`; one for each row."""
        for reference, column in statuses.items():
            counts = self.features.get(reference)
            if counts is None:
                counts = self.features[reference] = Counter({_PRESENT: 0})
            present = column.count(_PRESENT)
            counts[_PRESENT] += present
            if present < len(column):
                counts.update(status for status in column if status != _PRESENT)

    def note_shadow(self, version: str, seconds: float, rows: int) -> None:
        """Count rows that a version has scored in shadow."""
        self.counts[keys.SHADOW, version, str(keys.latency_step(seconds))] += rows

    def take(self) -> Counts:
        """The counts since the last time."""
        self._fold()
        for name, values in self._values.items():
            self.counts.update(values.take(name))
        for reference, statuses in self.features.items():
            self.counts.update({(keys.FEATURE, reference, status): number for status, number in statuses.items()})
        self.counts[keys.ROWS] += self._rows
        counts = {key: number for key, number in self.counts.items() if number}
        self.counts.clear()
        self.features.clear()
        self._rows = 0
        return counts

    def _fold(self) -> None:
        """Count columns from the shapes of rows; most rows of a model share one."""
        for (sent, entities, nulls), rows in self._shapes.items():
            for name in sent:
                self.counts[keys.SENT, name] += rows
            for name in nulls:
                self.counts[keys.NULL, name] += rows
            for name in entities:
                self._count_name(keys.ENTITY, name, rows)
        self._shapes.clear()

    def _note_refusal(self, refusal: object) -> None:
        self.counts[keys.REFUSED] += 1
        errors = refusal.errors if isinstance(refusal, ServiceError) else ()
        for field in {error.field for error in errors}:
            self._count_name(keys.FAULT, field, 1)

    def _count_name(self, kind: str, name: str, rows: int) -> None:
        names, name = self._names[kind], keys.kept_text(name)
        if name not in names and len(names) >= NAMES_LIMIT:
            self.counts[(kind,)] += rows
            return
        names.add(name)
        self.counts[kind, name] += rows


class Values:
    """How often each value of a column came: those that versions know, some others, and all further ones."""

    def __init__(self) -> None:
        self.counts: dict[Scalar, int] = {None: 0}  # the hot path looks up whatever comes, a null too
        self._known = 1
        self._further = 0

    def add_known(self, categories: Sequence[str]) -> None:
        """Tell values apart that a version knows."""
        before = len(self.counts)
        for category in categories:
            self.counts.setdefault(category, 0)
        self._known += len(self.counts) - before

    def note_unknown(self, value: Scalar) -> None:
        """Count a value that has no count yet."""
        text = keys.kept_text(str(value))
        if text in self.counts or len(self.counts) < self._known + VALUES_LIMIT:
            self.counts[text] = self.counts.get(text, 0) + 1
        else:
            self._further += 1

    def take(self, column: str) -> Counts:
        """The counts since the last time."""
        counts: dict[CountKey, int] = {
            (keys.VALUE, column, str(value)): number
            for value, number in self.counts.items()
            if number and value is not None
        }
        if self._further:
            counts[keys.VALUE, column] = self._further
        self.counts.update(dict.fromkeys(self.counts, 0))
        self._further = 0
        return counts
