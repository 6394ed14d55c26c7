"""On-demand features: plain vectorised Python over request columns and other features, at training and at serving."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contender.features.errors import DefinitionError, caller
from contender.features.functions import Function, compiled, count_parameters, text_of
from contender.features.limits import NAME

Array = NDArray[Any]
REQUEST = "request"
"""Prefix of a reference to a column of the request: `request:distance`."""

_KINDS = (str, int, float, bool)


@dataclass(frozen=True, slots=True)
class OnDemandView:
    """Features that are computed from columns of the request and from other features when they are asked for.

    `source` is the function's text. It must stand alone, with numpy as `np`, so that a version of it can be kept and
    run beside a newer one. Its parameters are the columns of `request`, then the `inputs`, in that order: float64
    arrays of shape (rows,), where a null is NaN, or of text and lists object arrays, where it is None; they are its own
    to change. It returns one array per feature: the array itself where there is one feature, else a dictionary by name.
    `contender.features.arrays` has the rest.
    """

    name: str
    inputs: tuple[str, ...]
    request: Mapping[str, type]
    features: Mapping[str, type]
    source: str
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    location: str = field(default_factory=caller, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in (self.name, *self.features):
            if not NAME.fullmatch(name) or name == REQUEST:
                raise DefinitionError(
                    f"{self._where}: {name!r} can't be a name of a view or feature; take lower-case letters, digits "
                    f"and single underscores, at most 63, a letter first, and not {REQUEST!r}",
                    self.location,
                )
        for what, columns in (("request column", self.request), ("feature", self.features)):
            for name, kind in columns.items():
                if kind not in _KINDS:
                    raise DefinitionError(
                        f"{self._where}: {what} {name!r} is {kind!r}, not str, int, float or bool", self.location
                    )
        if not self.features:
            raise DefinitionError(f"{self._where} has no features; name them with features=", self.location)
        check_references(self._where, self.inputs, self.location)
        wanted = [*self.request, *self.inputs]
        parameters = count_parameters(self.source, self.name, self.location)
        if parameters != len(wanted):
            raise DefinitionError(
                f"{self._where} takes {parameters} parameters; it must take {len(wanted)}, for its request columns "
                f"and then its inputs: {', '.join(wanted) or 'none'}",
                self.location,
            )

    @property
    def _where(self) -> str:
        return f"on-demand view {self.name!r}"

    def feature(self, name: str) -> type | None:
        """The type of the feature of that name."""
        return self.features.get(name)

    def compute(self, columns: Sequence[Array]) -> dict[str, Array]:
        """The features of rows.

        Args:
            columns: one array of shape (rows,) per request column, then per input.

        Raises:
            DefinitionError: the function fails, or does not return one array of shape (rows,) per feature.
        """
        rows = len(columns[0]) if columns else 0
        try:
            with np.errstate(all="ignore"):
                answer = compiled(self.source, self.name)(*columns)
        except Exception as error:  # a user's function may raise anything
            raise DefinitionError(f"{self._where} failed: {type(error).__name__}: {error}", self.location) from error
        named = answer if isinstance(answer, dict) else dict.fromkeys(self.features, answer)
        if set(named) != set(self.features) or (not isinstance(answer, dict) and len(self.features) > 1):
            raise DefinitionError(f"{self._where} must return {', '.join(self.features)} by name", self.location)
        arrays = {name: np.asarray(named[name]) for name in self.features}
        for name, array in arrays.items():
            if array.shape != (rows,):
                raise DefinitionError(
                    f"{self._where}: {name} has shape {array.shape} for {rows} rows; it must work on whole arrays",
                    self.location,
                )
        return arrays


def on_demand(
    *,
    features: Mapping[str, type],
    inputs: Sequence[str] = (),
    request: Mapping[str, type] | None = None,
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> Callable[[Function], OnDemandView]:
    """Make a function an on-demand view of the function's name; its docstring is the description.

    Args:
        features: type by name of what it returns.
        inputs: references of other features, `view:feature`.
        request: type by name of the columns that a request brings.
        owner: who answers for it.
        tags: anything else worth finding it by.
    """
    location = caller()
    for what, types in (("features", features), ("request", request or {})):
        if not isinstance(types, Mapping):
            raise DefinitionError(f"{what}={types!r}: give a type by name, such as {{'distance': float}}", location)
    check_references("inputs", inputs, location)

    def to_view(function: Function) -> OnDemandView:
        return OnDemandView(
            function.__name__,
            tuple(inputs),
            dict(request or {}),
            dict(features),
            text_of(function, location),
            inspect.getdoc(function) or "",
            owner,
            dict(tags or {}),
            location,
        )

    return to_view


def check_references(who: str, references: Iterable[object], location: str) -> None:
    """Refuse references that do not have the form of one.

    Raises:
        DefinitionError: they are a single text, or some are not text.
    """
    for reference in [references] if isinstance(references, str) else references:
        if isinstance(references, str) or not isinstance(reference, str):
            shown = repr(reference) if isinstance(reference, str) else f"a {type(reference).__name__}"
            raise DefinitionError(f"{who}: {shown} is not a list of references; write ['view:feature']", location)
