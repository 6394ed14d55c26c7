"""What of definitions shows only when they are tried: histories that are not there, functions that fail."""

from collections.abc import Iterator
from typing import Any

from contender.features.arrays import computed
from contender.features.catalogue import Catalogue
from contender.features.definitions import EventSource
from contender.features.errors import DefinitionError, TrainingSetError
from contender.features.offline.tables import open_events, time_column
from contender.features.on_demand import OnDemandView

_ORDINARY: dict[type, list[Any]] = {
    str: ["a", "b"],
    int: [1, 2],
    float: [1.0, 2.0],
    bool: [True, False],
    list: [[1.0], [1.0, 2.0]],
}


def trial_faults(catalogue: Catalogue) -> Iterator[str]:
    """Faults, each as a sentence that begins with its file and line."""
    for source in catalogue.sources.values():
        try:
            _open(source)
        except TrainingSetError as error:
            yield str(DefinitionError(f"source {source.name!r}: {error}", source.place))
    for view in catalogue.on_demand.values():
        try:
            _call(catalogue, view)
        except DefinitionError as error:
            yield str(error if error.place else DefinitionError(str(error), view.place))


def _open(source: EventSource) -> None:
    """Whether a history is there, with its columns; what they hold is looked through when it is taken up."""
    if source.history:
        opened = open_events(source, {})
        opened.seconds(time_column(opened, source))
        for name, kind in source.schema.items():
            opened.column(name, kind)


def _call(catalogue: Catalogue, view: OnDemandView) -> None:
    """Call a function with two rows of ordinary values: what fails on those fails on requests."""
    kinds = [*view.request.values(), *(one.kind for one in catalogue.features(view.inputs))]
    computed(view, [(kind, _ORDINARY[kind]) for kind in kinds])
