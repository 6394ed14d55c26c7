"""The OpenAPI documents are true: golden files, examples, and whatever schemathesis thinks of."""

import asyncio
import importlib
import runpy
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contender.contracts import health
from contender.contracts.operation import JSON, Operation
from shared.testing import client_for
from tests.contract.applications import APPLICATIONS

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "deploy" / "openapi.py"))
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
MODULES = {
    "ab_router": ["ab_router", "experiments", "ofrep"],
    "inference_service": ["inference_service", "open_inference"],
}
"""The modules of a service's operations, where there are several."""

bounded = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def operations_of(name: str) -> list[Operation[Any]]:
    modules = [importlib.import_module(f"contender.contracts.{module}") for module in MODULES.get(name, [name])]
    modules.append(health)
    return [value for module in modules for value in vars(module).values() if isinstance(value, Operation)]


def document_of(name: str) -> dict[str, Any]:
    return SCRIPT["SERVICES"][name]().openapi()


def schema_of(name: str):
    return schemathesis.openapi.from_dict(document_of(name))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_document_is_the_golden_file(name: str):
    golden = SCRIPT["FOLDER"] / f"{name}.json"
    assert golden.read_text() == SCRIPT["document"](name), "run `make docs`: its difference is what callers will meet"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_service_serves_the_operations_of_its_contract_and_no_other(name: str):
    served = {
        (operation["operationId"], method, path)
        for path, operations in document_of(name)["paths"].items()
        for method, operation in operations.items()
    }
    assert served == {(kept.id, kept.method.lower(), kept.template) for kept in operations_of(name)}


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(operation, id=f"{name}: {operation.id}")
        for name in APPLICATIONS
        for operation in operations_of(name)
    ],
)
def test_an_operation_has_types_and_examples_of_them(operation: Operation[Any]):
    assert operation.tag
    assert operation.answer not in (object, Any, msgspec.Raw)
    if operation.answer_media_type == JSON:
        msgspec.json.decode(msgspec.json.encode(operation.answer_example), type=operation.answer)
    if operation.body is not None:
        assert operation.body not in (object, Any, msgspec.Raw)
        assert operation.body_example is not None
    if operation.body is not None and operation.body_media_type == JSON:
        msgspec.json.decode(msgspec.json.encode(operation.body_example), type=operation.body)


@dataclass
class Served:
    """A service that answers in this process, between calls as well as during them."""

    name: str
    runner: asyncio.Runner
    client: httpx.AsyncClient

    def check(self, case: Case) -> None:
        """Answer the case, and once more for names that the service knows."""
        self.answer(case)
        known = {name: APPLICATIONS[self.name].known.get(name, value) for name, value in case.path_parameters.items()}
        if known != case.path_parameters:
            case.path_parameters = known
            self.answer(case)

    def answer(self, case: Case) -> int:
        """The status of the answer, which the document must have; none but a documented refusal is the server's."""
        request = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
        sent = httpx.Request(request.method, request.url, headers=dict(request.headers), content=request.body)
        answer = Response.from_httpx(self.runner.run(self.client.send(sent)), verify=True)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code != 500, answer.text
        return answer.status_code


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Served]:
    with asyncio.Runner() as runner:
        parts = AsyncExitStack()

        async def open_client() -> httpx.AsyncClient:
            app = await parts.enter_async_context(APPLICATIONS[name].open(folder))
            return await parts.enter_async_context(client_for(app))

        try:
            yield Served(name, runner, runner.run(open_client()))
        finally:
            runner.run(parts.aclose())


@pytest.fixture(scope="module")
def router(tmp_path_factory) -> Iterator[Served]:
    with serving("ab_router", tmp_path_factory.mktemp("router")) as served:
        yield served


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Iterator[Served]:
    with serving("feature_service", tmp_path_factory.mktemp("features")) as served:
        yield served


@pytest.fixture(scope="module")
def inference(tmp_path_factory) -> Iterator[Served]:
    with serving("inference_service", tmp_path_factory.mktemp("inference")) as served:
        yield served


@pytest.fixture(scope="module")
def feedback(tmp_path_factory) -> Iterator[Served]:
    with serving("feedback_service", tmp_path_factory.mktemp("feedback")) as served:
        yield served


@pytest.mark.parametrize("name", APPLICATIONS)
def test_calls_are_answered_as_the_document_says(name: str, tmp_path: Path):
    schema = schema_of(name)
    with serving(name, tmp_path) as served:
        statuses = {call.operation: served.answer(call.case(schema)) for call in APPLICATIONS[name].calls}
    assert {operation: status for operation, status in statuses.items() if status >= 300} == {}


@schema_of("ab_router").parametrize()
@bounded
def test_the_router_answers_nothing_undocumented(case: Case, router: Served):
    router.check(case)


@schema_of("feature_service").parametrize()
@bounded
def test_the_feature_service_answers_nothing_undocumented(case: Case, features: Served):
    features.check(case)


@schema_of("inference_service").parametrize()
@bounded
def test_the_inference_service_answers_nothing_undocumented(case: Case, inference: Served):
    inference.check(case)


@schema_of("feedback_service").parametrize()
@bounded
def test_the_feedback_service_answers_nothing_undocumented(case: Case, feedback: Served):
    feedback.check(case)
