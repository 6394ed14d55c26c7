"""Bodies and queries of calls: read within their limits, and refused with the field that is wrong."""

from typing import TypeVar

import msgspec
from starlette.requests import Request

from contender.contracts.shape_faults import MOST_PARTS, NOT_JSON, field_error
from shared.errors import InvalidField, TooLarge, shortened
from shared.json_bounds import has_too_many_parts
from shared.problems import BadRequest, UnsupportedMediaType

ShapeT = TypeVar("ShapeT")


async def read_body(request: Request, shape: type[ShapeT], limit_bytes: int) -> ShapeT:
    """The JSON body as `shape`, which should forbid unknown fields.

    Raises:
        UnsupportedMediaType: the content type is not JSON.
        TooLarge: the body is longer than the limit.
        BadRequest: the body is not JSON.
        InvalidField: a field is missing, unknown or of the wrong type; the error names it.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"content-type is {media_type or 'missing'}; send application/json")
    body = await read_bytes(request, limit_bytes)
    return decode_json(body, shape)


def has_body(request: Request) -> bool:
    """Whether a request comes with a body (RFC 9112, 6.3)."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


async def read_bytes(request: Request, limit_bytes: int) -> bytes:
    """The raw body.

    Raises:
        TooLarge: the body is longer than the limit; it is not read to its end.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge(f"the body is longer than {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def decode_json(body: bytes, shape: type[ShapeT]) -> ShapeT:
    """Decode JSON into `shape`.

    Raises:
        TooLarge: it holds too many arrays and objects.
        BadRequest: not JSON.
        InvalidField: JSON of another shape; the error names the field.
    """
    if has_too_many_parts(body, MOST_PARTS):
        raise TooLarge(f"the body holds more than {MOST_PARTS} arrays and objects: send it in several calls")
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        fault = field_error(str(error), body, shape)
        raise InvalidField(f"{fault.field}: {fault.message}", [fault]) from error
    except NOT_JSON as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def read_query(request: Request, shape: type[ShapeT]) -> ShapeT:
    """The query's parameters as a struct; `?limit=20` is read as the number that the struct asks for.

    Raises:
        InvalidField: a parameter is missing, unknown, given twice or of the wrong type.
    """
    parameters = request.query_params.multi_items()
    names = [name for name, _ in parameters]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InvalidField.at(f"query.{shortened(repeated)}", "is given twice")
    try:
        return msgspec.convert(dict(parameters), shape, strict=False)
    except msgspec.ValidationError as error:
        fault = field_error(str(error), b"", shape)
        raise InvalidField.at(f"query.{fault.field}", fault.message) from error
