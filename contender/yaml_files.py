"""YAML files for people: read safely and within limits, with errors that name the line; written so that they read."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from contender.errors import ContenderError

LIMIT_BYTES = 1024**2
"""Largest file: a thousand experiments take 500 KB."""
_PART_LIMIT = 200_000
"""Most values after aliases are followed: a file of some hundred bytes can stand for billions of them."""
_WIDTH = 100
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
ShapeT = TypeVar("ShapeT")


class Document:
    """What a YAML file holds, and where.

    Args:
        source: the file's name, for messages.
        content: its text.

    Raises:
        ContenderError: it is too large, or not YAML as it is read here; the message names the line.
    """

    def __init__(self, source: str, content: str | bytes) -> None:
        self.source = source
        if len(content) > LIMIT_BYTES:
            raise ContenderError(f"{source} is larger than {LIMIT_BYTES} bytes")
        try:
            loader = _Loader(content)
            try:
                self._root = loader.get_single_node()
                _check_size(source, self._root)
                self.value = None if self._root is None else loader.construct_document(self._root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise ContenderError(f"{source}{_line(mark)}: {error.problem or error.context}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes that are no text, a day 32, depth
            raise ContenderError(f"{source} can't be read: {str(error).splitlines()[0]}") from error

    @classmethod
    def read(cls, path: Path) -> "Document":
        """The document of a file.

        Raises:
            ContenderError: it can't be read.
        """
        try:
            if path.stat().st_size > LIMIT_BYTES:
                raise ContenderError(f"{path} is larger than {LIMIT_BYTES} bytes")
            return cls(str(path), path.read_bytes())
        except OSError as error:
            raise ContenderError(f"{path} can't be read: {error.strerror}") from error

    @staticmethod
    def dump(value: object) -> str:
        """A value as YAML, in the order in which it is given."""
        text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
        return text

    def converted(self, shape: type[ShapeT]) -> ShapeT:
        """The content as `shape`.

        Raises:
            ContenderError: it has another shape; the message names line and field.
        """
        try:
            return msgspec.convert(self.value, shape)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            field = path.rstrip("`").removeprefix(".").replace("[...].", "").replace("[...]", "")
            raise ContenderError(f"{self.location(path)}: {f'{field}: ' if field else ''}{message}") from error

    def location(self, path: str) -> str:
        """The file and line of a value, such as `.experiments[0].weight`, or of the deepest part of it that there is.

        A name of a mapping may stand in brackets as well, as msgspec writes one that it does not tell: `[...]`.
        """
        node = self._root
        for name, index in _STEP.findall(path):
            below = _below(node, name, index)
            if below is None:
                break
            node = below
        return f"{self.source}{_line(node.start_mark if node is not None else None)}"


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses a key that stands twice: the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[object] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper without aliases: each value is written out where it is."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, False)


def _check_size(source: str, root: yaml.Node | None) -> None:
    """Refuse a document of too many values, whatever its aliases make of it; one that holds itself has no end."""
    pending = [] if root is None else [root]
    parts = 0
    while pending:
        node = pending.pop()
        parts += 1
        if parts > _PART_LIMIT:
            raise ContenderError(f"{source} holds more than {_PART_LIMIT} values once its aliases are followed")
        if isinstance(node, yaml.MappingNode):
            pending.extend(part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)


def _below(node: yaml.Node | None, name: str, index: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode) and name:
        return next((value for key, value in node.value if key.value == name), None)
    if isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
        below: yaml.Node = node.value[int(index)]
        return below
    return None


def _line(mark: yaml.error.Mark | None) -> str:
    return "" if mark is None else f", line {mark.line + 1}"
