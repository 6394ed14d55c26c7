"""The functions of on-demand views as text that stands alone: read, checked, and compiled again where it runs."""

import ast
import builtins
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from contender.features.errors import DefinitionError

Function = Callable[..., Any]
_REMEMBERED = 256
"""Functions kept compiled: compiling takes ten times as long as a call."""


def text_of(function: Function, location: str) -> str:
    """The text of a function, reduced to what computes.

    Raises:
        DefinitionError: the text can't be read, or the function does not stand alone.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError as error:
        raise DefinitionError(f"the text of {function.__name__} can't be read", location) from error
    _check_alone(function, location)
    return _computing(source)


def count_parameters(source: str, name: str, location: str) -> int:
    """How many parameters the function in a text takes.

    Raises:
        DefinitionError: it is not a plain function.
    """
    function = ast.parse(source).body[0]
    if not isinstance(function, ast.FunctionDef):
        raise DefinitionError(f"on-demand view {name!r} is not a plain function; write it with def", location)
    return len(function.args.args)


@lru_cache(_REMEMBERED)
def compiled(source: str, name: str) -> Function:
    """The function of a name in a text."""
    namespace: dict[str, Any] = {"np": np}
    exec(compile(source, f"<on-demand {name}>", "exec"), namespace)  # noqa: S102 - the definitions' own code
    function: Function = namespace[name]
    return function


def _computing(source: str) -> str:
    """The text of a function reduced to what computes: no decorators, annotations or docstring.

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
        raise DefinitionError(
            f"{where} has default values of parameters; leave them out, since every parameter gets a value", location
        )


def _from_outside(code: CodeType) -> Iterator[tuple[str, int]]:
    """Names that code and the code within take from its module or from a function around it, with their lines."""
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = step.starts_line or line
        if step.opname == "LOAD_GLOBAL" or (step.opname == "LOAD_DEREF" and step.argval in code.co_freevars):
            yield str(step.argval), line
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            # Names that the enclosing function defines do not come from outside.
            yield from ((name, at) for name, at in _from_outside(inner) if name not in code.co_cellvars)
