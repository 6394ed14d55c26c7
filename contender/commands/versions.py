"""Versions as the command line names them: by their first characters."""

from contender.client import Client
from contender.commands.terminal import fail
from contender.contracts.inference_service import ModelVersion

LEAST_CHARACTERS = 6
"""Of a version that a command is to change something by."""


def find_version(client: Client, model: str, prefix: str, *, least: int = LEAST_CHARACTERS) -> ModelVersion:
    """The version of a model that begins with some characters; the champion without any.

    Raises:
        typer.Exit: with 1, where there is none, more than one, or too few characters are given.
    """
    candidates = [known for known in client.versions() if known.model == model]
    matches = [known for known in candidates if (known.version.startswith(prefix) if prefix else known.champion)]
    if not candidates:
        raise fail(f"there is no model {model}")
    if prefix and len(prefix) < least:
        raise fail(f"{prefix!r} is too short for a version of model {model}: give at least {least} characters")
    if not matches:
        raise fail(f"model {model} has no {f'version that begins with {prefix!r}' if prefix else 'champion'}")
    if len(matches) > 1:
        raise fail(f"{len(matches)} versions of model {model} begin with {prefix!r}: give more characters")
    return matches[0]
