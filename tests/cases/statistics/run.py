"""Runs worlds of the statistics on this product: python tests/cases/statistics/run.py FILE...

A file imports `product` and `worlds` from its own folder; it gets the `product` beside this file instead, and the looks
of this product's simulation. The exit status is the number of files whose line is not as wanted.
"""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent)
import product  # noqa: E402


def run(file: Path) -> bool:
    """Run one file; whether what it wants has come."""
    sys.path[1:1] = [str(file.parent)]
    import worlds  # type: ignore[import-not-found] # noqa: PLC0415 - it lies beside the file

    worlds.effects = product.effects
    try:
        runpy.run_path(str(file), run_name="__main__")
    except SystemExit as ended:
        return not ended.code
    finally:
        sys.path.remove(str(file.parent))
    return True


if __name__ == "__main__":
    sys.exit(sum(not run(Path(name)) for name in sys.argv[1:]))
