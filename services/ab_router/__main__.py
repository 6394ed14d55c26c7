"""`python -m services.ab_router web`."""

import sys

from services.ab_router.main import create_app
from services.ab_router.settings import RouterSettings
from shared.logs import configure_logs
from shared.processes import run_role, run_web


def web(settings: RouterSettings) -> None:
    """Serve HTTP; at the end each call gets its deadline."""
    run_web(create_app(settings), settings, "ab_router", finish_s=settings.finish_s)


if __name__ == "__main__":
    loaded = RouterSettings.load()
    configure_logs(service="ab_router", log_format=loaded.log_format, level=loaded.log_level)
    run_role("ab_router", loaded, {"web": web}, sys.argv[1:])
