"""`python -m services.feature_service web|worker|all`."""

import sys

from contender.features import DefinitionError
from services.feature_service.main import serve_web, serve_worker
from services.feature_service.settings import FeatureSettings
from shared.logs import configure_logs
from shared.processes import run_role


def main() -> None:
    """Run one role, or both."""
    settings = FeatureSettings.load()
    configure_logs(service="feature_service", log_format=settings.log_format, level=settings.log_level)
    try:
        run_role("feature_service", settings, {"web": serve_web, "worker": serve_worker}, sys.argv[1:])
    except DefinitionError as error:
        sys.exit(f"CONTENDER_FEATURES: {error}")


if __name__ == "__main__":
    main()
