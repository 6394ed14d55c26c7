"""What the router asks of the feature service and the inference service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from contender.contracts.inference_service import ModelVersion, Promotion, ScoredRows
from contender.contracts.problems import FieldError
from contender.contracts.values import Scalar
from shared.breaker import Faults


class CallError(RuntimeError):
    """The other service does not answer at the moment. Its text, with internal addresses, is for the log."""


class CallTimeoutError(CallError):
    """The other service has not answered within the timeout of the call."""


class QuestionRefusedError(CallError):
    """The other service refuses the question itself: asking it again does not help.

    Attributes:
        status: the HTTP status.
        errors: the fields that it names, in its own terms.
    """

    def __init__(self, detail: str, status: int, errors: list[FieldError]) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors


FAULTS = Faults("the service", CallError, CallTimeoutError, (QuestionRefusedError,))
"""How calls to other services end."""


@dataclass(frozen=True, slots=True)
class ServedFeatures:
    """Values and statuses by feature reference (`view:feature`), one entry per row."""

    values: dict[str, list[Scalar]]
    statuses: dict[str, Sequence[str]]


class ViewInputs(msgspec.Struct, frozen=True):
    """The inputs of a view: the join keys of its look-ups, and the columns of the request it computes from.

    `request` has the type by column: str, int, float or bool.
    """

    join_keys: list[str] = []
    request: dict[str, str] = {}


class Features(Protocol):
    """Online features."""

    async def view_inputs(self) -> dict[str, ViewInputs]:
        """The inputs of views, by `view@version` and by the name alone, which stands for the newest version.

        Raises:
            CallError: the service does not answer.
        """
        ...

    async def get(
        self, references: Sequence[str], entities: Mapping[str, list[Scalar]], times: list[float]
    ) -> ServedFeatures:
        """Features of rows at their times; `entities` holds join keys and request columns.

        Raises:
            QuestionRefusedError: the service refuses the rows.
            CallError: the service does not answer.
        """
        ...


class Inference(Protocol):
    """Models and their scores."""

    @property
    def silent_s(self) -> float:
        """Seconds since the last answer, where every call after it has failed; 0 when the last one was answered."""
        ...

    async def versions(self) -> list[ModelVersion]:
        """Every version of every model.

        Raises:
            CallError: the service does not answer.
        """
        ...

    async def predict(self, model: str, version: str, inputs: Mapping[str, list[Scalar]]) -> ScoredRows:
        """Scores of rows given by column.

        Raises:
            QuestionRefusedError: the service refuses the rows.
            CallError: the service does not answer.
        """
        ...

    async def promote(self, model: str, promotion: Promotion) -> None:
        """Make a version the champion of a model.

        Raises:
            QuestionRefusedError: the model has no such version.
            CallError: the service does not answer; the version may have become the champion all the same.
        """
        ...
