"""Which release of Contender is installed."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The installed version, such as 0.1.0; "unknown" when Contender runs from its source without an installation."""
    try:
        return version("contender-ml")
    except PackageNotFoundError:
        return "unknown"
