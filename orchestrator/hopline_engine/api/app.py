"""The HTTP API as one application: which routes there are and what every request passes through."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from hopline_engine.api import (
    approvals,
    callbacks,
    doctor,
    emitting,
    health,
    nodes,
    queues,
    runs,
    schedules,
    secrets,
    versions,
    workers,
    workflows,
)
from hopline_engine.api.asked import (
    ApprovalAnswer,
    Asked,
    CallbackReport,
    DefinitionsRequest,
    EventRequest,
    ForkRequest,
    QueueLimits,
    RetryRequest,
    RunRequest,
    WorkerRegistration,
)
from hopline_engine.api.errors import HANDLERS, LastResort
from hopline_engine.api.forwarding import Forwarder, RunElsewhere, forward
from hopline_engine.api.guard import Guard, Refuse, tell
from hopline_engine.api.interface import EngineService
from hopline_engine.api.models import ErrorAnswer
from hopline_engine.api.schedule_models import BackfillRequest, ScheduleChange, ScheduleRequest
from hopline_engine.api.secret_models import SecretRequest
from hopline_engine.api.shortcuts import Shortcut, Shortcuts
from hopline_engine.settings import Settings

PREFIX = "/api/v1"
_BODIES: tuple[type[Asked], ...] = (
    RunRequest,
    RetryRequest,
    ForkRequest,
    DefinitionsRequest,
    WorkerRegistration,
    QueueLimits,
    CallbackReport,
    EventRequest,
    ScheduleRequest,
    ScheduleChange,
    BackfillRequest,
    ApprovalAnswer,
    SecretRequest,
)

ROUTERS: tuple[tuple[str, APIRouter], ...] = (
    (PREFIX, callbacks.router),
    (PREFIX, runs.router),
    (PREFIX, workers.router),
    (PREFIX, approvals.router),
    (PREFIX, emitting.router),
    (PREFIX, queues.router),
    (PREFIX, schedules.router),
    (PREFIX, secrets.router),
    (PREFIX, workflows.router),
    (PREFIX, versions.router),
    (PREFIX, nodes.router),
    (PREFIX, doctor.router),
    (PREFIX, health.router),
    ("", health.signs_of_life),
)
"""All routes, with the prefix that each router's paths begin with; those that are called most come first."""

SHORTCUTS: Mapping[tuple[str, str], Shortcut] = {("POST", f"{PREFIX}/runs"): runs.start_run}
"""Functions of routes above, by method and path, that are called without the framework."""


def create_app(engine: EngineService, settings: Settings, refuse: Refuse = tell) -> FastAPI:
    """Return the application.

    Starting and stopping the engine is the caller's part, and closing ``state.forwarder``.

    Args:
        engine: what the routes ask.
        settings: of the installation.
        refuse: answers requests that are not let in; for paths of other APIs that are mounted beside this one.
    """
    app = _Application(
        title="Hopline",
        version=installed_version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        exception_handlers={**HANDLERS, RunElsewhere: forward},
        middleware=[Middleware(LastResort)],  # within the framework's own, which tells of errors in other words
    )
    app.stand_behind(lambda inner: Guard(LastResort(Shortcuts(inner, engine, SHORTCUTS)), settings, refuse))
    app.state.engine = engine
    app.state.settings = settings
    app.state.forwarder = Forwarder()
    app.router.routes.extend(_routes())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Return the routes, which all applications of a process share: it takes long to work them out."""
    shared = APIRouter(
        responses={"default": {"model": ErrorAnswer, "description": "What went wrong"}},
        generate_unique_id_function=_operation_id,
    )
    for prefix, router in ROUTERS:
        shared.include_router(router, prefix=prefix)
    return shared.routes


class _Application(FastAPI):
    """The framework's application behind doors that are not its middleware.

    Between two of its own, which every request pays for and which catch nothing that ours let through, these would
    make a tenth of what starting a run costs.
    """

    _front: ASGIApp | None = None

    def stand_behind(self, doors: Callable[[ASGIApp], ASGIApp]) -> None:
        """Have all requests pass through *doors* first."""
        self._front = doors(super().__call__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await (self._front or super().__call__)(scope, receive, send)


def installed_version() -> str:
    """Return the version of hopline that runs."""
    try:
        return version("hopline")
    except PackageNotFoundError:  # run from its sources
        return "0"


def _operation_id(route: APIRoute) -> str:
    return route.name


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schemas of the bodies, which FastAPI does not read itself."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, schemas = models_json_schema(
            [(model, "validation") for model in _BODIES], ref_template="#/components/schemas/{model}"
        )
        document["components"]["schemas"].update(schemas["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
