"""An OpenAPI document from a service's operations: the contracts' types are its schemas."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from contender.contracts.operation import Operation
from contender.contracts.problems import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    INVALID_FIELD,
    MEDIA_TYPE,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemDetails,
    ProblemType,
    details,
)

_REFERENCE = "#/components/schemas/{name}"
Schema = dict[str, Any]


def openapi_document(title: str, version: str, operations: Sequence[Operation[Any]]) -> Schema:
    """The OpenAPI 3.1 document of a service.

    Args:
        title: the service's title.
        version: the release.
        operations: in the order in which they are shown.
    """
    types = list(dict.fromkeys(_types(operations)))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.template, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(operations: Sequence[Operation[Any]]) -> Iterable[Any]:
    yield ProblemDetails
    for operation in operations:
        yield operation.answer
        yield from operation.also
        if operation.body is not None:
            yield operation.body


def _operation(operation: Operation[Any], by_type: dict[Any, Schema]) -> Schema:
    described: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": _responses(operation, by_type),
    }
    if operation.body is not None:
        content = _content(by_type[operation.body], operation.body_example)
        described["requestBody"] = {"required": True, "content": {operation.body_media_type: content}}
    return described


def _path_parameters(operation: Operation[Any]) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in operation.parameters
    ]


def _query_parameters(operation: Operation[Any]) -> list[Schema]:
    if operation.query is None:
        return []
    fields = msgspec.structs.fields(operation.query)
    return [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": msgspec.json.schema(field.type),
        }
        for field in fields
    ]


def _responses(operation: Operation[Any], by_type: dict[Any, Schema]) -> Schema:
    answer = {operation.answer_media_type: _content(by_type[operation.answer], operation.answer_example)}
    responses: Schema = {str(operation.status): {"description": operation.summary, "content": answer}}
    for status, meaning in operation.other_statuses.items():
        responses[str(status)] = {"description": meaning, "content": answer}
    by_status: dict[int, list[ProblemType]] = {}
    for kind in dict.fromkeys((*operation.problems, *_problems_of_any(operation))):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        responses[str(status)] = _problem(kinds, by_type[ProblemDetails])
    return responses


def _problems_of_any(operation: Operation[Any]) -> list[ProblemType]:
    """The problems that reading a call of this shape may have."""
    kinds = [INTERNAL_ERROR]
    if operation.body is not None:
        kinds += [BAD_REQUEST, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_FIELD]
    if operation.query is not None:
        kinds.append(INVALID_FIELD)
    return kinds


def _problem(kinds: Sequence[ProblemType], schema: Schema) -> Schema:
    example = msgspec.to_builtins(details(kinds[0], kinds[0].meaning))
    description = " ".join(f"{kind.type}: {kind.meaning}" for kind in kinds)
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


def _content(schema: Schema, example: Any) -> Schema:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}
