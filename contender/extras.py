"""Parts of the library that need an extra: without it, their import fails with a sentence that names the extra."""

from collections.abc import Iterator
from contextlib import contextmanager

from contender.errors import ContenderError

OWN_PACKAGES = ("contender", "embedded", "examples", "services", "shared")


class MissingExtraError(ContenderError, ImportError):
    """A package of an extra is not installed."""

    def __init__(self, purpose: str, extra: str, package: str) -> None:
        super().__init__(
            f"{purpose} needs the extra `{extra}`: pip install 'contender-ml[{extra}]' (missing: {package})"
        )


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Name the extra when an import inside the block lacks a package.

    Args:
        extra: the extra of contender-ml that brings the packages.
        purpose: who needs it, the subject of the sentence, such as "registering models".

    Raises:
        MissingExtraError: another distribution's package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN_PACKAGES:
            raise
        raise MissingExtraError(purpose, extra, package) from error
