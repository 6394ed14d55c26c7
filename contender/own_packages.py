"""Imports packages of this distribution, whatever stands under their names in the folder where somebody works."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def import_own(name: str) -> None:
    """Import a top-level package from beside this one, unless something is imported under that name already."""
    spec = PathFinder.find_spec(name, [str(Path(__file__).parents[1])])
    if name in sys.modules or spec is None or spec.loader is None:
        return
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
