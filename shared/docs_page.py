"""The page /docs of a service, made from its OpenAPI document."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from starlette.responses import Response

from shared.openapi import Schema
from shared.pages import Pages

_CODE = re.compile(r"`([^`]+)`")


def docs_page(document: Callable[[], Schema]) -> Pages:
    """The route of the page.

    Args:
        document: makes the OpenAPI document, when the page is first asked for.
    """
    pages = Pages(Path(__file__).parent / "templates", {"pretty": _pretty, "last_step": _last_step, "prose": _prose})

    @pages.get("/docs")
    async def docs() -> Response:
        content = document()
        return pages.render("docs.html", document=content, operations_by_tag=_by_tag(content))

    return pages


def _by_tag(document: Schema) -> dict[str, list[tuple[str, str, Schema]]]:
    """Method, path and description of the operations below each heading."""
    headings: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            headings.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return headings


def _pretty(example: Any) -> str:
    return json.dumps(example, indent=2, ensure_ascii=False)


def _prose(text: str) -> Markup:
    """Escaped text, with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", escape(text)))  # noqa: S704 - escaped first


def _last_step(reference: str) -> str:
    """The name that a `$ref` leads to."""
    return reference.rpartition("/")[2]
