"""Where the services are."""

import os
from typing import Literal, get_args
from urllib.parse import urlsplit

import httpx

from contender.errors import ContenderError

DEFAULT_URL = "http://127.0.0.1:8400"
ServiceName = Literal["ab_router", "feature_service", "inference_service", "feedback_service"]
_PORTS = dict(zip(get_args(ServiceName), range(8400, 8404), strict=True))


def service_urls(url: str | None = None) -> dict[ServiceName, str]:
    """Where the services are, without a trailing slash.

    Args:
        url: the router; default: the variable CONTENDER_URL, else `http://127.0.0.1:8400`. The other services are on
            the same host, on ports 8401 to 8403, unless CONTENDER_<SERVICE>_URL or CONTENDER_<SERVICE>_PORT says
            otherwise.

    Raises:
        ContenderError: a URL is invalid.
    """
    router = _checked(url or os.environ.get("CONTENDER_URL") or DEFAULT_URL)
    others = (service for service in _PORTS if service != "ab_router")
    return {"ab_router": router, **{service: _url_beside(router, service) for service in others}}


def _url_beside(router: str, service: ServiceName) -> str:
    variable = f"CONTENDER_{service.upper()}"
    if url := os.environ.get(f"{variable}_URL"):
        return _checked(url)
    parts = urlsplit(router)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return _checked(f"{parts.scheme}://{host}:{os.environ.get(f'{variable}_PORT', _PORTS[service])}")


def _checked(url: str) -> str:
    """The URL without a trailing slash."""
    try:
        httpx.URL(url)  # rejects control characters, which urlsplit accepts, but not every bracket
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, httpx.InvalidURL) as error:
        raise ContenderError(f"{url!a} is not a URL such as {DEFAULT_URL}: {error}") from error
    if not is_valid:
        raise ContenderError(f"{url!a} is not a URL such as {DEFAULT_URL}")
    return url.rstrip("/")
