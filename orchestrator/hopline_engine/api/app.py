"""The HTTP API as one application: which routes there are and what every request passes through."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.middleware import Middleware

from hopline_engine.api import callbacks, health, queues, runs, workers, workflows
from hopline_engine.api.errors import HANDLERS, LastResort
from hopline_engine.api.guard import Guard
from hopline_engine.api.interface import EngineService
from hopline_engine.api.models import (
    Asked,
    CallbackReport,
    DefinitionsRequest,
    ErrorAnswer,
    QueueLimits,
    RunRequest,
    WorkerRegistration,
)
from hopline_engine.settings import Settings

PREFIX = "/api/v1"
_BODIES: tuple[type[Asked], ...] = (RunRequest, DefinitionsRequest, WorkerRegistration, QueueLimits, CallbackReport)

ROUTERS: tuple[tuple[str, APIRouter], ...] = (
    (PREFIX, callbacks.router),
    (PREFIX, runs.router),
    (PREFIX, workers.router),
    (PREFIX, queues.router),
    (PREFIX, workflows.router),
    (PREFIX, health.router),
    ("", health.signs_of_life),
)
"""All routes, with the prefix that each router's paths begin with; those that are called most come first."""


def create_app(engine: EngineService, settings: Settings) -> FastAPI:
    """Return the application; starting and stopping the engine is the caller's part."""
    app = FastAPI(
        title="Hopline",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        responses={"default": {"model": ErrorAnswer, "description": "What went wrong"}},
        generate_unique_id_function=_operation_id,
        exception_handlers=HANDLERS,
        middleware=[Middleware(Guard, settings=settings), Middleware(LastResort)],
    )
    app.state.engine = engine
    app.state.settings = settings
    for prefix, router in ROUTERS:
        app.include_router(router, prefix=prefix)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _version() -> str:
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
