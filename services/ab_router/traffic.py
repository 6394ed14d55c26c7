"""What the model's traffic of the last day says of an experiment before its start."""

from collections.abc import Mapping
from typing import Protocol

from contender.contracts.experiments import ExperimentRevision, Finding
from contender.contracts.inference_service import ModelVersion


class Traffic(Protocol):
    """The rows that callers sent in the last day."""

    def findings(self, revision: ExperimentRevision, versions: Mapping[str, ModelVersion]) -> list[Finding]:
        """What speaks against a start; `versions` are the model's, by name."""
        ...

    def seen(self, model: str) -> tuple[int, float | None]:
        """How many rows of a model came, and since when, in seconds since the Unix epoch."""
        ...


class NoTraffic:
    """Traffic that nobody counts: it speaks against nothing."""

    def findings(self, revision: ExperimentRevision, versions: Mapping[str, ModelVersion]) -> list[Finding]:  # noqa: ARG002
        """Nothing."""
        return []

    def seen(self, model: str) -> tuple[int, float | None]:  # noqa: ARG002
        """No rows."""
        return 0, None
