"""The way past the framework, for the route that is called as often as all others together.

To find a route and to work out what its function is given takes FastAPI as long as the engine takes to start a run
(measured: 150 of 380 us). A route that needs nothing but the request and the engine is therefore also listed here, by
method and path; it is declared, and documented, where all routes are, and its function is the same.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hopline.errors import HoplineError
from hopline_engine.api.errors import answer_to
from hopline_engine.api.interface import EngineService

Shortcut = Callable[[Request, EngineService], Awaitable[Response]]


class Shortcuts:
    """Answers requests for listed routes itself; to stand behind the guard, as the framework does."""

    def __init__(self, app: ASGIApp, engine: EngineService, routes: Mapping[tuple[str, str], Shortcut]) -> None:
        self._app = app
        self._engine = engine
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        shortcut = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if shortcut is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await shortcut(Request(scope, receive), self._engine)
        except HoplineError as error:
            response = answer_to(error)
        await response(scope, receive, send)
