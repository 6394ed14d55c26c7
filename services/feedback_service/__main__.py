"""`python -m services.feedback_service web|worker|all`."""

import sys

from services.feedback_service.main import SERVICE, serve_web, serve_worker
from services.feedback_service.settings import FeedbackSettings
from shared.logs import configure_logs
from shared.processes import run_role

if __name__ == "__main__":
    loaded = FeedbackSettings.load()
    configure_logs(service=SERVICE, log_format=loaded.log_format, level=loaded.log_level)
    run_role(SERVICE, loaded, {"web": serve_web, "worker": serve_worker}, sys.argv[1:])
