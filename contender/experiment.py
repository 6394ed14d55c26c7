"""An experiment by its name: what it does with its units, and what it has found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import httpx

from contender.contracts import feedback_service
from contender.contracts.experiments import ExperimentRevision, HistoryEntry, Readiness
from contender.errors import RefusedError

if TYPE_CHECKING:
    from contender.client import Client


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment by its name.

    Attributes:
        client: what it is changed and read with.
        name: its name.
        differences: how it differs from what `Client.experiment` declared, each a sentence; empty where it does not.
    """

    client: "Client"
    name: str
    differences: tuple[str, ...] = field(default=(), compare=False)

    def start(self, reason: str = "", *, override: str = "") -> Self:
        """Assign units to its variants from now on; a paused experiment goes on, and a running one continues.

        Args:
            reason: why, for its history.
            override: why it starts although the traffic of the last day does not suit it.

        Raises:
            RefusedError: traffic does not suit it, or another experiment could take the same units.
        """
        try:
            self.client.change(self.name, "start", reason=reason, override=override)
        except RefusedError as error:
            if error.status != httpx.codes.CONFLICT or self.revision().status != "running":
                raise
        return self

    def pause(self, reason: str = "") -> Self:
        """Let the champion answer until it is started again; no rows count meanwhile."""
        return self._change("pause", reason=reason)

    def ramp(
        self, weights: Mapping[str, float] | None = None, *, coverage: float | None = None, reason: str = ""
    ) -> Self:
        """Change the weights, by variant, or the coverage; units that are in keep their variant."""
        return self._change("ramp", weights=weights, coverage=coverage, reason=reason)

    def stop(self, reason: str = "") -> Self:
        """End the assignment of units, for good: the model's champion answers."""
        return self._change("stop", reason=reason)

    def restart(self, name: str | None = None, *, reason: str = "") -> Self:
        """A draft with the same declaration and a fresh seed; default name: this one's with the next free number."""
        draft = self.client.change(self.name, "restart", name=name, reason=reason)
        return type(self)(self.client, draft.name)

    def promote(self, reason: str = "", *, variant: str = "", override: str = "") -> Self:
        """Make the version that a verdict names as better the champion, and stop the experiment.

        Args:
            reason: why, for the record.
            variant: the challenger, where verdicts leave open which one is meant.
            override: why it is promoted although no verdict names it as better.
        """
        return self._change("promote", reason=reason, variant=variant, override=override)

    def revision(self) -> ExperimentRevision:
        """The experiment as it stands."""
        return self.client.revision(self.name)

    def readiness(self) -> Readiness:
        """What speaks against a start: traffic that does not suit, and other experiments on the model."""
        return self.client.readiness(self.name)

    def history(self) -> list[HistoryEntry]:
        """Its revisions, oldest first, each with its changes."""
        return self.client.history(self.name)

    def results(self, as_of: float | None = None) -> feedback_service.Results:
        """The results at this moment, or as they were kept at a time in seconds since 1970: those never change."""
        return self.client.results(self.name, as_of)

    def verdicts(self) -> list[feedback_service.VerdictEvent]:
        """The verdicts and what was found after them, in order."""
        return self.client.verdicts(self.name)

    def _change(self, action: str, **fields: object) -> Self:
        self.client.change(self.name, action, **fields)
        return self
