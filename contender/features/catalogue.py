"""The definitions of a Python module, checked against each other, with the versions of their views."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from contender.contracts.feature_ref import FeatureRef
from contender.features.definitions import ColumnType, Definition, Entity, EventSource, FeatureService, FeatureView
from contender.features.documents import digest, view_document, view_of
from contender.features.errors import DefinitionError, UnknownFeatureError
from contender.features.kinds.kind import Aggregation
from contender.features.modules import load_module
from contender.features.on_demand import OnDemandView

DefinitionT = TypeVar("DefinitionT", Entity, EventSource, FeatureView, FeatureService, OnDemandView)
View = FeatureView | OnDemandView
Schema = Mapping[str, ColumnType]


class KeptVersion(msgspec.Struct, frozen=True):
    """A version of a view: `number` counts from 1 per name, `digest` names its meaning.

    `retired_after` is the newest number when the version was retired; 0 while it is kept.
    """

    name: str
    number: int
    digest: str
    document: dict[str, Any]
    retired_after: int = 0

    @property
    def label(self) -> str:
        """`view@number`, as references pin it."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """A feature with its view. `label` is the view as it was asked for, with or without a version.

    Compares by identity, so that results can be cached by a list of features.
    """

    view: View
    name: str
    label: str

    @property
    def aggregation(self) -> Aggregation:
        """The aggregation that the feature is read from tiles by.

        Raises:
            TypeError: it is computed on demand.
        """
        feature = self.view.feature(self.name)
        if not isinstance(feature, Aggregation):
            raise TypeError(f"{self.reference} is computed on demand")
        return feature

    @property
    def kind(self) -> type:
        """The type of its values: str, int, float or bool, or list for those of last_n."""
        if isinstance(self.view, OnDemandView):
            return self.view.features[self.name]
        return self.view.value_type(self.aggregation)

    @property
    def reference(self) -> str:
        """`view:feature` as it was asked for."""
        return f"{self.label}:{self.name}"

    @property
    def column(self) -> str:
        """`view__feature`, the name in training sets and of full feature names."""
        return f"{self.label}__{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """Definitions by name. `views` and `on_demand` hold today's; `kept` holds every version, by `view@number`.

    `today` maps each view's name to its version of today, `schemas` each source to the schemas that some version
    reads, today's first. `is_numbered`: whether a service's known versions gave the numbers; else they mean nothing.
    """

    entities: Mapping[str, Entity]
    sources: Mapping[str, EventSource]
    views: Mapping[str, FeatureView]
    on_demand: Mapping[str, OnDemandView]
    services: Mapping[str, FeatureService]
    kept: Mapping[str, View] = field(default_factory=dict)
    versions: Sequence[KeptVersion] = ()
    today: Mapping[str, str] = field(default_factory=dict)
    schemas: Mapping[str, Sequence[Schema]] = field(default_factory=dict)
    is_numbered: bool = False

    @classmethod
    def of(cls, definitions: Iterable[Definition], known: Sequence[KeptVersion] = ()) -> "Catalogue":
        """Check definitions against each other, and number them; what views refer to need not be listed.

        Args:
            definitions: those of today.
            known: the registered versions, retired ones included; a view whose meaning no kept version has becomes a
                new version.

        Raises:
            DefinitionError: two definitions share a name, a reference names nothing, or on-demand views need each
                other in a circle.
        """
        listed = list(definitions)
        views = _by_name(listed, FeatureView)
        on_demand = _by_name(listed, OnDemandView)
        for name in views.keys() & on_demand.keys():
            raise DefinitionError(
                f"there is a view {name!r} too, at {views[name].location}; rename one of them", on_demand[name].location
            )
        entities = _by_name([*listed, *(entity for view in views.values() for entity in view.entities)], Entity)
        sources = _by_name([*listed, *(view.source for view in views.values())], EventSource)
        draft = cls(entities, sources, views, on_demand, _by_name(listed, FeatureService))
        ordered = _ordered(_versioned(draft, list(views.values()), known))
        return replace(_versioned(draft, [*views.values(), *ordered], known), is_numbered=bool(known))

    @classmethod
    def load(cls, module: str, known: Sequence[KeptVersion] = ()) -> "Catalogue":
        """Read the definitions at the top of a Python module, such as `examples.flights.features`, or of a file.

        Raises:
            DefinitionError: there is no such module, it has no views, or its definitions contradict each other; the
                message begins with the file and line where there is one.
        """
        loaded = load_module(module)
        kinds = (Entity, EventSource, FeatureView, FeatureService, OnDemandView)
        catalogue = cls.of((value for value in vars(loaded).values() if isinstance(value, kinds)), known)
        if not catalogue.views:
            raise DefinitionError(
                f"the module {module!r} defines no FeatureView at its top level; give one a variable there",
                f"{loaded.__file__}:1",
            )
        return catalogue

    def again(self, known: Sequence[KeptVersion]) -> "Catalogue":
        """Today's definitions with other known versions.

        Raises:
            DefinitionError: as for `of`.
        """
        kinds = (self.entities, self.sources, self.views, self.on_demand, self.services)
        return Catalogue.of([definition for named in kinds for definition in named.values()], known)

    def feature(self, reference: str) -> Feature:
        """The feature that a reference `view:feature` or `view@version:feature` names.

        Raises:
            UnknownFeatureError: nothing has that name; the message lists what exists.
        """
        ref = FeatureRef.parse(reference)
        label, name = ref.label, ref.feature
        view = self.views.get(label) or self.on_demand.get(label) or self.kept.get(label)
        if view is None:
            names = ", ".join(sorted([*self.views, *self.on_demand]))
            kept = [version.label for version in self.versions if version.name == ref.view]
            versions = f"; versions of {ref.view} are {', '.join(kept)}" if kept else ""
            raise UnknownFeatureError(f"{reference!r} names no view; there are {names}{versions}")
        if view.feature(name) is None:
            names = ", ".join(_feature_names(view))
            raise UnknownFeatureError(f"{reference!r} names no feature; view {label!r} has {names}")
        return Feature(view, name, label)

    def features(self, references: Sequence[str]) -> list[Feature]:
        """The features of several references, in their order.

        Raises:
            UnknownFeatureError: a reference names nothing.
        """
        return [self.feature(reference) for reference in references]

    def pinned(self, reference: str) -> str:
        """The reference with the version that it means today.

        Raises:
            UnknownFeatureError: it names nothing.
        """
        feature = self.feature(reference)
        if FeatureRef.parse(feature.label).version:
            return reference
        return f"{self.newest(feature.label)}:{feature.name}"

    def newest(self, name: str) -> str:
        """A view's version of today, as `view@number`; its last version if the view was removed."""
        if name in self.today:
            return self.today[name]
        return max(
            (version for version in self.versions if version.name == name), key=lambda version: version.number
        ).label

    def inputs(self, feature: Feature) -> list[Feature]:
        """The features that an on-demand feature is computed from; empty for others."""
        return self.features(feature.view.inputs) if isinstance(feature.view, OnDemandView) else []

    def users(self, label: str) -> list[str]:
        """The kept versions of on-demand views that are computed from a version, `view@number`."""
        views = {name: view for name, view in self.kept.items() if isinstance(view, OnDemandView)}
        return [
            name
            for name, view in views.items()
            if any(FeatureRef.parse(reference).label == label for reference in view.inputs)
        ]

    def join_keys(self, feature: Feature) -> list[str]:
        """The columns that identify the entity of a feature, those of its inputs included."""
        own = feature.view.join_keys if isinstance(feature.view, FeatureView) else ()
        below = [key for needed in self.inputs(feature) for key in self.join_keys(needed)]
        return list(dict.fromkeys([*own, *below]))

    def request_columns(self, feature: Feature) -> dict[str, type]:
        """The columns that a request must bring for a feature, those for its inputs included, with their types."""
        columns: dict[str, type] = {}
        for needed in self.inputs(feature):
            columns.update(self.request_columns(needed))
        return {**columns, **(feature.view.request if isinstance(feature.view, OnDemandView) else {})}


def _versioned(catalogue: Catalogue, newest: Sequence[View], known: Sequence[KeptVersion]) -> Catalogue:
    """The catalogue with the known versions, and those that follow from the newest views."""
    numbered, today = _numbered(newest, known)
    versions = [version for version in numbered if not version.retired_after]
    kept = {version.label: view_of(version.document) for version in versions}
    schemas: dict[str, list[Schema]] = {}
    for source in [
        *catalogue.sources.values(),
        *(view.source for view in kept.values() if isinstance(view, FeatureView)),
    ]:
        known_schemas = schemas.setdefault(source.name, [])
        if source.schema not in known_schemas:
            known_schemas.append(source.schema)
    return replace(catalogue, kept=kept, versions=versions, today=today, schemas=schemas)


def _ordered(catalogue: Catalogue) -> list[OnDemandView]:
    """The on-demand views, each after those it needs."""
    for service in catalogue.services.values():
        _refer(catalogue, service.features, f"feature service {service.name!r}", service.location)
    ordered: dict[str, OnDemandView] = {}

    def visit(view: OnDemandView, path: tuple[str, ...]) -> None:
        if view.name in path:
            circle = " -> ".join([*path[path.index(view.name) :], view.name])
            raise DefinitionError(
                f"on-demand views need each other in a circle, {circle}; remove one of these inputs", view.location
            )
        _refer(catalogue, view.inputs, f"on-demand view {view.name!r}", view.location)
        for needed in catalogue.features(view.inputs):
            if isinstance(needed.view, OnDemandView):
                visit(needed.view, (*path, view.name))
        ordered[view.name] = view

    for view in catalogue.on_demand.values():
        visit(view, ())
    return list(ordered.values())


def _numbered(views: Sequence[View], known: Sequence[KeptVersion]) -> tuple[list[KeptVersion], dict[str, str]]:
    """The known and the new versions, and the version of each view. A view of a new meaning gets a new version.

    A definition that returns to an earlier meaning gets its earlier version number, so processes of an older and a
    newer release may start in any order. No number is used twice: a reference pinned to a retired version never comes
    to mean something else.
    """
    versions = list(known)
    today: dict[str, str] = {}
    for view in views:
        document = view_document(view)
        if isinstance(view, OnDemandView):
            # Its inputs are pinned: if the meaning of one changes, the meaning of this view does.
            document["inputs"] = _relabelled(view.inputs, today)
        meaning = digest(_without_numbers(document, {version.label: version.digest for version in versions}))
        own = [version for version in versions if version.name == view.name]
        same = [version for version in own if version.digest == meaning and not version.retired_after]
        if not same:
            same = [KeptVersion(view.name, max((version.number for version in own), default=0) + 1, meaning, document)]
            versions += same
        elif same[-1].document != document:  # the same values, other descriptions
            versions[versions.index(same[-1])] = msgspec.structs.replace(same[-1], document=document)
        today[view.name] = same[-1].label
    return versions, today


def _without_numbers(document: Mapping[str, Any], digests: Mapping[str, str]) -> Mapping[str, Any]:
    """Replaces the inputs' version numbers by digests, since another registry may number in another order."""
    if "inputs" not in document:
        return document
    return {**document, "inputs": _relabelled(document["inputs"], digests)}


def _relabelled(references: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """References with their views renamed, where `names` has a new name."""
    refs = map(FeatureRef.parse, references)
    return [f"{names.get(ref.label, ref.label)}:{ref.feature}" for ref in refs]


def _refer(catalogue: Catalogue, references: Sequence[str], who: str, location: str) -> None:
    try:
        catalogue.features(references)
    except UnknownFeatureError as error:
        raise DefinitionError(f"{who}: {error}", location) from error


def _feature_names(view: View) -> list[str]:
    return list(view.features) if isinstance(view, OnDemandView) else [feature.name for feature in view.aggregations]


def _by_name(definitions: Iterable[Definition], kind: type[DefinitionT]) -> dict[str, DefinitionT]:
    named: dict[str, DefinitionT] = {}
    for definition in definitions:
        if not isinstance(definition, kind):
            continue
        if named.setdefault(definition.name, definition) != definition:
            raise DefinitionError(
                f"there are two different definitions of {kind.__name__} {definition.name!r}, the other at "
                f"{named[definition.name].location}; rename one of them",
                definition.location,
            )
    return named
