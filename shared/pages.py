"""HTML pages: Jinja2 templates over one base, with autoescape, our own assets and a strict content policy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from shared import clock

_OWN = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


class Pages(APIRouter):
    """The pages of one service: a route and a template each, which extends `base.html`.

    The navigation of every page links each route that has a `summary`, by these words.

    Args:
        templates: folder of the service's templates.
        filters: further Jinja2 filters, by name.
    """

    def __init__(self, templates: Path, filters: Mapping[str, Any] | None = None) -> None:
        super().__init__(include_in_schema=False)
        self._environment = Environment(
            loader=FileSystemLoader([templates, _OWN / "templates"]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update({"utc": utc, **(filters or {})})

    def render(self, template: str, **values: Any) -> HTMLResponse:
        """The page of a template with these values."""
        links = [(route.path, route.summary) for route in self.routes if isinstance(route, APIRoute) and route.summary]
        page = self._environment.get_template(template).render(values, navigation=links)
        return HTMLResponse(page, headers=_HEADERS)


def mount_assets(app: FastAPI) -> None:
    """Serve the style sheet and the scripts of all pages under /static."""
    app.mount("/static", StaticFiles(directory=_OWN / "static"), name="static")


def utc(seconds: float | None) -> str:
    """Seconds since the Unix epoch as a date and a time in UTC; `?` for None."""
    return "?" if seconds is None else clock.utc(seconds)
