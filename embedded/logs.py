"""`contender logs`: the last lines of the processes' logs, and those that come."""

import time
from pathlib import Path

import typer

from contender.commands.terminal import console, errors, visible
from embedded.commands import read_settings
from embedded.log_files import OLDER

FOLLOW_S = 0.3


def logs(name: str | None, *, follow: bool, lines: int) -> None:
    """Print the last lines of one process's log, or of all; with `follow` also those that come."""
    settings = read_settings()
    known = sorted(settings.logs.glob("*.log"))
    paths = [path for path in known if name in (None, path.stem)]
    if not paths:
        names = ", ".join(path.stem for path in known) or "none yet"
        errors.print(f"There is no log{f' of {name}' if name else ''}; there are logs of: {names}.", soft_wrap=True)
        raise typer.Exit(1)
    positions = {path: _print_last(path, lines, titled=len(paths) > 1) for path in paths}
    while follow:
        for path, position in positions.items():
            positions[path] = _print_from(path, position)
        time.sleep(FOLLOW_S)


def _print_last(path: Path, lines: int, *, titled: bool) -> int:
    """Print a log's last lines; return the position in the file behind them."""
    if titled:
        console.rule(path.stem)
    text = path.read_bytes()
    last = text.decode(errors="replace").splitlines()
    older = path.with_name(path.name + OLDER)
    if len(last) < lines and older.exists():
        last = older.read_text(errors="replace").splitlines() + last
    for line in last[-lines:] if lines else []:
        console.print(visible(line, kept="\t"), soft_wrap=True)
    return len(text)


def _print_from(path: Path, position: int) -> int:
    """Print what a log holds from a position on; return the position behind that."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < position:  # the file was cut, and its lines are in the older part
                position = 0
            file.seek(position)
            text = file.read()
    except FileNotFoundError:  # removed with the data; the next start makes another
        return 0
    if text:
        console.print(visible(text.decode(errors="replace"), kept="\n\t"), end="", soft_wrap=True)
    return position + len(text)
