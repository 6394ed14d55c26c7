"""Bodies and queries of calls: read within their limits, and refused with the field that is wrong."""

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from starlette.requests import Request

from contender.contracts.problems import FieldError
from shared.errors import InvalidField, TooLarge, shortened
from shared.json_bounds import has_too_many_parts
from shared.problems import BadRequest, UnsupportedMediaType

ShapeT = TypeVar("ShapeT")
_PATH_IN_MESSAGE = re.compile(r" - at `(.*?)`$")
_MISSING_FIELD = re.compile(r"(?:missing required|unknown) field `(.*?)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_MOST_PARTS = 100_000
"""Arrays and objects of a body: 10,000 events have 20,000, and 4 MB of `[],` would take 100 MB and a second."""
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


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
    if has_too_many_parts(body, _MOST_PARTS):
        raise TooLarge(f"the body holds more than {_MOST_PARTS} arrays and objects: send it in several calls")
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        fault = _field_error(str(error), body, shape)
        raise InvalidField(f"{fault.field}: {fault.message}", [fault]) from error
    except _NOT_JSON as error:
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
        fault = _field_error(str(error), b"", shape)
        raise InvalidField.at(f"query.{fault.field}", fault.message) from error


def _field_error(message: str, body: bytes, shape: type) -> FieldError:
    path = _PATH_IN_MESSAGE.search(message)
    missing = _MISSING_FIELD.search(message)
    steps = [_named(path[1].removeprefix("$"), body, shape)] if path else []
    if missing:
        steps.append(shortened(missing[1]))
    text = _PATH_IN_MESSAGE.sub("", message)
    return FieldError(".".join(step for step in steps if step) or "body", shortened(text, 200))


def _named(path: str, body: bytes, shape: type) -> str:
    """The path as msgspec gives it, with the keys that it leaves out: `.inputs[...][0]` as `inputs.age[0]`."""
    head, unnamed, rest = path.rpartition("[...]")
    named = ""
    content, kind = body, shape
    try:
        for step in _STEP.finditer(head + unnamed):
            parts, kind = _parts(content, kind, step[1])
            key = step[1] or (int(step[2]) if step[2] else _first_fault(parts, kind))
            named += f"[{key}]" if isinstance(key, int) else f".{shortened(key)}"
            content = parts[key]
    except (LookupError, *_NOT_JSON):  # a key is given twice, or what follows the fault can't be read
        named = ""
    return (named + rest if named else path).removeprefix(".")


def _parts(content: bytes, kind: Any, field: str | None) -> tuple[Mapping[Any, bytes], Any]:
    """The parts of an object or array, not decoded yet, and the type that they, or the field, should have."""
    if get_origin(kind) in (Union, UnionType):  # such as `dict[str, int] | None`
        kind = next(option for option in get_args(kind) if option is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    is_list = get_origin(kind) is list
    if bytes(content).count(b"," if is_list else b":") > _MOST_PARTS:
        raise LookupError  # naming it would cost more than reading it
    if is_list:
        return dict(enumerate(msgspec.json.decode(content, type=list[msgspec.Raw]))), get_args(kind)[0]
    parts = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    if field is None:
        return parts, get_args(kind)[1]
    return parts, {known.encode_name: known.type for known in msgspec.structs.fields(kind)}[field]


def _first_fault(parts: Mapping[Any, bytes], kind: Any) -> Any:
    """The key of the first part that does not have the type."""
    decoder = msgspec.json.Decoder(kind)
    for key, part in parts.items():
        try:
            decoder.decode(part)
        except msgspec.ValidationError:
            return key
    raise LookupError
