"""Who may call: the door in front of every route.

A request is let in when it was meant for this server, was not sent by a foreign web page, and shows the API's token.
All routes are closed; ``OPEN`` names the exceptions. Whatever answers, the answer gets the security headers.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hopline.errors import HoplineError
from hopline_engine.api.errors import ForeignOriginError, UnauthorizedError, UnknownHostError, answer_to
from hopline_engine.listening import is_loopback
from hopline_engine.settings import Settings

OPEN = re.compile(
    r"/(healthz|readyz)|/api/v1/callbacks/.+|/api/v1/approvals/[^/]+/[^/]+/page"
    r"|/\.well-known/(openid-configuration|jwks\.json)"
)
"""Paths without the API's token: signs of life say nothing, a callback shows the token of its attempt, the page of an
approval the signature of its link, and the keys with which targets verify identity tokens are public."""

_HOST = re.compile(r"(\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(:[0-9]*)?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


Refuse = Callable[[str, HoplineError], ASGIApp]
"""Returns what answers a request that is not let in, by its path and the reason: not all paths tell errors alike."""


def tell(_: str, error: HoplineError) -> ASGIApp:
    """Return the refusal that every path of this API gives."""
    return answer_to(error)


class Guard:
    """Lets requests in, or answers them itself."""

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse = tell) -> None:
        self._app = app
        self._refuse = refuse
        self._token = settings.api_token.encode() if settings.api_token else None
        self._is_local = is_loopback(settings.host)
        public_host = urlsplit(settings.public_url).hostname if settings.public_url else None
        self._names = {name.lower() for name in (*settings.allowed_hosts, public_host) if name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", ())
                names = {name for name, _ in own}
                added = [header for header in _SECURITY_HEADERS if header[0] not in names]
                message = {**message, "headers": [*own, *added]}
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        app = self._refuse(scope["path"], refusal) if refusal else self._app
        await app(scope, receive, send_secured)

    def _refusal(self, scope: Scope, headers: Headers) -> HoplineError | None:
        host = headers.get("host", "")
        if not self._is_our_name(host):
            return UnknownHostError(
                f'this server is not known as "{host}"', hint="add the name to HOPLINE_ALLOWED_HOSTS if it should be"
            )
        if scope["method"] not in _SAFE_METHODS and not _is_same_origin(headers.get("origin"), host):
            return ForeignOriginError(f"pages of {headers['origin']} may not change anything here")
        if not OPEN.fullmatch(scope["path"]) and not self._shows_token(headers.get("authorization", "")):
            return UnauthorizedError("the request needs the API token", hint="set HOPLINE_API_TOKEN")
        return None

    def _is_our_name(self, host: str) -> bool:
        """Whether *host* is ours, so that no foreign name that resolves to this machine reaches a local server."""
        if not self._is_local:
            return True
        match = _HOST.fullmatch(host)
        name = (match["address"] or match["name"]).lower() if match else ""
        return is_loopback(name) or name in self._names

    def _shows_token(self, authorization: str) -> bool:
        if self._token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and compare_digest(given.strip().encode("latin-1"), self._token)


@lru_cache(maxsize=256)  # nearly all requests name the same host
def _is_same_origin(origin: str | None, host: str) -> bool:
    """Whether a request was sent by our own page, or by no page at all. Browsers always say; programs do not."""
    return origin is None or origin.partition("://")[2] == host
