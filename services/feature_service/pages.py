"""The features' page: how fresh and how full each view is."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse

from contender.features import format_duration
from services.feature_service.status import StatusReader
from shared.pages import Pages

pages = Pages(Path(__file__).parent / "templates", {"duration": format_duration})


@pages.get("/", summary="Features")
async def show_features(request: Request) -> HTMLResponse:
    """How every view is doing."""
    status: StatusReader = request.state.status
    return pages.render("features.html", status=await status.read())
