"""How benchmarks show what they measured: a table beside the targets, and a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Targets = Mapping[str, tuple[str, float | None]]
"""By figure the sign of its target, such as `>=`, and the target; None where there is none."""


def report(measured: Mapping[str, Any], targets: Targets, file: Path | None) -> None:
    """Print the figures that have targets, then the details; and write all of them."""
    for name, (sign, target) in targets.items():
        value = measured.get(name)
        shown = "-" if value is None else f"{value:,.2f}"
        print(f"{name:26} {shown:>14}" + ("" if target is None else f"   target {sign} {target:,g}"))
    details = {name: value for name, value in measured.items() if name not in targets}
    for name, value in details.items():
        print(f"  {name}: {value:,.2f}" if isinstance(value, float) else f"  {name}: {value}")
    if file:
        figures = {name: measured.get(name) for name in targets}
        file.write_text(json.dumps({**figures, "details": details}, indent=2) + "\n")
