"""What stands before every application: foreign hosts and sites are refused, and every answer carries its headers."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contender.contracts.problems import CROSS_SITE, MISDIRECTED, ProblemDetails, details
from shared.errors import shortened
from shared.problems import problem_response
from shared.settings import SERVICE_NAMES, Settings

REFUSED = Counter(
    "contender_http_refused_total",
    "Requests refused because they named a foreign host or came from a foreign site",
    ["reason"],
)
_POLICY = b"content-security-policy"
_FOR_PAGES = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
ANSWER_HEADERS = [*_FOR_PAGES, (_POLICY, b"default-src 'none'; frame-ancestors 'none'")]
"""On every answer; a page brings a policy of its own."""

IS_DRAINING = "is_draining"
"""In the state of requests to a process that is about to end."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({b"same-origin", b"none"})
_KNOWN_HOSTS = 256
_HOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Admission:
    """Which names a process answers to, and which web origins may change things.

    Attributes:
        hosts: names in lower case; `*.example.com` is every name below, `*` any.
        origins: such as `https://ml.example.com`, in lower case.
    """

    hosts: frozenset[str] = frozenset({"localhost"})
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The names and origins that the settings name."""
        urls = (urlsplit(settings.url(service)).hostname or "" for service in SERVICE_NAMES)
        hosts = {"localhost", settings.host.lower(), *urls, *_listed(settings.allowed_hosts)}
        return cls(frozenset(hosts), frozenset(_listed(settings.allowed_origins)))

    def serves(self, host: bytes) -> bool:
        """Whether a header Host names this process. An IP address does: no foreign name has led to it."""
        if not host or "*" in self.hosts:
            return True
        name = _name(host.decode("latin-1").lower())
        if name in self.hosts or _is_address(name):
            return True
        return any(name.endswith(pattern[1:]) for pattern in self.hosts if pattern.startswith("*."))

    def admits(self, *, site: bytes, origin: bytes | None, host: bytes) -> bool:
        """Whether a request with these headers may change something.

        The rule is that of Go's `http.CrossOriginProtection`: by Sec-Fetch-Site, which browsers send and pages can't
        forge, else by Origin; a request with neither comes from no browser.
        """
        if site in _OWN_SITE or (not site and origin is None):
            return True
        text = (origin or b"").decode("latin-1").lower()
        if text in self.origins:
            return True
        return not site and host != b"" and text.partition("://")[2] == host.decode("latin-1").lower()


class Guard:
    """An application behind its admission.

    While `is_draining`, the application is not ready, and its answers end their connections, so that callers open
    the next ones elsewhere.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission
        self._serves = lru_cache(_KNOWN_HOSTS)(admission.serves)
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        if self.is_draining:
            scope.setdefault("state", {})[IS_DRAINING] = True

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message["headers"] = [*headers, *(_FOR_PAGES if _POLICY in dict(headers) else ANSWER_HEADERS)]
                if self.is_draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        REFUSED.labels(refusal.type.rpartition("/")[2]).inc()
        answer = problem_response(refusal)
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ProblemDetails | None:
        host = site = b""
        origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                if len(host) > _HOST_CHARACTERS or not self._serves(host):
                    return details(
                        MISDIRECTED, f"this service does not serve the host {_shown(host)}: see CONTENDER_ALLOWED_HOSTS"
                    )
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if scope["method"] in _SAFE_METHODS or self._admission.admits(site=site, origin=origin, host=host):
            return None
        return details(
            CROSS_SITE, f"pages of {_shown(origin or site)} may not change anything here: see CONTENDER_ALLOWED_ORIGINS"
        )


def _listed(text: str) -> Iterable[str]:
    return (item.strip().lower().rstrip("/") for item in text.split(",") if item.strip())


def _name(host: str) -> str:
    """The name in `name:port` or `[address]:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(value: bytes) -> str:
    return shortened(value.decode("ascii", "replace"))
