"""How large and how deep a manifest may be: its bytes are checked before it is decoded, its parts afterwards."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import CATEGORIES, CATEGORY_CHARACTERS
from contender.contracts.values import Scalar
from shared.errors import InvalidField, TooLarge, shortened

DEPTH_LIMIT = 32
"""Lists and objects inside one another; parameters of nested pipelines have 6."""
KEPT_DEPTH_LIMIT = 100
"""The same for what was kept before there was a limit; Python reads about 950."""
PART_LIMIT = 100_000
FREE_LIMIT_BYTES = 256 * 1024
"""Most bytes of the fields of a manifest that the service itself does not read."""
COLUMN_LIMIT = 2_000
NAME_LIMIT = 200
DESCRIPTION_LIMIT = 10_000
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_SOURCE = re.compile(r"request|[^:]+:.+", re.DOTALL)


def check_json(content: bytes, field: str) -> None:
    """Refuse JSON that takes much more memory or stack than bytes, without decoding it.

    Raises:
        TooLarge: more parts than any manifest has.
        InvalidField: nested deeper than allowed.
    """
    if sum(content.count(mark) for mark in (b"[", b"{", b",")) > PART_LIMIT:
        raise TooLarge.at(field, f"has more than {PART_LIMIT} values")
    if depth_of(content, DEPTH_LIMIT) > DEPTH_LIMIT:
        raise InvalidField.at(field, f"nests lists and objects more than {DEPTH_LIMIT} deep")


def depth_of(content: bytes, limit: int) -> int:
    """How deep lists and objects lie inside one another; counting stops at `limit` + 1."""
    if content.count(b"[") + content.count(b"{") <= limit:
        return 0
    depth = deepest = 0
    for match in _BRACKETS.finditer(content):
        mark = match[0]
        if mark in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > limit:
                break
        elif mark in (b"]", b"}"):
            depth -= 1
    return deepest


def check_free_part(manifest: Mapping[str, object], known: Sequence[str]) -> None:
    """Refuse a manifest whose own fields, beside the known ones, are too large.

    Raises:
        TooLarge: they are.
    """
    free = {name: value for name, value in manifest.items() if name not in known}
    if (size := len(msgspec.json.encode(free))) > FREE_LIMIT_BYTES:
        raise TooLarge.at(
            "manifest", f"has {size} bytes beside {', '.join(known)}; at most {FREE_LIMIT_BYTES} are kept"
        )


def check_texts(inputs: Sequence[InputColumn], classes: Sequence[Scalar], description: str) -> None:
    """Refuse names that are empty or too long, sources that name no feature, and too many columns.

    Raises:
        InvalidField: the error names the field.
    """
    if len(inputs) > COLUMN_LIMIT:
        raise InvalidField.at("manifest.inputs", f"has {len(inputs)} columns; at most {COLUMN_LIMIT} are served")
    for column in inputs:
        field = f"manifest.inputs.{shortened(column.name)}"
        _check_name(field, column.name)
        _check_length(f"{field}.tensor", column.tensor)
        _check_length(f"{field}.null_text", column.null_text)
        _check_length(f"{field}.source", column.source)
        if _SOURCE.fullmatch(column.source) is None:
            raise InvalidField.at(f"{field}.source", "is neither `request` nor `view:feature`")
    for value in classes:
        _check_length("manifest.classes", value if isinstance(value, str) else "")
    if len(description) > DESCRIPTION_LIMIT:
        raise InvalidField.at("manifest.description", f"is longer than {DESCRIPTION_LIMIT} characters")


def check_categories(categories: Mapping[str, Sequence[str]]) -> None:
    """Refuse categories of too many columns, and of a column that has too many or too long ones.

    Raises:
        InvalidField: the error names the column.
    """
    if len(categories) > COLUMN_LIMIT:
        raise InvalidField.at(
            "manifest.categories", f"has {len(categories)} columns; at most {COLUMN_LIMIT} are served"
        )
    for name, values in categories.items():
        longest = max(map(len, values), default=0)
        if len(values) > CATEGORIES or longest > CATEGORY_CHARACTERS:
            raise InvalidField.at(
                f"manifest.categories.{shortened(name)}",
                f"has {len(values)} values, the longest of {longest} characters; at most {CATEGORIES} of up to "
                f"{CATEGORY_CHARACTERS} characters are kept: leave such a column out",
            )


def _check_name(field: str, name: str) -> None:
    if not name.strip():
        raise InvalidField.at(field, "is an empty name")
    _check_length(field, name)


def _check_length(field: str, text: str) -> None:
    if len(text) > NAME_LIMIT:
        raise InvalidField.at(field, f"is longer than {NAME_LIMIT} characters")
