"""An OpenAPI document from a service's operations: the contracts' types are its schemas."""

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

import msgspec

from contender.contracts.operation import Operation
from contender.contracts.problems import (
    BAD_REQUEST,
    CROSS_SITE,
    HEAD_TOO_LARGE,
    INTERNAL_ERROR,
    INVALID_FIELD,
    MEDIA_TYPE,
    MISDIRECTED,
    NOT_FOUND,
    REQUEST_TIMEOUT,
    SERVICE_UNAVAILABLE,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemDetails,
    ProblemType,
    details,
)

Schema = dict[str, Any]
Gate = Callable[[Operation[Any]], Sequence[ProblemType]]
"""Gives the problems that an operation's calls may meet before they reach it."""

_SCHEMA = "#/components/schemas/{name}"
_DESCRIPTION = (
    "Errors are problem details (RFC 9457); `GET` their `type` to read what it stands for. "
    "A path that is not listed answers 404, and a method that a path does not list 405 with `Allow`."
)
_OF_EVERY_REQUEST = (
    BAD_REQUEST,
    REQUEST_TIMEOUT,
    MISDIRECTED,
    TOO_MANY_REQUESTS,
    HEAD_TOO_LARGE,
    SERVICE_UNAVAILABLE,
)
_OF_EVERY_BODY = (BAD_REQUEST, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_FIELD)


def openapi_document(
    title: str, version: str, operations: Sequence[Operation[Any]], gates: Sequence[Gate] = ()
) -> Schema:
    """The OpenAPI 3.1 document of a service.

    Args:
        title: the service's title.
        version: the release.
        operations: in the order in which they are shown.
        gates: what stands before the operations, beside the server and its guard.
    """
    types = list(dict.fromkeys(_types(operations)))
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema_of_any, ref_template=_SCHEMA)
    for schema in components.values():
        if "description" in schema:  # a docstring
            schema["description"] = cleandoc(schema["description"])
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, Schema] = {}
    kinds: dict[str, ProblemType] = {}
    for operation in operations:
        before = [kind for gate in (server_problems, *gates) for kind in gate(operation)]
        kinds |= {kind.slug: kind for kind in (*operation.problems, *_reading_problems(operation), *before)}
        paths.setdefault(operation.template, {})[operation.method.lower()] = _operation(operation, before, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                slug: {"description": f"{kind.type}: {kind.meaning}", "content": {MEDIA_TYPE: _problem(kind, by_type)}}
                for slug, kind in sorted(kinds.items())
            },
        },
    }


def server_problems(operation: Operation[Any]) -> list[ProblemType]:
    """The problems that the server and its guard answer by themselves."""
    return [*_OF_EVERY_REQUEST, *([] if operation.method == "GET" else [CROSS_SITE])]


def _types(operations: Sequence[Operation[Any]]) -> Iterable[Any]:
    yield ProblemDetails
    for operation in operations:
        yield operation.answer
        yield operation.error
        yield from operation.also
        if operation.body is not None:
            yield operation.body


def _schema_of_any(kind: type) -> Schema:
    """The schema of a type that msgspec does not know: the contracts have `object` for any JSON value."""
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _operation(operation: Operation[Any], before: Sequence[ProblemType], by_type: dict[Any, Schema]) -> Schema:
    described: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation),
            *_header_parameters(operation),
        ],
        "responses": _responses(operation, before, by_type),
    }
    if operation.body is not None:
        content = _content(by_type[operation.body], operation.body_example)
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {operation.body_media_type: content},
        }
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


def _header_parameters(operation: Operation[Any]) -> list[Schema]:
    return [
        {"name": name, "in": "header", "required": False, "schema": schema}
        for name, schema in operation.request_headers.items()
    ]


def _responses(operation: Operation[Any], before: Sequence[ProblemType], by_type: dict[Any, Schema]) -> Schema:
    content = {} if operation.answer is bytes else _content(by_type[operation.answer], operation.answer_example)
    answer = {operation.answer_media_type: content}
    responses: Schema = {str(operation.status): {"description": operation.summary, "content": answer}}
    if operation.answer_headers:
        responses[str(operation.status)]["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}}
            for name, meaning in operation.answer_headers.items()
        }
    for status, meaning in operation.other_statuses.items():
        has_content = status != HTTPStatus.NOT_MODIFIED
        responses[str(status)] = {"description": meaning, **({"content": answer} if has_content else {})}
    own = dict.fromkeys((*operation.problems, *_reading_problems(operation)))
    for status in sorted({kind.status for kind in (*own, *before)}):
        kinds = [kind for kind in own if kind.status == status]
        kinds_before = [kind for kind in before if kind.status == status]
        responses[str(status)] = _refusal(kinds, kinds_before, operation, by_type)
    return responses


def _refusal(
    own: Sequence[ProblemType], before: Sequence[ProblemType], operation: Operation[Any], by_type: dict[Any, Schema]
) -> Schema:
    """The answer of one status, in the operation's own form or as a problem."""
    meanings = {kind.type: kind.meaning for kind in (*own, *before)}
    is_problem = operation.error is ProblemDetails or not own
    if is_problem and len(meanings) == 1:
        return {"$ref": f"#/components/responses/{(*own, *before)[0].slug}"}
    contents = {MEDIA_TYPE: _problem((*own, *before)[0], by_type)} if is_problem or before else {}
    if not is_problem:
        contents[operation.error_media_type] = _content(by_type[operation.error])
    return {"description": " ".join(f"{name}: {text}" for name, text in meanings.items()), "content": contents}


def _reading_problems(operation: Operation[Any]) -> list[ProblemType]:
    """The problems that reading a call of this shape, and whatever the service does with it, may have."""
    return [
        *([NOT_FOUND] if operation.parameters else []),  # a name with a slash is another path
        *(_OF_EVERY_BODY if operation.body is not None else []),
        *([INVALID_FIELD] if operation.query is not None else []),
        INTERNAL_ERROR,
    ]


def _problem(kind: ProblemType, by_type: dict[Any, Schema]) -> Schema:
    return _content(by_type[ProblemDetails], msgspec.to_builtins(details(kind, kind.meaning)))


def _content(schema: Schema, example: Any = None) -> Schema:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}
