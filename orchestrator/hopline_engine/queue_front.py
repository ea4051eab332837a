"""Puts the queue service together: its pusher beside the engine, and its fronts on the engine's server."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from hopline.errors import HoplineError
from hopline_engine.api.errors import ForeignOriginError, UnauthorizedError, UnknownHostError, answer_to
from hopline_engine.clock import Clock
from hopline_engine.core.cloud.errors import CloudTasksError, Code
from hopline_engine.queue.app_engine import AppEngineUrls
from hopline_engine.queue.delivering import Courier
from hopline_engine.queue.following import Follower
from hopline_engine.queue.pusher import Keeping, Pusher
from hopline_engine.queue.service import Conduct, QueueService
from hopline_engine.queue.target import Target
from hopline_engine.queue.tokens import DISCOVERY_PATH, KEYS_PATH, Tokens, key_in_file, key_in_store
from hopline_engine.queue_api.rest import RestApi, error_answer
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings

GRACE_SECONDS = 2.0
_ROOTS = frozenset({"v2", "v2beta3", "v2beta2", "projects"})
"""What paths of the REST API begin with; Firebase's tools leave the version out."""
_REFUSALS: Mapping[type[HoplineError], Code] = {
    UnauthorizedError: Code.UNAUTHENTICATED,
    ForeignOriginError: Code.PERMISSION_DENIED,
    UnknownHostError: Code.PERMISSION_DENIED,
}

if TYPE_CHECKING:
    from hopline_engine.queue_api.grpc_server import GrpcServer


def refuse(path: str, error: HoplineError) -> ASGIApp:
    """Return what answers a request that is not let in: in the words of the API that it was meant for."""
    code = _REFUSALS.get(type(error))
    if code is None or not _is_of_cloud_tasks(path):
        return answer_to(error)
    return error_answer(CloudTasksError(code, f"{error.message}: {error.hint}" if error.hint else error.message))


def _is_of_cloud_tasks(path: str) -> bool:
    return path[1:].partition("/")[0] in _ROOTS


class _CloudRoute(BaseRoute):
    """All paths of the REST API with any verb, so that every error there is told as its clients understand it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_ours = scope["type"] == "http" and _is_of_cloud_tasks(scope["path"])
        return (Match.FULL if is_ours else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class GrpcMissingError(HoplineError):
    """The Cloud Tasks API is to be served over gRPC, and what that needs is not installed."""

    code = "grpc-missing"

    def __init__(self, module: str | None) -> None:
        super().__init__(f"gRPC cannot be served: {module} is not installed", hint='pip install "hopline[grpc]"')


class QueueFront:
    """The queue service of an open engine."""

    def __init__(self, service: QueueService, tokens: Tokens, settings: Settings) -> None:
        self.service = service
        self.tokens = tokens
        self._settings = settings
        self._grpc: GrpcServer | None = None

    async def serve_grpc(self, port: int) -> int:
        """Listen for gRPC too, and return the port.

        Raises:
            GrpcMissingError: that needs an extra.
            OSError: the port is taken.
        """
        try:
            # A second's work, which the loop must not wait for.
            module = await asyncio.to_thread(importlib.import_module, "hopline_engine.queue_api.grpc_server")
        except ModuleNotFoundError as error:
            raise GrpcMissingError(error.name) from error
        server: GrpcServer = module.GrpcServer(self.service, self._settings.api_token)
        bound = await server.serve(self._settings.host, port)
        self._grpc = server
        return bound

    async def stop_grpc(self) -> None:
        """Take no more calls over gRPC."""
        if self._grpc is not None:
            await self._grpc.stop(GRACE_SECONDS)

    def mount(self, app: FastAPI) -> None:
        """Add the REST API, and what verifies identity tokens, to an application."""
        rest = RestApi(self.service)
        app.router.routes.append(_CloudRoute(rest))
        app.router.add_route(DISCOVERY_PATH, self._discovery, include_in_schema=False)
        app.router.add_route(KEYS_PATH, self._keys, include_in_schema=False)

    async def _discovery(self, _: Request) -> Response:
        return JSONResponse(self.tokens.discovery())

    async def _keys(self, _: Request) -> Response:
        try:
            return JSONResponse(await self.tokens.keys())
        except ValueError as error:
            return JSONResponse({"error": {"code": 501, "message": str(error), "status": "UNIMPLEMENTED"}}, 501)


@asynccontextmanager
async def open_queue_front(
    engine: Engine, target: Target, clock: Clock, settings: Settings, url: Callable[[], str]
) -> AsyncIterator[QueueFront]:
    """Take up the queue service of an open engine, and let go of it at the end.

    Args:
        engine: whose store, limits and wake-ups it shares.
        target: how tasks are sent, behind the egress guard.
        clock: the time.
        settings: of the installation.
        url: returns the base URL under which targets reach this server.
    """

    async def load_key() -> str:
        # A target may ask any of the nodes that share a database how a token is verified.
        if settings.is_on_postgres:
            return await key_in_store(engine.store)
        return await asyncio.to_thread(key_in_file, settings.state_dir / "oidc.pem")

    tokens = Tokens(load_key, settings.oauth_access_token, url)
    pusher = Pusher(
        store=engine.store,
        admission=engine.admission,
        courier=Courier(
            target=target, clock=clock, app_engine=AppEngineUrls(settings.app_engine_urls), authorize=tokens.headers
        ),
        clock=clock,
        keeping=Keeping(attempt_seconds=settings.task_attempts_seconds),
        look_again=engine.coordinator.look_again,
    )
    follower = Follower(
        store=engine.store,
        pusher=pusher,
        clock=clock,
        hear=engine.controls.hear,
        has_company=engine.membership.has_company,
    )
    engine.coordinator.listeners.others_admitted = pusher.send
    service = QueueService(
        store=engine.store,
        admission=engine.admission,
        pusher=pusher,
        clock=clock,
        conduct=Conduct(
            queue_name_hold_seconds=settings.queue_name_hold_seconds, creates_queues=settings.create_queues
        ),
        controls=engine.controls,
    )
    front = QueueFront(service, tokens, settings)
    await pusher.open()
    following = asyncio.create_task(follower.run())
    try:
        yield front
    finally:
        await front.stop_grpc()
        following.cancel()
        await asyncio.wait({following})
        await pusher.close(settings.drain_seconds)
