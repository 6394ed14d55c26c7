"""The results of experiments, as the feedback service gives them over HTTP."""

from typing import Protocol

from contender.contracts.feedback_service import GET_RESULTS, Results
from services.ab_router.calls import Caller
from shared.http_client import ServiceClient

_NO_BODY = 0


class ResultsReader(Protocol):
    """Reads the results of experiments."""

    async def results(self, name: str) -> Results:
        """The results of one experiment at this moment.

        Raises:
            CallError: the feedback service does not answer, or does not know the experiment.
        """
        ...


class HttpResults:
    """The feedback service over HTTP.

    Args:
        client: sends, to the URL of the service.
        timeout_s: longest a call may take.
    """

    def __init__(self, client: ServiceClient, timeout_s: float) -> None:
        self._caller = Caller(client, "feedback_service", timeout_s, _NO_BODY)

    async def results(self, name: str) -> Results:
        """The results of one experiment at this moment."""

        def unchanged(answer: Results) -> Results:
            return answer

        return await self._caller.call(GET_RESULTS, unchanged, name=name)
