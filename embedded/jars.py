"""Kafka's jars: fetched once from a Maven repository, checked against the lock file's SHA-256, then used offline."""

import errno
import fcntl
import hashlib
import shutil
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from embedded.errors import DiskFullError, JarsUnavailableError

Progress = Callable[[int, int], None]
PARALLEL_DOWNLOADS = 8  # as many as a repository usually lets one client make
TIMEOUT_S = 30
JARS_BYTES = 50 * 1000**2
"""What all jars take, with room to spare."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name in a folder and in a repository."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars() -> list[Jar]:
    """The jars of Kafka and its log binding, as jgo resolved them."""
    return parse_lock(files("embedded").joinpath("jgo.lock.toml").read_bytes())


def parse_lock(lock: bytes) -> list[Jar]:
    """Read a jgo lock file."""
    return [
        Jar(entry["groupId"], entry["artifactId"], entry["version"], entry["sha256"])
        for entry in tomllib.loads(lock.decode())["dependencies"]
    ]


def ensure_jars(
    cache: Path, jars: list[Jar] | None = None, *, repository: str = "", progress: Progress = lambda _done, _all: None
) -> list[Path]:
    """Return every locked jar's path in `cache`, fetching what is missing or damaged.

    With an intact cache it uses no network. Several processes may call it at once.

    Raises:
        JarsUnavailableError: a jar is missing and no repository gives it with the locked SHA-256.
        DiskFullError: the cache's disk is full.
    """
    jars = locked_jars() if jars is None else jars
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _exclusive(cache / "lock"):
            missing = [jar for jar in jars if not _intact(cache / jar.file_name, jar)]
            if missing:
                _fetch(missing, cache, repository, lambda done: progress(len(jars) - len(missing) + done, len(jars)))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(cache, shutil.disk_usage(cache).free, JARS_BYTES) from error
        raise JarsUnavailableError(cache, _reason(error)) from error
    return [cache / jar.file_name for jar in jars]


def _fetch(jars: list[Jar], cache: Path, repository: str, progress: Callable[[int], None]) -> None:
    # Imported here: a start from the cache needs neither jgo nor its HTTP client.
    from jgo.maven import MavenContext  # noqa: PLC0415

    partial = cache / "partial"
    shutil.rmtree(partial, ignore_errors=True)  # an interrupted fetch may have left files
    remote = {"configured": repository.rstrip("/")} if repository else None
    context = MavenContext(repo_cache=partial, remote_repos=remote, timeout=TIMEOUT_S)

    def fetch(jar: Jar) -> None:
        try:
            fetched = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except RuntimeError as error:  # so jgo reports a jar that no repository has
            raise JarsUnavailableError(cache, f"no repository has {jar.file_name}") from error
        if not _intact(fetched, jar):
            raise JarsUnavailableError(cache, f"{jar.file_name} does not have the locked SHA-256")
        fetched.replace(cache / jar.file_name)

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        downloads = [pool.submit(fetch, jar) for jar in jars]
        try:
            for done, download in enumerate(as_completed(downloads), 1):
                download.result()
                progress(done)
        finally:
            pool.shutdown(cancel_futures=True)
    shutil.rmtree(partial, ignore_errors=True)


def _intact(path: Path, jar: Jar) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def _reason(error: OSError) -> str:
    # The HTTP client's errors are OSErrors whose text quotes whole connection objects.
    return error.strerror or type(error).__name__


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
