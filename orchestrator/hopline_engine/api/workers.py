"""Routes of workers: how they announce themselves, stay, and leave."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import WorkerRegistration
from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.fleet_models import RegisteredWorker, Workers, WorkerTerms
from hopline_engine.api.given import Configured, Engine
from hopline_engine.api.interface import EngineService
from hopline_engine.settings import Settings

router = APIRouter(prefix="/workers", tags=["workers"])

WorkerId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


@router.get("", response_model=Workers)
async def list_workers(engine: Engine) -> Response:
    """List the workers that are there now."""
    return answer(Workers(workers=await engine.workers()))


@router.put("/{worker}", response_model=RegisteredWorker, openapi_extra=takes(WorkerRegistration))
async def register_worker(worker: WorkerId, request: Request, engine: Engine, settings: Configured) -> Response:
    """Announce a worker, in place of what was known under its id."""
    asked = read_model(await read_body(request), WorkerRegistration)
    registered = await engine.register_worker(worker, asked)
    return answer(RegisteredWorker.model_construct(**dict(registered), **dict(_terms(engine, settings))))


@router.post("/{worker}/heartbeat", response_model=WorkerTerms)
async def heartbeat_worker(worker: WorkerId, engine: Engine, settings: Configured) -> Response:
    """Say that a worker is alive; 404 means that it has to register again."""
    await engine.heartbeat_worker(worker)
    return answer(_terms(engine, settings))


@router.delete("/{worker}", status_code=204)
async def remove_worker(worker: WorkerId, engine: Engine) -> Response:
    """Send a worker nothing more."""
    await engine.remove_worker(worker)
    return Response(status_code=204)


def _terms(engine: EngineService, settings: Settings) -> WorkerTerms:
    fleet = engine.fleet()
    return WorkerTerms(node=fleet.node, nodes=fleet.nodes, result_max_bytes=settings.result_max_bytes)
