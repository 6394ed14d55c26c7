"""Loads modules of definitions, and reports every error in them with its file and line."""

import ast
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from pathlib import Path
from threading import RLock
from types import ModuleType

from contender.features.errors import DefinitionError

_OURS = str(Path(__file__).parent)
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_PYTHON = ("<", f"{sysconfig.get_path('stdlib')}/importlib/")
_LOADING = RLock()
"""Serialises loads: each drops modules from sys.modules that another may be importing."""

_PRODUCT = frozenset({"contender", "services", "shared"})
_DEFINING = frozenset({"Entity", "EventSource", "FeatureView", "FeatureService"})


def load_module(module: str) -> ModuleType:
    """Load a module, and those beside it, as they are now.

    Args:
        module: its dotted name, or the path of its file, which ends in `.py`.

    Raises:
        DefinitionError: it can't be loaded; the message begins with file and line where there is one.
    """
    with _LOADING:
        _search_working_directory_last()
        before = _forget_own(module)
        try:
            loaded = _from_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
            _check_names(loaded)
        except (Exception, SystemExit) as error:
            sys.modules.update(before)
            raise _definition_error(error, module) from error
        return loaded


class _WorkingDirectory(str):
    """The entry of sys.path that a load has appended; the next load replaces it."""

    __slots__ = ()


def _search_working_directory_last() -> None:
    """Let Python find the author's modules, which lie there, after everything that is installed."""
    sys.path[:] = [entry for entry in sys.path if not isinstance(entry, _WorkingDirectory)]
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(_WorkingDirectory(folder))


def _forget_own(module: str) -> dict[str, ModuleType]:
    """Drop the author's own modules of the same package or folder from sys.modules, since they may have changed."""
    package, is_package, _ = module.partition(".") if not module.endswith(".py") else ("", "", "")
    known = sys.modules.get(module)
    folder = Path(module if known is None else known.__file__ or module).resolve().parent
    own: dict[str, ModuleType] = {}
    for name, loaded in list(sys.modules.items()):
        file = str(getattr(loaded, "__file__", None) or "")
        if is_package:
            is_own = name.startswith(f"{package}.") or name == package
        else:
            is_own = bool(file) and Path(file).parent == folder and not file.startswith(_INSTALLED)
        if is_own and name.partition(".")[0] not in _PRODUCT and name != "__main__":
            own[name] = sys.modules.pop(name)
    importlib.invalidate_caches()
    return own


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise DefinitionError(f"there is no file {str(path)!r} of feature definitions; check the path")
    module = ModuleType(f"definitions_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))  # noqa: S102 - the definitions' own code
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _check_names(module: ModuleType) -> None:
    """Refuse a definition whose variable is assigned again further down: Python drops the first without a warning."""
    path = Path(module.__file__ or "")
    if not path.is_file():
        return
    lines: dict[str, int] = {}
    for statement in ast.parse(path.read_bytes()).body:
        for name in _bound(statement) if _defines(statement) else ():
            if name in lines:
                raise DefinitionError(
                    f"{name} is defined a second time, so the one in line {lines[name]} is lost; rename one of them",
                    f"{path}:{statement.lineno}",
                )
            lines[name] = statement.lineno


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return any("on_demand" in ast.unparse(decorator) for decorator in statement.decorator_list)
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in _DEFINING


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a definition of a module gets."""
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _definition_error(error: BaseException, module: str) -> DefinitionError:
    """The error as one sentence with its location, and what to do."""
    if isinstance(error, DefinitionError):
        return error
    if isinstance(error, SyntaxError):
        location = f"{error.filename or module}:{error.lineno or 1}"
        return DefinitionError(f"this is not valid Python: {error.msg}; fix the line", location)
    return DefinitionError(_sentence(error, module), _line(error))


def _sentence(error: BaseException, module: str) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            f"there is no module {module!r}; give one that can be imported from here, such as 'my_project.features', "
            "or the path of a .py file"
        )
    if isinstance(error, ImportError):
        return f"{text}; correct the import, or install the package"
    if isinstance(error, NameError):
        return f"{text}; import or define it above, or correct its spelling"
    if isinstance(error, SystemExit):
        return "the module ends the program; definitions must load without that"
    return f"the module fails with {type(error).__name__}: {text}; fix the line"


def _line(error: BaseException) -> str:
    """The last line of somebody's own file in a traceback; of an installed one where there is no other."""
    steps = [
        step
        for step in traceback.extract_tb(error.__traceback__)
        if not step.filename.startswith((*_PYTHON, f"{_OURS}/"))
    ]
    own = [step for step in steps if not step.filename.startswith(_INSTALLED)] or steps
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
