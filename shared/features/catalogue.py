"""All definitions of a project, found in a Python module and checked against each other."""

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from shared.features.aggregations import Aggregation
from shared.features.definitions import Entity, EventSource, FeatureService, FeatureView
from shared.features.errors import DefinitionError, UnknownFeatureError

Definition = Entity | EventSource | FeatureView | FeatureService
DefinitionT = TypeVar("DefinitionT", Entity, EventSource, FeatureView, FeatureService)


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature with its view."""

    view: FeatureView
    aggregation: Aggregation

    @property
    def reference(self) -> str:
        """`view:feature`."""
        return f"{self.view.name}:{self.aggregation.name}"

    @property
    def column(self) -> str:
        """`view__feature`, the name in training sets and of full feature names."""
        return f"{self.view.name}__{self.aggregation.name}"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Definitions by name."""

    entities: dict[str, Entity]
    sources: dict[str, EventSource]
    views: dict[str, FeatureView]
    services: dict[str, FeatureService]

    @classmethod
    def of(cls, definitions: Iterable[Definition]) -> Self:
        """Check definitions against each other; what views refer to need not be listed.

        Raises:
            DefinitionError: two definitions share a name, or a service names a feature that there is not.
        """
        listed = list(definitions)
        views = _by_name(listed, FeatureView)
        entities = _by_name([*listed, *(view.entity for view in views.values())], Entity)
        sources = _by_name([*listed, *(view.source for view in views.values())], EventSource)
        catalogue = cls(entities, sources, views, _by_name(listed, FeatureService))
        for service in catalogue.services.values():
            try:
                catalogue.features(service.features)
            except UnknownFeatureError as error:
                raise DefinitionError(f"feature service {service.name!r}: {error}") from error
        return catalogue

    @classmethod
    def load(cls, module: str) -> Self:
        """Read the definitions that stand at the top of a Python module, such as `examples.flights.features`.

        Raises:
            DefinitionError: there is no such module, it has no views, or its definitions contradict each other.
        """
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise DefinitionError(f"the module {module!r} of feature definitions: {error.msg}") from error
        kinds = (Entity, EventSource, FeatureView, FeatureService)
        catalogue = cls.of(value for value in vars(loaded).values() if isinstance(value, kinds))
        if not catalogue.views:
            raise DefinitionError(f"the module {module!r} defines no FeatureView at its top level")
        return catalogue

    def feature(self, reference: str) -> Feature:
        """The feature that a reference `view:feature` names.

        Raises:
            UnknownFeatureError: there is none; the message lists what there is.
        """
        view_name, _, name = reference.partition(":")
        view = self.views.get(view_name)
        if view is None:
            raise UnknownFeatureError(f"{reference!r} names no view; there are {', '.join(sorted(self.views))}")
        aggregation = view.feature(name)
        if aggregation is None:
            there = ", ".join(feature.name for feature in view.features)
            raise UnknownFeatureError(f"{reference!r} names no feature; view {view_name!r} has {there}")
        return Feature(view, aggregation)

    def features(self, references: Sequence[str]) -> list[Feature]:
        """The features of several references, in their order.

        Raises:
            UnknownFeatureError: one of them names none.
        """
        return [self.feature(reference) for reference in references]

    def views_of(self, source: str) -> list[FeatureView]:
        """The views that are fed by a source."""
        return [view for view in self.views.values() if view.source.name == source]


def _by_name(definitions: Iterable[Definition], kind: type[DefinitionT]) -> dict[str, DefinitionT]:
    found: dict[str, DefinitionT] = {}
    for definition in definitions:
        if not isinstance(definition, kind):
            continue
        if found.setdefault(definition.name, definition) != definition:
            raise DefinitionError(f"there are two different definitions of {kind.__name__} {definition.name!r}")
    return found
