"""On-demand features: plain vectorised Python over request columns and other features, at training and at serving."""

import ast
import builtins
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contender.features.errors import DefinitionError, caller
from contender.features.limits import NAME

Array = NDArray[Any]
Function = Callable[..., Any]
REQUEST = "request"
"""What a reference begins with that names a column of the request: `request:distance`."""

_REMEMBERED = 256
"""Functions kept compiled: compiling takes ten times as long as a call."""

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
        found = len(_function_of(self).args.args)
        if found != len(wanted):
            raise DefinitionError(
                f"{self._where} takes {found} parameters; it must take {len(wanted)}, for its request columns and then "
                f"its inputs: {', '.join(wanted) or 'none'}",
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
                found = _compiled(self.source, self.name)(*columns)
        except Exception as error:  # a user's function may raise anything
            raise DefinitionError(f"{self._where} failed: {type(error).__name__}: {error}", self.location) from error
        named = found if isinstance(found, dict) else dict.fromkeys(self.features, found)
        if set(named) != set(self.features) or (not isinstance(found, dict) and len(self.features) > 1):
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

    def made(function: Function) -> OnDemandView:
        try:
            source = textwrap.dedent(inspect.getsource(function))
        except OSError as error:
            raise DefinitionError(f"the text of {function.__name__} can't be read", location) from error
        _check_alone(function, location)
        return OnDemandView(
            function.__name__,
            tuple(inputs),
            dict(request or {}),
            dict(features),
            _computing(source),
            inspect.getdoc(function) or "",
            owner,
            dict(tags or {}),
            location,
        )

    return made


def check_references(who: str, references: Iterable[object], location: str) -> None:
    """Refuse references that have not the form of one.

    Raises:
        DefinitionError: they are one text, or one of them is none.
    """
    for reference in [references] if isinstance(references, str) else references:
        if isinstance(references, str) or not isinstance(reference, str):
            given = repr(reference) if isinstance(reference, str) else f"a {type(reference).__name__}"
            raise DefinitionError(f"{who}: {given} is not a list of references; write ['view:feature']", location)


def _computing(source: str) -> str:
    """The text of a function without what computes nothing: decorators, annotations and its docstring.

    A changed description or type hint is then no new version, and hints need not be there where the text runs.
    """
    tree = ast.parse(source)
    function = tree.body[0]
    if isinstance(function, ast.FunctionDef):
        function.decorator_list = []
        function.returns = None
        for parameter in ast.walk(function.args):
            if isinstance(parameter, ast.arg):
                parameter.annotation = None
        if ast.get_docstring(function) is not None:
            function.body = function.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _function_of(view: OnDemandView) -> ast.FunctionDef:
    function = ast.parse(view.source).body[0]
    if not isinstance(function, ast.FunctionDef):
        raise DefinitionError(f"on-demand view {view.name!r} is not a plain function; write it with def", view.location)
    return function


def _check_alone(function: Function, location: str) -> None:
    """Refuse a function that uses names of its module: they would not be there where a kept version runs."""
    if not isinstance(function, FunctionType):
        raise DefinitionError(f"{function!r} is not a plain function; decorate one written with def", location)
    known = {"np", function.__name__, *dir(builtins)}
    outside: dict[str, int] = {}
    for name, line in _from_outside(function.__code__):
        if name not in known:
            outside.setdefault(name, line)
    where = f"on-demand view {function.__name__!r}"
    remedy = "it must stand alone, with numpy as np: import or define what it needs inside of it"
    if outside:
        at = f"{function.__code__.co_filename}:{min(outside.values())}"
        raise DefinitionError(f"{where} uses {', '.join(sorted(outside))} from outside; {remedy}", at)
    if function.__defaults__ or function.__kwdefaults__:
        raise DefinitionError(f"{where} has default values of parameters; every parameter is given", location)


def _from_outside(code: CodeType) -> Iterator[tuple[str, int]]:
    """Names that code and the code within take from its module or from a function around it, with their lines."""
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = step.starts_line or line
        if step.opname == "LOAD_GLOBAL" or (step.opname == "LOAD_DEREF" and step.argval in code.co_freevars):
            yield str(step.argval), line
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            # What the function around it defines is no stranger to the function within.
            yield from ((name, at) for name, at in _from_outside(inner) if name not in code.co_cellvars)


@lru_cache(_REMEMBERED)
def _compiled(source: str, name: str) -> Function:
    namespace: dict[str, Any] = {"np": np}
    exec(compile(source, f"<on-demand {name}>", "exec"), namespace)  # noqa: S102 - the definitions' own code
    function: Function = namespace[name]
    return function
