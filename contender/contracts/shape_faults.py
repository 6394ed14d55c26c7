"""Which field of a body has the wrong type: msgspec names it, but for the keys of its mappings."""

import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from contender.contracts.problems import FieldError, shortened

MOST_PARTS = 100_000
"""Arrays and objects of a body: 10,000 events have 20,000, and 4 MB of `[],` would take 100 MB and a second."""
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a body that is not JSON."""

_PATH_IN_MESSAGE = re.compile(r" - at `(.*?)`$")
_MISSING_FIELD = re.compile(r"(?:missing required|unknown) field `(.*?)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")


def field_error(message: str, body: bytes, shape: type) -> FieldError:
    """The fault of a body that does not have a shape.

    Args:
        message: msgspec's.
        body: JSON.
        shape: the type that it should have.
    """
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
    except (LookupError, *NOT_JSON):  # a key is given twice, or what follows the fault can't be read
        named = ""
    return (named + rest if named else path).removeprefix(".")


def _parts(content: bytes, kind: Any, field: str | None) -> tuple[Mapping[Any, bytes], Any]:
    """The parts of an object or array, not decoded yet, and the type that they, or the field, should have."""
    if get_origin(kind) in (Union, UnionType):  # such as `dict[str, int] | None`
        kind = next(option for option in get_args(kind) if option is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    is_list = get_origin(kind) is list
    if bytes(content).count(b"," if is_list else b":") > MOST_PARTS:
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
