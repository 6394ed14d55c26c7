"""An environment of its own for the Feast SDK, whose dependencies clash with ours: made once, then reused.

Run as a script it makes the environment, so that no test which needs it is skipped.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("feast.lock")
INSTALL_S = 600
# What pip ends with when no index answers: it finds nothing of any version, or the connection is lost on the way.
UNREACHABLE = ("(from versions: none)", "Max retries exceeded", "Read timed out")


class NotInstallableError(Exception):
    """The SDK is not here, and there is nothing to install it from."""


def default_cache() -> Path:
    """Where downloads are kept from one run to the next."""
    return Path(os.environ.get("CONTENDER_HOME", Path.home() / ".contender")) / "cache"


def ensure_environment(cache: Path, lock: Path = LOCK) -> Path:
    """The Python of an environment that holds what `lock` names; with an intact one this touches no network.

    Several processes may call it at once, and what an interrupted call left is made again.

    Raises:
        NotInstallableError: it is missing and no package index answers.
        RuntimeError: pip refuses the lock.
    """
    text = lock.read_text()
    name: str = "feast-" + re.findall(r"^feast==([\w.]+)", text, re.MULTILINE)[0]
    folder = cache / name
    python = folder / "bin" / "python"
    complete = folder / "complete"
    made_from = hashlib.sha256(f"{sys.version}\n{text}".encode()).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (python.exists() and complete.exists() and complete.read_text() == made_from):
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, python, lock, guard.fileno())
            complete.write_text(made_from)
    return python


def _install(folder: Path, python: Path, lock: Path, guard: int) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--retries", "2", "--only-binary", ":all:", "--require-hashes"]
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", *options, "-r", lock],
    ]
    for command in commands:
        try:
            # The child holds the lock too: one that outlives this process keeps others from its folder.
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_S, pass_fds=[guard], check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NotInstallableError(f"pip was not done after {INSTALL_S} s") from error
        if done.returncode != 0:
            # Warnings come before it, of connections that were mended.
            end = done.stderr.partition("ERROR:")[2]
            if any(sign in end for sign in UNREACHABLE):
                raise NotInstallableError("no package index answers")
            raise RuntimeError(f"{lock.name} can't be installed: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    ensure_environment(default_cache())
