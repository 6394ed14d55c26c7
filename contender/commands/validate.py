"""Validates what only a trial shows: history files that are missing, on-demand functions that fail."""

from collections.abc import Iterator
from typing import Any

from contender.extras import needs_extra
from contender.features import Catalogue, DefinitionError, EventSource, OnDemandView, TrainingSetError
from contender.features.arrays import computed

_ORDINARY: dict[type, list[Any]] = {
    str: ["a", "b"],
    int: [1, 2],
    float: [1.0, 2.0],
    bool: [True, False],
    list: [[1.0], [1.0, 2.0]],
}


def validate(catalogue: Catalogue) -> Iterator[str]:
    """Tries every history and function; yields errors, each a sentence that begins with its file and line."""
    for source in catalogue.sources.values():
        try:
            _open(source)
        except TrainingSetError as error:
            yield str(DefinitionError(f"source {source.name!r}: {error}", source.location))
    for view in catalogue.on_demand.values():
        try:
            _call(catalogue, view)
        except DefinitionError as error:
            yield str(error if error.location else DefinitionError(str(error), view.location))


def _open(source: EventSource) -> None:
    """Check that a history has its columns; their values are checked when features are filled from it."""
    if source.history:
        with needs_extra("notebook", f"checking the history of source {source.name!r}"):
            from contender.features.offline.tables import open_events, time_column  # noqa: PLC0415
        opened = open_events(source, {})
        opened.seconds(time_column(opened, source))
        for name, kind in source.schema.items():
            opened.column(name, kind)


def _call(catalogue: Catalogue, view: OnDemandView) -> None:
    """Call a function with two rows of ordinary values: one that fails on those fails on requests."""
    kinds = [*view.request.values(), *(feature.kind for feature in catalogue.features(view.inputs))]
    computed(view, [(kind, _ORDINARY[kind]) for kind in kinds])
