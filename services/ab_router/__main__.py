"""`python -m services.ab_router web|worker|all`."""

import sys

from services.ab_router.main import SERVICE, serve_web, serve_worker
from services.ab_router.settings import RouterSettings
from shared.logs import configure_logs
from shared.processes import run_role

if __name__ == "__main__":
    loaded = RouterSettings.load()
    configure_logs(service=SERVICE, log_format=loaded.log_format, level=loaded.log_level)
    run_role(SERVICE, loaded, {"web": serve_web, "worker": serve_worker}, sys.argv[1:])
