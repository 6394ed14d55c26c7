"""Plans of experiments, by the feedback service."""

import asyncio
from typing import Protocol

import msgspec

from contender.contracts.feedback_service import NO_RECORD, PLAN_EXPERIMENT, Plan, PlanRequest
from contender.contracts.operation import JSON
from contender.contracts.problems import read_problem
from shared.http_client import Answer, ServiceClient


class NoPlanError(RuntimeError):
    """There is no plan; the text says why, for callers to read."""


class Plans(Protocol):
    """Plans of experiments."""

    async def plan(self, request: PlanRequest) -> Plan:
        """What an experiment would take.

        Raises:
            NoPlanError: the service refuses the question, or does not answer in time.
        """
        ...


class HttpPlans:
    """Plans over HTTP.

    Args:
        client: sends, to the URL of the feedback service.
        timeout_s: longest that a plan may take.
    """

    def __init__(self, client: ServiceClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def plan(self, request: PlanRequest) -> Plan:
        """What an experiment would take."""
        operation, content = PLAN_EXPERIMENT, msgspec.json.encode(request)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(operation.method, operation.url(), content, {"content-type": JSON})
            return _plan(answer)
        except (OSError, TimeoutError, msgspec.DecodeError, RecursionError) as error:
            raise NoPlanError("the feedback service does not answer") from error


def _plan(answer: Answer) -> Plan:
    if answer.status == PLAN_EXPERIMENT.status:
        return msgspec.json.decode(answer.content, type=Plan)
    problem = read_problem(answer.content)
    if answer.status == NO_RECORD.status:
        raise NoPlanError("no experiment of the model has matured rows to plan from yet")
    raise NoPlanError(problem.detail or f"the feedback service answers with status {answer.status}")
