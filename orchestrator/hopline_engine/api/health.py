"""Routes that say how the server is: for supervisors without a token, for programs with one."""

from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.body import answer
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Health, View

router = APIRouter(prefix="/health", tags=["health"])
signs_of_life = APIRouter(include_in_schema=False)


class SignOfLife(View):
    """All that strangers are told."""

    status: Literal["ok"] = "ok"


@signs_of_life.get("/healthz")
async def is_alive() -> Response:
    """Say that the process answers."""
    return answer(SignOfLife())


@signs_of_life.get("/readyz")
async def is_ready(engine: Engine) -> Response:
    """Say that the engine takes work and its store answers; 503 otherwise."""
    await engine.ready()
    return answer(SignOfLife())


@router.get("", response_model=Health)
async def show_health(request: Request, engine: Engine) -> Response:
    """Show the version of a server that is ready."""
    await engine.ready()
    return answer(Health(version=request.app.version, node=engine.fleet().node, healed=engine.healed()))
