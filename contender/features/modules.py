"""Modules of definitions, run so that whatever goes wrong in them is told with its file and line."""

import __future__

import ast
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from types import ModuleType

from contender.features.errors import DefinitionError

_OURS = str(Path(__file__).parent)
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_PYTHON = ("<", f"{sysconfig.get_path('stdlib')}/importlib/")
_FUTURE = __future__.annotations.compiler_flag
_LOADING = RLock()
"""One at a time: each lets the modules be forgotten that the other is reading."""

_PRODUCT = frozenset({"contender", "services", "shared"})
_DEFINING = frozenset({"Entity", "EventSource", "FeatureView", "FeatureService"})


def load_module(module: str) -> ModuleType:
    """A module by its dotted name, or by the path of its file, which ends in `.py`; as it and those beside it are now.

    Raises:
        DefinitionError: it can't be loaded; the message has a line per fault, each with file and line where it has one.
    """
    with _LOADING:
        return _loaded(module)


def _loaded(module: str) -> ModuleType:
    before = _forget_own(module)
    try:
        loaded = _from_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
        faults = list(_lost_definitions(loaded))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the author's own code, told with its line
        sys.modules.update(before)
        first = _told(error, module)
        faults = [first] if isinstance(error, SyntaxError) else _every_fault(module, first)
    if not faults:
        return loaded
    if len(faults) == 1:
        raise faults[0]
    raise DefinitionError("\n".join(map(str, faults)))


def _forget_own(module: str) -> dict[str, ModuleType]:
    """Let the author's own modules be read anew, since they may have changed: those of the same package or folder."""
    package, is_package, _ = module.partition(".") if not module.endswith(".py") else ("", "", "")
    known = sys.modules.get(module)
    folder = Path(module if known is None else known.__file__ or module).resolve().parent
    own: dict[str, ModuleType] = {}
    for name, one in list(sys.modules.items()):
        file = str(getattr(one, "__file__", None) or "")
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
        raise DefinitionError(f"there is no file {str(path)!r} of feature definitions; mend the path")
    module = _empty(f"definitions_{path.stem}", path)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))  # noqa: S102 - the definitions' own code
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _empty(name: str, path: Path) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    return module


def _lost_definitions(module: ModuleType) -> Iterator[DefinitionError]:
    """Definitions whose variable is given to another one further down: Python forgets the first without a word."""
    path = Path(module.__file__ or "")
    if not path.is_file():
        return
    seen: dict[str, int] = {}
    for statement in ast.parse(path.read_bytes()).body:
        for name in _bound(statement) if _defines(statement) else ():
            if name in seen:
                yield DefinitionError(
                    f"{name} is defined a second time, so that the one in line {seen[name]} is lost; rename one",
                    f"{path}:{statement.lineno}",
                )
            seen[name] = statement.lineno


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return any("on_demand" in ast.unparse(decorator) for decorator in statement.decorator_list)
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in _DEFINING


def _every_fault(module: str, first: DefinitionError) -> list[DefinitionError]:
    """The faults of a module that has one: it is run once more, past every statement that fails or needs such a one."""
    if not first.place:
        return [first]
    found = None if module.endswith(".py") else importlib.util.find_spec(module)
    path = Path(module if found is None else found.origin or "")
    if not first.place.startswith(f"{path}:"):
        return [first]  # that lies in a module that this one imports
    run = _empty(f"definitions_{path.stem}", path)
    run.__package__ = found.parent if found else None
    sys.modules[run.__name__] = run
    faults: list[DefinitionError] = []
    lost: set[str] = set()
    tree = ast.parse(path.read_bytes())
    later = _FUTURE if any(isinstance(one, ast.ImportFrom) and one.module == "__future__" for one in tree.body) else 0
    for statement in tree.body:
        used = {one.id for one in ast.walk(statement) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}
        try:
            if not used & lost:
                code = compile(ast.Module([statement], []), str(path), "exec", flags=later, dont_inherit=True)
                exec(code, vars(run))  # noqa: S102 - the definitions' own code
                continue
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told with its line
            faults.append(_told(error, module))
        lost.update(_bound(statement))
    del sys.modules[run.__name__]
    return faults or [first]


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    names = {one.id for one in ast.walk(statement) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        names.update(one.asname or one.name.partition(".")[0] for one in statement.names)
    return names


def _told(error: BaseException, module: str) -> DefinitionError:
    """The error as one sentence with its place, and what to do."""
    if isinstance(error, DefinitionError):
        return error
    if isinstance(error, SyntaxError):
        place = f"{error.filename or module}:{error.lineno or 1}"
        return DefinitionError(f"this is no Python: {error.msg}; mend the line", place)
    return DefinitionError(_sentence(error, module), _line(error))


def _sentence(error: BaseException, module: str) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            f"there is no module {module!r}; give one that can be imported from here, such as 'my_project.features', "
            "or the path of a .py file"
        )
    if isinstance(error, ImportError):
        return f"{text}; mend the import, or install what it names"
    if isinstance(error, NameError):
        return f"{text}; import or define it above, or mend its spelling"
    if isinstance(error, SystemExit):
        return "the module ends the program; definitions must load without that"
    return f"the module fails with {type(error).__name__}: {text}; mend the line"


def _line(error: BaseException) -> str:
    """The last line of somebody's own file in a traceback; of an installed one where there is no other."""
    steps = [
        step
        for step in traceback.extract_tb(error.__traceback__)
        if not step.filename.startswith((*_PYTHON, f"{_OURS}/"))
    ]
    own = [step for step in steps if not step.filename.startswith(_INSTALLED)] or steps
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
