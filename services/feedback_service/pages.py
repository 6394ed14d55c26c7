"""The dashboard's routes: server-rendered pages and their own static files, under a strict content policy."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from services.feedback_service.handlers import ReadResults
from services.feedback_service.rendering import experiment_page, overview_page

router = APIRouter(include_in_schema=False)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


@router.get("/")
async def show_overview(request: Request) -> HTMLResponse:
    """The known experiments."""
    tell: ReadResults = request.state.read_results
    return HTMLResponse(overview_page(await tell.list_experiments()), headers=_HEADERS)


@router.get("/experiments/{name:path}")
async def show_experiment(request: Request, name: str) -> HTMLResponse:
    """The results of one experiment."""
    tell: ReadResults = request.state.read_results
    return HTMLResponse(experiment_page(await tell.results(name)), headers=_HEADERS)
