"""`python -m services.inference_service web`."""

import sys

from services.inference_service.main import create_app
from services.inference_service.settings import InferenceSettings
from shared.logs import configure_logs
from shared.processes import run_role, run_web


def web(settings: InferenceSettings) -> None:
    """Serve HTTP."""
    run_web(create_app(settings), settings, "inference_service")


if __name__ == "__main__":
    loaded = InferenceSettings.load()
    configure_logs(service="inference_service", log_format=loaded.log_format, level=loaded.log_level)
    run_role("inference_service", loaded, {"web": web}, sys.argv[1:])
